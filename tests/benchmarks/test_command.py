"""``geokernels bench`` runs from a clone, and says in one sentence what it lacks."""

import pytest
from typer.testing import CliRunner

from benchmarks import run
from geokernels.cli import app, bench


def invoke(*words):
    return CliRunner().invoke(app, ["bench", *words])


def test_options_arrive(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(run, "command", lambda **settings: seen.update(settings) or 1)
    done = invoke(
        "--rivals", "--json", str(tmp_path / "a.json"), "--only", "bases", "--resume", "--threads", "2"
    )
    assert done.exit_code == 1
    assert seen.pop("console")
    assert seen == {
        "rivals": True, "json": tmp_path / "a.json", "only": "bases", "resume": True, "threads": 2,
        "device": "cpu",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--resume"], "--resume needs --json FILE"),
        (["--only", "nothing like it"], "--only must occur in the name of a case, got 'nothing like it'"),
    ],
    ids=["resume", "only"],
)
def test_bad_input_is_one_sentence(words, sentence):
    done = invoke(*words)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.output


def test_elsewhere_it_says_that_it_needs_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "CLONE", tmp_path)
    done = invoke()
    assert done.exit_code == 2
    assert "bench needs a clone of the repository" in done.stderr
