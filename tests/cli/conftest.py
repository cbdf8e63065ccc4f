"""Every command that writes, small, as it is typed."""

import pytest
import torch
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.media.pictures import write_picture
from geokernels.models import Generator, GeneratorConfig, save_generator
from geokernels.pipelines import BlendConfig, ClipInversionConfig, MatchingConfig
from geokernels.runs import demo as demo_report
from geokernels.runs.demo import DemoConfig

SMALL_FILM = BlendConfig(frames=2, palette=32, matching=MatchingConfig(points=8, first=8))
TEXTS = ("--from", "a red circle", "--to", "a blue circle")
SMALL_MORPH = ("--no-start", "--set", "views=2")


def settings(**values):
    """What is typed to set them."""
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


SMALL_BLEND = ("--frames", 3, *settings(**{"matching.points": 16, "matching.first": 16, "palette": 32}))
SMALL_ATLAS = {"steps": 3, "samples": 64, "bootstrap": 1.0, "bootstrapped": 2.0, "shape.width": 8}
SMALL_ATLAS |= {"shape.layers": 1, "shape.map_layers": 1, "shape.octaves": 2}
SMALL_VIDEO = ("--no-start", *settings(views=2, crops=2))
SMALL_VIDEO += (*settings(**{f"atlas.{name}": value for name, value in SMALL_ATLAS.items()}),)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A picture, a clip as a folder of frames with masks, and a tiny generator."""
    folder = tmp_path_factory.mktemp("inputs")
    chance = torch.Generator().manual_seed(1)
    write_picture(folder / "picture.png", world.render(world.sample_scenes(1, generator=chance))[0])
    truth = world.render_clip(world.sample_scenes(1, generator=chance), 3, 24, generator=chance)
    for i, (frame, mask) in enumerate(zip(truth.frames, truth.masks)):
        write_picture(folder / "clip" / f"{i}.png", frame)
        write_picture(folder / "masks" / f"{i}.png", mask.expand(3, -1, -1))
    torch.manual_seed(0)
    small = GeneratorConfig(channels=(8, 6, 4), style_dim=7, mapping_layers=2)
    save_generator(Generator(small), folder / "tiny.pt")
    return folder


@pytest.fixture(scope="module")
def finished(inputs):
    """The folder of a finished run."""
    words = ("morph", inputs / "picture.png", *TEXTS, "--steps", 2, *SMALL_MORPH, "--out", inputs / "run")
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    return inputs / "run"


@pytest.fixture
def command_line(inputs, finished, pipeline_folder, monkeypatch):
    """What is typed for each command, small, without ``--out``."""
    morphs = ClipInversionConfig(recipe="world", steps=1, views=2, guess=2)
    small = DemoConfig(("colour",), morphs, walk=2, line=2, prompts=2, steps=1, blend=SMALL_FILM)
    monkeypatch.setattr(demo_report, "DemoConfig", lambda: small)
    monkeypatch.setitem(demo_report.__dict__, "load_diffusion", _left_out)
    two = ("--frames", 2, "--distance", "features")
    adapting = ("--steps", 2, "--batch", 2, "--pool", 4, "--no-start", "--recipe", "world")
    drawn = ("--model", pipeline_folder, "--steps", 3)
    return {
        "morph": ("morph", inputs / "picture.png", *TEXTS, "--steps", 2, *SMALL_MORPH),
        "blend": ("blend", inputs / "picture.png", inputs / "masks" / "0.png", *SMALL_BLEND),
        "edit": ("edit", "--from", "a", "--to", "b", *drawn),
        "adapt": ("adapt", *TEXTS, "--model", inputs / "tiny.pt", *adapting),
        "video": ("video", inputs / "clip", *TEXTS, "--masks", inputs / "masks", "--steps", 2, *SMALL_VIDEO),
        "interpolate": ("interpolate", "--prompt", "a", "--prompt", "b", *drawn, *two),
        "eval": ("eval", "--world", 2, *drawn, "--method", "no_edit"),
        "world sample": ("world", "sample", "scenes", "--count", 2),
        "world train": ("world", "train", "generator", "--quick"),
        "demo": ("demo",),
        "rerun": ("rerun", finished),
    }


def _left_out(name):
    raise ImportError("there is none")
