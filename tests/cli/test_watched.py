"""Whoever watches a command from another process sees how far it has come, and its newest picture."""

import json

import pytest
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli import watched as module
from geokernels.cli.console import Seen
from geokernels.cli.watched import note, watched
from geokernels.media.pictures import read_picture
from geokernels.runs.worker import PREVIEW, PROGRESS


@pytest.fixture
def clock(monkeypatch):
    """The time, which goes on when it is told to."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("command", ["blend", "morph", "edit", "interpolate", "adapt"])
def test_a_command_is_watched_to_its_last_step(command_line, tmp_path, command):
    typed = [str(word) for word in (*command_line[command], "--out", tmp_path / "out")]
    (tmp_path / "seen").mkdir()
    with watched(tmp_path / "seen"):
        assert CliRunner().invoke(app, typed).exit_code == 0
    seen = json.loads((tmp_path / "seen" / PROGRESS).read_text())
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert seen["done"] == seen["total"] >= 1
    if seen["unit"] == "steps":
        assert seen["done"] == list(record["steps"].values())[-1]
    assert seen["pictures"] >= 1
    assert max(read_picture(tmp_path / "seen" / PREVIEW).rgb.shape[1:]) <= module.SIDE
    assert not {PREVIEW, PROGRESS} & set(record["files"])


def test_nothing_is_said_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note("morphing", Seen(1, 2))
    with watched(None):
        note("morphing", Seen(2, 2))
    assert list(tmp_path.iterdir()) == []


def test_it_is_said_now_and_then_and_in_the_end(tmp_path, clock):
    def done():
        return json.loads((tmp_path / PROGRESS).read_text())["done"]

    with watched(tmp_path):
        for i in range(1, 5):
            note("morphing", Seen(i, 100))
            assert done() == 1
        clock[0] += 2 * module.EVERY
        note("morphing", Seen(5, 100))
        assert done() == 5
        note("morphing", Seen(6, 100))
        assert done() == 5
    assert done() == 6


def test_a_folder_that_is_gone_ends_no_run(tmp_path):
    with watched(tmp_path / "none"):
        note("morphing", Seen(1, 1))
