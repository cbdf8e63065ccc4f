"""The benchmark of conventions measures the stored edits of a run as the run did, and again."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks.quality import conventions
from geokernels.cli import app

pytest.importorskip("diffusers")
pytest.importorskip("torchmetrics")


@pytest.fixture(scope="module")
def evaluated(pipeline_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    words = ["--model", pipeline_folder, "--steps", 3, "--method", "no_edit", "--out", out]
    done = CliRunner().invoke(app, ["eval", "--world", "3", *map(str, words)])
    assert done.exit_code == 0, done.output
    return out


def test_the_base_is_what_the_run_measured(evaluated):
    record = json.loads((evaluated / "run.json").read_text())
    assert record["conventions"]["fingerprint"] == conventions.BASE.fingerprint
    rows = conventions.rows_of(evaluated)
    (found,) = conventions.by_method(evaluated, conventions.BASE).values()
    for row, numbers in zip(rows, found, strict=True):
        assert {name: row[name] for name in conventions.NUMBERS} == pytest.approx(
            {name: numbers[name] for name in conventions.NUMBERS}, rel=1e-5, abs=1e-7
        )


def test_each_change_is_measured_by_itself(evaluated, monkeypatch):
    chosen = ("fill=grey", "whole_masks=counted", "jpeg=75")
    monkeypatch.setattr(conventions, "CHANGES", {name: conventions.CHANGES[name] for name in chosen})
    methods = conventions.measure(evaluated)
    changes = methods["no_edit"]["moved"]
    assert {name: change["mean"] for name, change in changes["whole_masks=counted"].items()} == dict.fromkeys(
        conventions.NUMBERS, 0.0
    )
    assert changes["fill=grey"]["psnr_outside"]["mean"] == 0
    assert changes["fill=grey"]["ssim_outside"]["mean"] != 0
    assert changes["jpeg=75"]["psnr_outside"]["mean"] != 0
    lines = conventions.as_markdown({"methods": methods}).splitlines()
    assert len(lines) == 3 + len(chosen)
    assert lines[4].replace("|", "").split() == ["`whole_masks=counted`"]
