"""``geokernels bench`` runs from a clone, in a process of its own, and says in one sentence what it lacks."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import run
from geokernels.cli import app, clone
from geokernels.kernels import native


def invoke(*words):
    return CliRunner().invoke(app, ["bench", *words])


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], {}),
        (
            [*("--rivals", "--json", "a.json", "--only", "bases"),
                *("--resume", "--threads", "2", "--device", "cuda", "--simd", "avx2"),],
            {
                "rivals": True, "json": Path("a.json"), "only": "bases", "resume": True, "threads": 2,
                "device": "cuda", "simd": "avx2",
            },
        ),
    ],
    ids=["none", "all"],
)  # fmt: skip
def test_options_arrive(monkeypatch, words, given):
    passed = []
    monkeypatch.setattr("geokernels.cli.bench.run_benchmarks", passed.extend)
    assert invoke(*words).exit_code == 0
    defaults = {"rivals": False, "json": None, "only": "", "resume": False, "threads": None, "device": "cpu"}
    defaults["simd"] = None
    assert vars(run.options().parse_args(passed)) == defaults | given


def test_its_exit_code_is_the_command_s(monkeypatch):
    def wrong(options):
        raise clone.Stopped(1)

    monkeypatch.setattr("geokernels.cli.bench.run_benchmarks", wrong)
    assert invoke().exit_code == 1


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--resume"], "--resume needs --json FILE"),
        (["--only", "nothing like it"], "--only must occur in the name of a case, got 'nothing like it'"),
    ],
    ids=["resume", "only"],
)
def test_bad_input_is_one_sentence(words, sentence, capfd):
    assert invoke(*words).exit_code == 2
    said = capfd.readouterr().err
    assert f"Error: {sentence}" in said
    assert len(said.splitlines()) == 1


def test_elsewhere_it_says_that_it_needs_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(clone, "ROOT", tmp_path)
    done = invoke()
    assert done.exit_code == 2
    assert "bench needs a clone of the repository" in done.stderr


def test_a_level_holds_ours_and_torch(tmp_path):
    level, file = native.build_info()["simd_levels"][0], tmp_path / "a.json"
    assert invoke("--only", "sinkhorn, one cost 77", "--simd", level, "--json", str(file)).exit_code == 0
    kept = json.loads(file.read_text())
    assert kept["machine"]["simd"] == level
    assert level != "baseline" or kept["machine"]["torch_simd"] == "default"
    assert kept["versions"]["torch"]


def test_an_unknown_level_is_refused_before_the_benchmarks_start():
    done = invoke("--simd", "sse9")
    assert done.exit_code == 2
    assert "Error: --simd must be one of" in done.stderr
