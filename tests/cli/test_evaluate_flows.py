"""geokernels eval on rectified flows: their own methods, and what is refused there."""

import csv
import json

import pytest
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli.console import BAD_INPUT
from geokernels.cli.evaluate import _contenders

pytest.importorskip("diffusers")
pytest.importorskip("torchmetrics")


def run(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def rows_of(folder):
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def pictures_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "pictures").rglob("*.png"))}


@pytest.fixture
def flow(random_pipeline):
    return ["--model", random_pipeline("StableDiffusion3Pipeline"), "--steps", 3, "--batch", 2]


def test_their_own_methods(flow, tmp_path):
    methods = ["no_edit", "flow_swap", "flow_edit:steps=3,n_max=2", "rf_inversion:steps=2"]
    asked = [part for method in methods for part in ("--method", method)]
    out = tmp_path / "out"
    found = run("--world", 2, *flow, *asked, "--solver", "fireflow", "--out", out)
    assert found.exit_code == 0, found.output
    record = json.loads((out / "run.json").read_text())
    assert not any(row["failure"] for row in rows_of(out))
    settings = record["methods"]["flow_edit:steps=3,n_max=2"]["settings"]
    assert (settings["guidance_scale"], settings["source_guidance_scale"]) == (13.5, 3.5)
    settled = {"steps": 3, "skip": 0, "batch": 2, "size": None, "solver": "fireflow"}
    assert settled.items() <= record["config"]["edits"].items()
    alone = run("--world", 2, *flow, *asked[:4], "--solver", "fireflow", "--out", tmp_path / "alone")
    assert alone.exit_code == 0
    added = run("--world", 2, *flow, *asked, "--solver", "fireflow", "--out", tmp_path / "alone", "--resume")
    assert added.exit_code == 0, added.output
    assert pictures_of(tmp_path / "alone") == pictures_of(out)


def test_without_a_method_all_that_suit():
    named = [contender.label for contender in _contenders(None, instructed=False, recipe=None, flow=True)]
    assert {"no_edit", "flow_edit", "rf_inversion"} < {*named}
    assert "ddim_swap" not in named


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--method", "masactrl"],
            "masactrl edits with U-Nets, of which --model is none; with rectified-",
        ),
        (["--skip", "1"], "--skip goes with U-Nets"),
        (
            ["--solver", "heun"],
            "--solver must be one of euler, midpoint, rf_solver, fireflow, got 'heun'",
        ),
    ],
)
def test_refusals(options, message, flow, tmp_path):
    found = run("--world", 1, *flow, *options, "--out", tmp_path / "out")
    assert found.exit_code == BAD_INPUT
    assert message in found.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_what_is_theirs_alone(pipeline_folder, tmp_path):
    for asked, message in (
        (["--solver", "euler"], "--solver goes with Stable Diffusion 3 and FLUX, got euler with a U-Net"),
        (
            ["--method", "flow_edit"],
            "flow_edit edits with rectified-flow models, of which --model is none",
        ),
    ):
        found = run("--world", 1, "--model", pipeline_folder, *asked, "--out", tmp_path / "out")
        assert found.exit_code == BAD_INPUT
        assert message in found.output.replace("\n", " ")
