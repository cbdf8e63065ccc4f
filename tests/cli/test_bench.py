"""``geokernels bench`` runs from a clone, in a process of its own, and says in one sentence what it lacks."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import run
from geokernels.cli import app, clone


def invoke(*words):
    return CliRunner().invoke(app, ["bench", *words])


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], {}),
        (
            [*("--rivals", "--json", "a.json", "--only", "bases"),
                *("--resume", "--threads", "2", "--device", "cuda"),],
            {
                "rivals": True, "json": Path("a.json"), "only": "bases", "resume": True, "threads": 2,
                "device": "cuda",
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
