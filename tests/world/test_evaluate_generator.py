"""What the generator's card states is measured as it says."""

import pytest
import torch

from geokernels.models import Generator, GeneratorConfig
from geokernels.world import render, sample_scenes

pytest.importorskip("open_clip")  # shared parts of the training scripts need it


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Generator(GeneratorConfig((6, 6, 6, 6, 6), style_dim=8, mapping_layers=1)).requires_grad_(False)


def test_shares_are_of_what_the_judge_names():
    from training.clip_data import values_of
    from training.evaluate_generator import readable

    scenes = sample_scenes(200, generator=torch.Generator().manual_seed(0))
    pictures, meant = render(scenes), values_of(scenes)
    meant[:100] = -2  # another value than any the judge gives
    pictures[:50] = 0.5  # grey: not a colour of the world, and no object
    lines = {line.split(" | ")[0].strip("| "): line for line in readable(pictures, meant).splitlines()}
    for name in ("shape", "colour", "background", "size", "texture", "all five"):
        assert "| 75.0 (68.6 to 80.5) | 50.0 (43.1 to 56.9) |" in lines[name], name


def test_evenness_is_one_where_steps_are_equal(model, monkeypatch):
    from training import evaluate_generator

    flat = torch.linspace(0, 1, 3 * 64 * 64).view(3, 64, 64)
    # pictures that depend on w linearly
    monkeypatch.setattr(evaluate_generator, "draw", lambda model, w: w[:, :1, None, None] * flat)
    in_w, in_z = evaluate_generator.evenness(model, 3, 10, 0)
    torch.testing.assert_close(in_w, torch.ones(3), rtol=1e-3, atol=0)
    assert (in_z > 1.01).all()


def test_inversion_finds_codes_of_what_the_generator_drew(model):
    from training.evaluate_generator import draw, invert, sample

    w = sample(model, 2, seed=5)[:, None].repeat(1, model.config.codes, 1)
    w[:, 3:] = sample(model, 2, seed=6)[:, None]  # a code of W+ that no single w has
    pictures = model.synthesis(w).detach()
    found = model.synthesis(invert(model, pictures, steps=60, seed=0))
    nearest = draw(model, sample(model, 500, seed=0))
    start = torch.cdist(pictures.flatten(1), nearest.flatten(1)).amin(1) ** 2 / pictures[0].numel()
    assert ((found - pictures).square().mean((1, 2, 3)) < 0.2 * start).all()


def test_the_grid_is_small_and_whole(model, tmp_path):
    from PIL import Image

    from training.evaluate_generator import save_grid

    save_grid(model, tmp_path / "docs" / "grid.png", seed=0)
    with Image.open(tmp_path / "docs" / "grid.png") as picture:
        assert picture.size == (640, 448)
