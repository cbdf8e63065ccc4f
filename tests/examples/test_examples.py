"""The examples run as they stand, and their losses go down."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from geokernels import world
from geokernels.media.pictures import read_picture, write_picture
from geokernels.models import load_clip

FOLDER = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def picture():
    return world.render(world.sample_scenes(1, generator=torch.Generator().manual_seed(1)))


def test_a_nada_loop_with_the_losses_dropped_in():
    _, losses = load("nada_loop").adapt("an object", "a large object", steps=5, batch=2)
    assert losses[-1] < losses[0]


def test_a_patch_loss_as_clipstyler_writes_it(picture):
    painted, losses = load("patch_style").style(
        picture, load_clip(), "a red object", "a blue object", steps=8
    )
    assert painted.shape == picture.shape
    assert min(losses[-3:]) < losses[0]


def test_from_the_command_line(picture, tmp_path, monkeypatch, capsys):
    write_picture(tmp_path / "in.png", picture[0])
    options = [
        str(tmp_path / "in.png"),
        "--to",
        "a blue object",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "out.png"),
    ]
    monkeypatch.setattr(sys, "argv", ["patch_style.py", *options])
    load("patch_style").main()
    assert "loss" in capsys.readouterr().out
    assert read_picture(tmp_path / "out.png").rgb.shape == (3, 64, 64)


def test_an_edit_as_a_layer(picture, tmp_path, monkeypatch, capsys):
    write_picture(tmp_path / "in.png", picture[0])
    options = ["--from", "a red object", "--to", "a blue object", "--steps", "3"]
    argv = ["text2live.py", str(tmp_path / "in.png"), *options, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", argv)
    load("text2live").main()
    said = capsys.readouterr().out
    assert "step 3 of 3: loss" in said
    edit = read_picture(tmp_path / "out" / "edit.png")
    composite = read_picture(tmp_path / "out" / "composite.png").rgb
    source = read_picture(tmp_path / "in.png").rgb
    # laid over white by the reader, over the picture by us
    laid = edit.rgb - (1 - edit.alpha) * (1 - source)
    assert (laid - composite).abs().max() < 3 / 255
    kept = (edit.alpha == 0).float().mean().item()
    assert f"{kept:.0%} of the picture is untouched" in said


def test_a_clip_edited_by_one_picture(tmp_path, monkeypatch, capsys):
    pytest.importorskip("av"), pytest.importorskip("cv2")
    from geokernels.media.clips import VideoSource

    chance = torch.Generator().manual_seed(1)
    clip = world.render_clip(world.sample_scenes(1, generator=chance), 3, 24, generator=chance)
    for i, (frame, mask) in enumerate(zip(clip.frames, clip.masks)):
        write_picture(tmp_path / "frames" / f"{i}.png", frame)
        write_picture(tmp_path / "masks" / f"{i}.png", mask.expand(3, -1, -1))
    texts = ["--from", "a blue object", "--to", "a red object", "--layer", "background"]
    options = [
        "--masks",
        str(tmp_path / "masks"),
        "--fit-steps",
        "15",
        "--steps",
        "2",
        "--out",
        str(tmp_path),
    ]
    argv = ["text2live_video.py", str(tmp_path / "frames"), *texts, *options]
    monkeypatch.setattr(sys, "argv", argv)
    load("text2live_video").main()
    first = capsys.readouterr().out
    assert "atlas, step 15 of 15: loss" in first
    assert len(list(VideoSource(tmp_path / "edited.mp4").frames())) == 3
    written = (tmp_path / "edited.mp4").read_bytes()
    options = [*options[:2], *options[4:], "--atlas", str(tmp_path / "atlas.safetensors")]
    monkeypatch.setattr(sys, "argv", ["text2live_video.py", str(tmp_path / "frames"), *texts, *options])
    load("text2live_video").main()
    assert "atlas, step" not in capsys.readouterr().out
    assert (tmp_path / "edited.mp4").read_bytes() == written


def test_points_tracked_through_a_clip(tmp_path, monkeypatch, capsys):
    argv = ["track_points.py", "--frames", "4", "--out", str(tmp_path / "tracks.png")]
    monkeypatch.setattr(sys, "argv", argv)
    load("track_points").main()
    said = capsys.readouterr().out
    off = [float(part) for part in re.findall(r"([\d.]+) px off", said)]
    way = float(re.search(r"went (\d+) px", said)[1])
    assert len(off) == 3
    assert off[-1] < 0.25 * way
    assert read_picture(tmp_path / "tracks.png").rgb.shape[1] == 128
