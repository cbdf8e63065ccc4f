"""A checkpoint is read whole or not at all, and what it was written under is told; signals wait for steps."""

import signal

import pytest
import torch

from geokernels.runs import folder as folders
from geokernels.runs.loop import interrupts_between_steps
from geokernels.runs.morph import MorphFolder
from geokernels.runs.samples import SampleFolder
from geokernels.runs.video import VideoFolder


@pytest.fixture
def folder(tmp_path):
    made = MorphFolder(tmp_path)
    made.save({"index": 3, "frames": [torch.ones(2)]})
    return made


def test_what_was_saved_is_read(folder, recwarn):
    state = folder.load()
    assert (state["index"], len(state["frames"])) == (3, 1)
    assert not recwarn


def test_another_command_is_named(folder):
    with pytest.raises(ValueError, match="must be of video, it is of morph; start again with --overwrite"):
        VideoFolder(folder.path).load("cpu")


@pytest.mark.parametrize(
    "reading",
    [
        lambda state: state["rows"],
        lambda state: state["frames"][7],
        lambda state: state["index"]["a"],
        lambda state: state["frames"].cpu(),
        lambda state: torch.zeros(2).copy_(torch.zeros(3)),
    ],
)
def test_entries_that_are_not_there(folder, reading):
    state = folder.load()
    expected = "checkpoint.pt does not hold what this version of geokernels writes .*--overwrite"
    with pytest.raises(ValueError, match=expected), folder.as_written():
        reading(state)


def test_other_circumstances_are_told(folder, monkeypatch):
    now = folders.circumstances()
    monkeypatch.setattr(folders, "circumstances", lambda: now | {"torch": "9.9", "threads": 64})
    with pytest.warns(
        UserWarning, match=f"begun with torch {now['torch']}, threads .* continues with torch 9.9"
    ):
        folder.load("cpu")


def test_damage_is_refused_before_anything_is_loaded(folder, tmp_path):
    folder.require(resume=True, overwrite=False)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # as while it is copied
    with pytest.raises(ValueError, match=r"checkpoint.pt is damaged .*; start again with --overwrite"):
        folder.require(resume=True, overwrite=False)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="must be of video, it is of morph"):
        VideoFolder(tmp_path).require(resume=True, overwrite=False)


def test_a_damaged_list_is_refused_likewise(tmp_path):
    samples = SampleFolder(tmp_path)
    samples.save({"samples": []})
    samples.require(resume=True, overwrite=False)
    path = tmp_path / samples.checkpoint
    path.write_text(path.read_text().replace("[]", "[1]"))
    with pytest.raises(ValueError, match=r"samples.partial.json is damaged"):
        samples.require(resume=True, overwrite=False)


def test_what_was_killed_before_it_saved_is_begun_again(tmp_path):
    folder = MorphFolder(tmp_path)
    with pytest.raises(ValueError, match="holds no checkpoint: begin it without --resume"):
        folder.require(resume=True, overwrite=False)
    folder.require(resume=False, overwrite=False)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_for_the_step(name):
    number, steps = getattr(signal, name), []
    heard = signal.signal(number, signal.default_int_handler)  # tests may run under nohup, which ignores one
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_between_steps() as check:  # noqa: PT012
            for step in range(3):
                if step == 1:
                    signal.raise_signal(number)
                steps.append(step)
                check()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, heard)
    assert steps == [0, 1]


def test_a_second_signal_acts_at_once():
    with pytest.raises(KeyboardInterrupt), interrupts_between_steps():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("a step went on")


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts_between_steps() as check:
            signal.raise_signal(signal.SIGHUP)
            check()
    finally:
        signal.signal(signal.SIGHUP, before)
