"""Pictures of prompts, and between two, are those of the pipeline itself."""

import pytest
import torch

from geokernels.models import load_diffusion
from geokernels.models.drawing import draw_between, draw_prompts, embed, latent_shape


@pytest.fixture(scope="module")
def pipeline(pipeline_folder):
    return load_diffusion(pipeline_folder)


def noise(pipeline, n):
    return torch.randn(n, *latent_shape(pipeline), generator=torch.Generator().manual_seed(3))


def test_a_line_of_prompts_ends_in_the_pictures_of_both(pipeline):
    how = {"steps": 2, "guidance_scale": 3.0}
    one = noise(pipeline, 1)
    drawn = draw_between(pipeline, "a red star", "a blue ring", one, pictures=3, **how)
    ends = draw_prompts(pipeline, ["a red star", "a blue ring"], one.expand(2, -1, -1, -1), **how)
    torch.testing.assert_close(drawn[[0, 2]], ends, rtol=0, atol=1e-4)
    assert not torch.equal(drawn[1], drawn[0])


def test_pictures_are_those_of_the_pipeline_itself(pipeline):
    prompts, start = ["a red star", "a blue ring"], noise(pipeline, 2)
    ours = draw_prompts(pipeline, prompts, start, steps=3, guidance_scale=2.5)
    with torch.no_grad():
        theirs = pipeline(
            prompts, latents=start, num_inference_steps=3, guidance_scale=2.5, output_type="pt"
        ).images
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_every_step_is_reported(pipeline, guidance):
    steps = []
    start = noise(pipeline, 1)
    draw_prompts(pipeline, ["red"], start, steps=4, guidance_scale=guidance, on_step=lambda: steps.append(1))
    assert len(steps) == 4


def test_a_long_prompt_is_refused(pipeline):
    with pytest.raises(ValueError, match=r"prompt must have at most 77 tokens, got \d+: 'red red"):
        embed(pipeline, ["red " * 90])
