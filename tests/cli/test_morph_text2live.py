"""``geokernels morph --method text2live``: the layers it leaves behind, and how it stops and goes on."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.media.pictures import read_picture, write_picture
from geokernels.pipelines import LayerEdit
from geokernels.pipelines.morph import text2live as module
from geokernels.runs.record import require_record

BEFORE, AFTER = "a red star on a white background", "a blue star on a white background"


# few views, and no search for a first guess: its start is tested with the pipeline
QUICK = ("--no-start", "--set", "views=2", "--set", "crops=2")


@pytest.fixture
def picture(tmp_path):
    scene = world.sample_scenes(1, generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "source.png", world.render(scene)[0])
    return tmp_path / "source.png"


def morph(picture, out, *more, steps=3):
    options = ["--from", BEFORE, "--to", AFTER, "--out", out, "--steps", steps, "--method", "text2live"]
    options += QUICK
    return CliRunner().invoke(app, [str(x) for x in ("morph", picture, *options, *more)])


def test_layers_compose_to_the_result(picture, tmp_path):
    out = tmp_path / "out"
    done = morph(picture, out, "--screen", "a blue star on a green background")
    assert done.exit_code == 0, done.output
    assert {p.name for p in out.iterdir()} == {
        "edit.png", "alpha.png", "result.png", "frames.png", "frames", "morph.gif", "run.json", "report.html",
    }  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    require_record(record)
    assert (record["method"], record["config"]["morph"]["views"]) == ("text2live", 2)
    assert {"edit.png", "alpha.png", "result.png"} < set(record["files"])
    edit, alpha = Image.open(out / "edit.png"), Image.open(out / "alpha.png")
    assert (edit.mode, alpha.mode) == ("RGBA", "L")
    assert edit.getchannel("A").tobytes() == alpha.tobytes()
    opacity = np.asarray(alpha, dtype=float)[..., None] / 255
    laid = opacity * np.asarray(edit.convert("RGBA"))[..., :3] + (1 - opacity) * np.asarray(
        Image.open(picture)
    )
    assert np.abs(laid - np.asarray(Image.open(out / "result.png"))).max() <= 2  # each was rounded
    page = (out / "report.html").read_text()
    assert "The edit layer" in page
    assert 'alt=""' not in page


def test_interrupted_run_resumes_to_the_identical_layers(picture, tmp_path, monkeypatch):
    assert morph(picture, tmp_path / "whole").exit_code == 0
    step = LayerEdit.step

    def press(self):
        if self.index == 1:
            os.kill(os.getpid(), signal.SIGINT)
        step(self)

    monkeypatch.setattr(LayerEdit, "step", press)
    stopped = morph(picture, tmp_path / "halves")
    assert stopped.exit_code == 130
    assert "Stopped after step 2 of 3" in stopped.stderr
    monkeypatch.setattr(LayerEdit, "step", step)
    assert morph(picture, tmp_path / "halves", "--resume").exit_code == 0
    whole, halves = (json.loads((tmp_path / d / "run.json").read_text()) for d in ("whole", "halves"))
    for name in ("edit.png", "alpha.png", "result.png", "morph.gif"):
        assert whole["files"][name] == halves["files"][name]
    assert whole["history"] == halves["history"]


def test_a_loss_that_is_no_number_leaves_the_last_good_state(picture, tmp_path, monkeypatch):
    loss = module.sparsity_loss
    calls = []

    def spoiled(opacity, **how):
        calls.append(opacity)
        return loss(opacity, **how) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(module, "sparsity_loss", spoiled)
    failed = morph(picture, tmp_path / "out")
    assert failed.exit_code == 2
    assert "Error: the loss at step 2 is nan; lower the learning rate" in failed.stderr
    assert torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["stages"]["morph"]["index"] == 2
    assert morph(picture, tmp_path / "out", "--resume").exit_code == 0


def test_transparency_and_four_inks_are_read_and_a_mask_says_where_to_begin(picture, tmp_path):
    image = Image.open(picture)
    mask = Image.linear_gradient("L").resize(image.size)
    mask.save(tmp_path / "mask.png")
    clear = image.convert("RGBA")
    clear.putalpha(mask)
    clear.save(tmp_path / "clear.png")
    image.convert("CMYK").save(tmp_path / "inks.jpg")
    assert (
        morph(tmp_path / "clear.png", tmp_path / "a", "--where", tmp_path / "mask.png", steps=1).exit_code
        == 0
    )
    result = Image.open(tmp_path / "a" / "result.png")
    assert result.getchannel("A").tobytes() == mask.tobytes()
    assert "bootstrap" in json.loads((tmp_path / "a" / "run.json").read_text())["terms"]["morph"]
    assert morph(tmp_path / "inks.jpg", tmp_path / "b", steps=1).exit_code == 0
    assert read_picture(tmp_path / "b" / "result.png").rgb.shape == (3, 64, 64)
