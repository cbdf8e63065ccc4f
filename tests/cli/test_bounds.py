"""Pictures, masks and clips that cannot be used are refused by every command before it loads a model."""

import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.media.pictures import write_picture

pytest.importorskip("av"), pytest.importorskip("cv2")
TEXTS = ("--from", "a red circle", "--to", "a blue circle")


@pytest.fixture(autouse=True)
def no_models(monkeypatch):
    """Whatever loads a model fails."""

    def load(*args, **how):
        raise AssertionError("a model was loaded")

    import geokernels.cli  # noqa: F401

    for command in ("morph", "edit", "adapt", "video"):
        module = sys.modules[f"geokernels.cli.{command}"]
        for name in ("encoder_of", "encoders_of", "models_of"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, load)
    monkeypatch.setattr("geokernels.models.load_generator", load)


def refused(*arguments):
    done = CliRunner().invoke(app, [str(x) for x in arguments])
    assert done.exit_code == 2, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.stderr


@pytest.fixture
def large(tmp_path):
    Image.new("1", (9400, 9400)).save(tmp_path / "large.png", optimize=True)
    return tmp_path / "large.png"


@pytest.fixture
def picture(tmp_path):
    write_picture(tmp_path / "picture.png", torch.rand(3, 32, 40))
    return tmp_path / "picture.png"


@pytest.mark.parametrize("command", ["morph", "edit", "adapt", "video"])
def test_a_small_file_of_a_large_picture(command, large, tmp_path):
    clip = tmp_path / "clip"
    clip.mkdir()
    (clip / "0.png").write_bytes(large.read_bytes())
    given = {"adapt": ("--real", large), "video": (clip,)}.get(command, (large,))
    said = refused(command, *given, *TEXTS, "--out", tmp_path / "out")
    assert "must have at most 64 megapixels" in said
    assert "has 88.4 (9400 x 9400)" in said
    assert "--most-megapixels" in said
    assert not (tmp_path / "out").exists()
    said = refused(command, *given, *TEXTS, "--out", tmp_path / "out", "--most-megapixels", 10)
    assert "must have at most 10 megapixels" in said


def test_a_mask_that_says_nothing_or_does_not_fit(picture, tmp_path):
    where = ("--method", "text2live", "--out", tmp_path / "out", "--where", tmp_path / "mask.png")
    Image.new("L", (40, 32)).save(tmp_path / "mask.png")
    said = refused("morph", picture, *TEXTS, *where)
    assert "--where must show an object, mask.png covers 0.00% of the picture" in said
    write_picture(tmp_path / "mask.png", torch.ones(3, 20, 20).triu())
    said = refused("morph", picture, *TEXTS, *where)
    assert "--where must be as large as the picture, 40 x 32 pixels, mask.png is 20 x 20" in said


def test_masks_of_a_clip(picture, tmp_path):
    out = ("--out", tmp_path / "out")
    for i in range(2):
        write_picture(tmp_path / "clip" / f"{i}.png", torch.rand(3, 32, 40))
        write_picture(tmp_path / "masks" / f"{i}.png", torch.ones(3, 32, 40).triu() * (1 - i))
    said = refused("video", tmp_path / "clip", *TEXTS, *out, "--masks", tmp_path / "masks")
    assert "--masks must show an object, 1.png covers 0.00% of the picture; " in said
    assert "--empty-masks" in said
    said = refused("video", tmp_path / "clip", *TEXTS, *out, "--empty-masks")
    assert "--empty-masks goes with --masks" in said
    said = refused("video", tmp_path / "clip", *TEXTS, *out, "--masks", tmp_path / "none")
    assert "--masks must be" in said
