"""The block of modular pipelines moves rows along prompt_path, and draws what interpolate_prompts draws."""

import logging

import pytest
import torch

from geokernels.models import load_text_to_image
from geokernels.models.text_to_image import Embedding, TextToImage
from geokernels.pipelines import PromptInterpolationConfig, PromptTransportStep, interpolate_prompts
from geokernels.pipelines.interpolate.couplings import prompt_path

diffusers = pytest.importorskip("diffusers")
PROMPTS = ["red cat", "a blue hat on a mat"]
KINDS = ["StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"]


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    # diffusers says that guiders may change
    monkeypatch.setattr(logging.getLogger("diffusers"), "disabled", True)


@pytest.fixture(scope="module")
def modular(random_pipeline):
    """A modular pipeline with the block behind its text encoder, or without, made once for each kind."""
    made = {}

    def pipeline(kind: str, *, transport: bool = True):
        if (kind, transport) not in made:
            folder = str(random_pipeline(kind))
            blocks = diffusers.ModularPipeline.from_pretrained(folder).blocks.get_workflow("text2image")
            if transport:
                blocks.sub_blocks.insert("transport", PromptTransportStep(), 1)
            made[kind, transport] = pipe = blocks.init_pipeline(folder)
            pipe.load_components(dtype=torch.float32)
            pipe.set_progress_bar_config(disable=True)
        return made[kind, transport]

    return pipeline


def draw(pipe, prompts=PROMPTS, output="images", **more):
    settings = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "pt"}
    if "transport" in pipe.blocks.sub_blocks:
        settings["frames"] = 3
    return pipe(prompt=prompts, output=output, **{"generator": chance(), **settings, **more})


@pytest.mark.parametrize("kind, guidance", [(KINDS[0], 7.5), (KINDS[1], 7.0), (KINDS[2], 1.0)])
def test_draws_what_interpolate_prompts_draws(kind, guidance, modular, random_pipeline):
    pipe = modular(kind)
    if "guider" in pipe.component_names:
        assert pipe.guider.guidance_scale == guidance
    ours = interpolate_prompts(
        load_text_to_image(random_pipeline(kind)),
        PROMPTS,
        config=PromptInterpolationConfig(frames=3, steps=2, guidance_scale=guidance, height=64, width=64),
        generator=chance(),
    )
    # without a negative prompt diffusers' modular pipeline of Stable Diffusion 3 does not guide at all
    negative = {"negative_prompt": ""} if kind == "StableDiffusion3Pipeline" else {}
    torch.testing.assert_close(draw(pipe, **negative).float(), ours.frames, rtol=0, atol=2.1 / 255)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ["all", "pinned", "blockwise"])
def test_rows_are_those_of_the_path_to_the_bit(kind, rows, modular, random_pipeline):
    pipe, model = modular(kind), TextToImage(load_text_to_image(random_pipeline(kind)))
    names = ["prompt_embeds", "pooled_prompt_embeds"]
    encoded = draw(modular(kind, transport=False), output=names)
    keys = [
        Embedding(embeds, model.encode(prompt).kinds, pooled)
        for prompt, embeds, pooled in zip(PROMPTS, *encoded.values())
    ]
    path, times = prompt_path(keys, rows=rows), [0.0, 0.25, 1.0]
    moved = draw(pipe, output=names, rows=rows, times=times)
    for found, expected in zip(moved.values(), zip(*(path.at(time) for time in times))):
        assert torch.equal(found, torch.stack(expected))


def test_all_pictures_start_from_one_noise(modular):
    pipe = modular(KINDS[0])
    for generator in (chance(), None):
        same = draw(pipe, ["red cat", "red cat"], generator=generator)
        torch.testing.assert_close(same[1:], same[:1].expand_as(same[1:]), rtol=0, atol=1e-5)
    several = draw(pipe, ["red cat", "red cat"], generator=[chance(seed) for seed in range(3)])
    assert (several[0] - several[1]).abs().max() > 0.01
    noise = torch.randn(1, 4, 16, 16, generator=chance())
    given = draw(pipe, ["red cat", "red cat"], latents=noise.expand(3, -1, -1, -1))
    torch.testing.assert_close(given, draw(pipe, ["red cat", "red cat"]), rtol=0, atol=1e-5)


def test_three_prompts_and_a_negative_one(modular):
    prompts = [*PROMPTS, "dog"]
    plain = draw(modular(KINDS[1]), prompts, frames=5)
    led = draw(modular(KINDS[1]), prompts, frames=5, negative_prompt=["hat"] * 3)
    assert plain.shape == led.shape == (5, 3, 64, 64)
    assert not torch.equal(plain, led)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"frames": 1}, "frames must be at least 2, got 1"),
        ({"times": []}, "times must be at least one, got none"),
        ({"times": [0.5, 1.5]}, r"times must lie in \[0, 1\], got 1.5"),
        ({"coupling": "nearest"}, "coupling must be .*, got 'nearest'"),
        ({"coupling": "random"}, "generator must be given for the random coupling"),
        ({"generator": [chance()]}, "generator must be one, or one for each of 3, got 1"),
        ({"negative_prompt": ["hat", "mat"]}, "negative_prompt_embeds must be of one negative prompt"),
        ({"prompts": ["red cat"]}, "prompts must be at least two, got 1"),
    ],
    ids=lambda said: said if isinstance(said, str) else ", ".join(said),  # a generator has an address
)
def test_refusals(given, message, modular):
    with pytest.raises(ValueError, match=message):
        draw(modular(KINDS[0]), **given)


def test_other_pipelines_are_refused():
    blocks = diffusers.modular_pipelines.SequentialPipelineBlocks.from_blocks_dict(
        {"transport": PromptTransportStep()}
    )
    embeds = torch.randn(2, 5, 4, generator=chance())
    with pytest.raises(
        TypeError, match=r"one of StableDiffusionXLModularPipeline, .*, got ModularPipeline: "
    ):
        blocks.init_pipeline()(prompt_embeds=embeds)
