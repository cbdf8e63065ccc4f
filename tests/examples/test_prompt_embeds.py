"""The examples of prompt interpolation draw what the pipeline of the package draws."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from geokernels.media.pictures import read_picture
from geokernels.models import load_text_to_image
from geokernels.pipelines import PromptInterpolationConfig, interpolate_prompts

pytest.importorskip("diffusers")
EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPTS = ("red cat", "a blue hat")


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name, kind, guidance",
    [
        ("prompt_embeds", "StableDiffusionPipeline", 7.5),
        ("sdxl_prompt_embeds", "StableDiffusionXLPipeline", 5.0),
    ],
)
def test_plain_diffusers(name, kind, guidance, tmp_path, monkeypatch, random_pipeline):
    folder = random_pipeline(kind)
    arguments = ["--model", folder, "--from", PROMPTS[0], "--to", PROMPTS[1], "--frames", 3, "--steps", 2]
    out = tmp_path / "strip.png"
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--out", str(out)])
    example(name).main()
    ours = interpolate_prompts(
        load_text_to_image(folder),
        PROMPTS,
        config=PromptInterpolationConfig(frames=3, steps=2, guidance_scale=guidance),
        generator=torch.Generator().manual_seed(0),
    )
    strip = torch.cat(list(ours.frames), 2)
    torch.testing.assert_close(read_picture(out).rgb, strip, rtol=0, atol=1.1 / 255)


@pytest.mark.skipif(importlib.util.find_spec("compel") is None, reason="compel is not installed")
def test_beside_compel(random_pipeline):
    pipe = load_text_to_image(random_pipeline("StableDiffusionPipeline"))
    config = PromptInterpolationConfig(frames=3, steps=1)
    plain, weighted = (
        example("compel_prompts").between(pipe, prompts, config)
        for prompts in (["red cat", "hat"], ["(red)1.5 cat", "hat"])
    )
    chance = torch.Generator().manual_seed(0)
    direct = interpolate_prompts(pipe, ["red cat", "hat"], config=config, generator=chance).frames
    torch.testing.assert_close(plain, direct, rtol=0, atol=1.1 / 255)
    assert not torch.equal(plain[0], weighted[0])
    torch.testing.assert_close(plain[2], weighted[2], rtol=0, atol=1.1 / 255)
