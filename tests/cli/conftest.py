"""Every command that writes, small, as it is typed."""

from functools import partial

import pytest
import torch

from geokernels import pipelines, world
from geokernels.media.pictures import write_picture
from geokernels.models import AtlasShape, Generator, GeneratorConfig, save_generator
from geokernels.pipelines import AtlasFitConfig, ClipInversionConfig, VideoEditConfig
from geokernels.runs import demo as demo_report
from geokernels.runs import video as video_driver
from geokernels.runs.demo import DemoConfig

TEXTS = ("--from", "a red circle", "--to", "a blue circle")


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


@pytest.fixture
def command_line(inputs, pipeline_folder, monkeypatch):
    """What is typed for each command, small, without ``--out``."""
    shape = AtlasShape(width=8, layers=1, map_layers=1, octaves=2)
    how = {"shape": shape, "steps": 3, "samples": 64, "bootstrap": 1.0, "bootstrapped": 2.0}

    class Small(AtlasFitConfig):
        @classmethod
        def of_size(cls, size, **given):
            return AtlasFitConfig(**how)

    monkeypatch.setattr(video_driver, "AtlasFitConfig", Small)
    monkeypatch.setattr(pipelines, "VideoEditConfig", partial(VideoEditConfig, views=2, crops=2, guess=2.0))
    monkeypatch.setattr(pipelines, "ClipInversionConfig", partial(ClipInversionConfig, views=2, guess=2))
    morphs = ClipInversionConfig(steps=1, views=2, guess=2)
    small = DemoConfig(("colour",), morphs, walk=2, line=2, prompts=2, steps=1)
    monkeypatch.setattr(demo_report, "DemoConfig", lambda: small)
    monkeypatch.setitem(demo_report.__dict__, "load_diffusion", _left_out)
    two = ("--frames", 2, "--distance", "features")
    adapting = ("--steps", 2, "--batch", 2, "--pool", 4, "--no-start")
    drawn = ("--model", pipeline_folder, "--steps", 3)
    return {
        "morph": ("morph", inputs / "picture.png", *TEXTS, "--steps", 2),
        "edit": ("edit", "--from", "a", "--to", "b", *drawn),
        "adapt": ("adapt", *TEXTS, "--model", inputs / "tiny.pt", *adapting),
        "video": ("video", inputs / "clip", *TEXTS, "--masks", inputs / "masks", "--steps", 2),
        "interpolate": ("interpolate", "--prompt", "a", "--prompt", "b", *drawn, *two),
        "eval": ("eval", "--world", 2, *drawn, "--method", "no_edit"),
        "world sample": ("world", "sample", "scenes", "--count", 2),
        "world train": ("world", "train", "generator", "--quick"),
        "demo": ("demo",),
    }


def _left_out(name):
    raise ImportError("there is none")
