"""Diffusers itself loads the folders of integrations/diffusers; they do what the package's classes do."""

import importlib.util
import logging
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from geokernels import world
from geokernels.media.pictures import read_picture, write_picture
from geokernels.models import load_clip, load_diffusion, load_text_to_image
from geokernels.pipelines import (
    OIGPipeline,
    PromptInterpolationConfig,
    PromptInterpolationPipeline,
    ddim_inversion,
    interpolate_prompts,
    oig_edit,
)

diffusers = pytest.importorskip("diffusers")
ROOT = Path(__file__).parents[2]
FOLDERS = {"oig": OIGPipeline, "prompt_interpolation": PromptInterpolationPipeline}
PROMPTS = ["red cat", "a blue hat"]


@pytest.fixture(autouse=True)
def own_modules(monkeypatch, tmp_path):
    """Diffusers copies custom code into a folder of its own, which is here and of this test alone."""
    from diffusers.utils import dynamic_modules_utils

    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(logging.getLogger("diffusers"), "disabled", True)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "diffusers_modules"]:
        del sys.modules[name]


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(folder: Path, custom: str, **options):
    custom = ROOT / "integrations" / "diffusers" / custom
    return diffusers.DiffusionPipeline.from_pretrained(
        folder, custom_pipeline=str(custom), trust_remote_code=True, **options
    )


def test_both_in_one_program(random_pipeline):
    folder = random_pipeline("StableDiffusionPipeline")
    for custom in ("oig", "prompt_interpolation", "oig"):
        assert type(load(folder, custom)) is FOLDERS[custom]


@pytest.mark.parametrize(
    "kind",
    ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"],
)
@pytest.mark.parametrize("custom", FOLDERS)
def test_kinds_are_told_by_their_parts(custom, kind, random_pipeline, tmp_path):
    pipe = load(random_pipeline(kind), custom)
    assert type(pipe.inner).__name__ == kind
    assert pipe.model_cpu_offload_seq == pipe.inner.model_cpu_offload_seq
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    assert pipe.inner.scheduler is pipe.scheduler
    pipe.save_pretrained(tmp_path / "saved")
    assert type(load_text_to_image(tmp_path / "saved")).__name__ == kind


def test_what_a_folder_says_beside_its_parts(random_pipeline, tmp_path):
    pipe = load_diffusion(random_pipeline("StableDiffusionXLPipeline"))
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    pipe.save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved", "oig").inner.config.force_zeros_for_empty_prompt is False


def test_pixart_has_to_be_named(random_pipeline):
    folder = random_pipeline("PixArtSigmaPipeline")
    with pytest.raises(ValueError, match="kind must be 'PixArtAlphaPipeline' or 'PixArtSigmaPipeline'"):
        load(folder, "prompt_interpolation")
    with pytest.raises(ValueError, match=r"kind must be one of .*, got 'PixArt'"):
        load(folder, "prompt_interpolation", kind="PixArt")
    pipe = load(folder, "prompt_interpolation", kind="PixArtSigmaPipeline")
    assert type(pipe.inner).__name__ == "PixArtSigmaPipeline"
    with pytest.raises(TypeError, match=r"pipeline must be a StableDiffusionPipeline, .*, got PixArtSigma"):
        load(folder, "oig", kind="PixArtSigmaPipeline")


def test_another_kind_is_refused(random_pipeline):
    folder = random_pipeline("StableDiffusionInstructPix2PixPipeline")
    with pytest.raises(
        TypeError, match=r"one of StableDiffusionPipeline, .*, got a UNet2DCond.* of 8 channels"
    ):
        load(folder, "oig")
    with pytest.raises(ValueError, match="a StableDiffusionPipeline must have a tokenizer"):
        OIGPipeline(
            **{**load_diffusion(random_pipeline("StableDiffusionPipeline")).components, "tokenizer": None}
        )


def test_the_example_of_prompt_interpolation(random_pipeline, tmp_path, monkeypatch):
    folder = random_pipeline("StableDiffusionXLPipeline")
    made = example("custom_prompt_interpolation").between(str(folder), PROMPTS, frames=3, steps=2)
    ours = interpolate_prompts(
        load_text_to_image(folder),
        PROMPTS,
        config=PromptInterpolationConfig(frames=3, steps=2),
        generator=chance(),
    )
    torch.testing.assert_close(made, ours.frames, rtol=0, atol=1.1 / 255)
    argv = ["--model", folder, "--prompt", "red cat", "--prompt", "hat", "--frames", 3, "--steps", 1]
    argv += ["--out", tmp_path / "path.gif"]
    monkeypatch.setattr(sys, "argv", ["custom_prompt_interpolation.py", *map(str, argv)])
    example("custom_prompt_interpolation").main()
    with Image.open(tmp_path / "path.gif") as film:
        assert film.n_frames >= 3


def test_the_example_of_oig(random_pipeline, tmp_path, monkeypatch):
    folder, encoder = random_pipeline("StableDiffusionPipeline"), load_clip("world")
    picture = world.render(world.sample_scenes(1, generator=chance()))
    write_picture(tmp_path / "in.png", picture[0])
    argv = ["in.png", "--from", "a red circle", "--to", "a blue circle", "--size", "64", "--steps", "3"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["custom_oig.py", *argv, "--model", str(folder), "--out", "out.png"])
    example("custom_oig").main()
    pipe, given = load_diffusion(folder), read_picture(tmp_path / "in.png").rgb[None]
    source = ddim_inversion(pipe, given, ["a red circle"], steps=3)
    ours = oig_edit(pipe, encoder, source, ["a blue circle"]).pictures[0]
    torch.testing.assert_close(read_picture(tmp_path / "out.png").rgb, ours, rtol=0, atol=1.1 / 255)


@pytest.mark.parametrize("kind", ["StableDiffusionXLPipeline", "StableDiffusion3Pipeline"])
def test_the_example_of_a_modular_pipeline(kind, random_pipeline, tmp_path, monkeypatch):
    modular, folder = example("modular_prompts"), str(random_pipeline(kind))
    pipe = modular.with_transport(folder)
    assert "transport" in pipe.blocks.sub_blocks
    negative = "" if kind == "StableDiffusion3Pipeline" else None
    made = modular.between(pipe, PROMPTS, frames=3, steps=1, height=64, width=64, negative_prompt=negative)
    assert made.shape == (3, 3, 64, 64)
    ours = interpolate_prompts(
        load_text_to_image(folder),
        PROMPTS,
        config=PromptInterpolationConfig(frames=3, steps=1, guidance_scale=pipe.guider.guidance_scale),
        generator=chance(),
    )
    torch.testing.assert_close(made.float(), ours.frames, rtol=0, atol=2.1 / 255)
    argv = ["--model", folder, "--frames", 3, "--steps", 1, "--prompt", "red cat", "--prompt", "hat"]
    argv += ["--out", tmp_path / "path.gif"]
    monkeypatch.setattr(sys, "argv", ["modular_prompts.py", *map(str, argv)])
    modular.main()
    with Image.open(tmp_path / "path.gif") as film:
        assert film.n_frames >= 3
