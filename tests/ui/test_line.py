"""Runs wait in line, end one way each, and are on the disk as they stand."""

import threading

import pytest

from geokernels.runs.worker import CRASHED, INTERRUPTED, Outcome
from geokernels.ui.forms import PICTURE, TEXT, Field, Form
from geokernels.ui.line import NOT_BEGUN, Line
from geokernels.ui.shelf import ASKED, ENDED_UNDER_IT, FAILED, FINISHED, RUNNING, STOPPED, WAITING, Shelf


class Stand:
    """Stands for the worker: a job ends when it is told to, or is asked to stop."""

    def __init__(self):
        self.words, self.begun, self.outcome = [], threading.Event(), None
        self.told, self.closed = threading.Event(), False

    def run(self, words, log, check, watch):
        self.words.append(words)
        self.begun.set()
        try:
            while not self.told.wait(0.005):
                check()
        except KeyboardInterrupt:
            return Outcome(INTERRUPTED, "Stopped after step 1", 0.0)
        self.told.clear()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def close(self):
        self.closed = True


def check(words):
    if "bad" in words:
        raise ValueError("it is bad")


FIELDS = [Field("picture", "PICTURE", "", PICTURE), Field("a", "--a", "", TEXT)]
FORM = Form("morph", "", FIELDS, {}, lambda said: list(said.values()), check)


@pytest.fixture
def stand():
    return Stand()


@pytest.fixture
def line(tmp_path, stand):
    line = Line(Shelf(tmp_path), lambda: stand)
    yield line
    line.close()
    assert stand.closed


def until(line, name, state):
    for _ in range(2000):
        asked = line.shelf.find(name)
        if asked.state == state:
            return asked
        threading.Event().wait(0.005)
    raise AssertionError(f"{name} is {asked.state}, not {state}")


def end(line, stand, name, code=0, reason=""):
    until(line, name, RUNNING)
    stand.outcome = Outcome(code, reason, 0.0)
    stand.told.set()


def test_one_runs_and_the_others_know_their_place(line, stand):
    names = [line.add(FORM, {"a": str(i)}) for i in range(3)]
    assert names == ["0001-morph", "0002-morph", "0003-morph"]
    until(line, names[0], RUNNING)
    assert [line.before(name) for name in names] == [None, 1, 2]
    for name in names:
        end(line, stand, name)
        until(line, name, FINISHED)
    assert [words[-1] for words in stand.words] == ["0", "1", "2"]
    assert [words[1] for words in stand.words] == [f"--out={line.shelf.of(name)}" for name in names]
    assert [asked.name for asked in line.shelf.all()] == names[::-1]


def test_a_failure_has_its_reason_and_can_be_tried_again(line, stand):
    name = line.add(FORM, {"a": "x"})
    end(line, stand, name, 2, "--a must be y, got 'x'")
    assert until(line, name, FAILED).reason == "--a must be y, got 'x'"
    line.resume(name)
    end(line, stand, name, CRASHED, "its process ended")
    until(line, name, FAILED)
    assert "--resume" not in stand.words[1]


def test_what_could_not_be_started_does_not_end_the_line(line, stand):
    name = line.add(FORM, {"a": "x"})
    until(line, name, RUNNING)
    stand.outcome = OSError("no memory")
    stand.told.set()
    assert until(line, name, FAILED).reason == "it could not be started: no memory"
    other = line.add(FORM, {"a": "y"})
    end(line, stand, other)
    until(line, other, FINISHED)


def test_cancelling_keeps_what_can_be_continued(line, stand):
    first, second = (line.add(FORM, {"a": a}) for a in "xy")
    until(line, first, RUNNING)
    line.cancel(second)
    assert line.shelf.find(second)[4:6] == (STOPPED, NOT_BEGUN)
    line.shelf.of(first).mkdir()
    (line.shelf.of(first) / "checkpoint.pt").touch()
    line.cancel(first)
    assert until(line, first, STOPPED).reason == "Stopped after step 1"
    line.resume(first)
    line.resume(first)  # twice is once
    end(line, stand, first)
    until(line, first, FINISHED)
    line.resume(first)  # what is finished stays so
    assert line.shelf.find(first).state == FINISHED
    assert ["--resume" in words for words in stand.words] == [False, True]
    assert len(stand.words) == 2


def test_a_page_that_ends_stops_its_run_and_a_new_one_can_continue_it(tmp_path):
    stands = [Stand(), Stand()]
    before = Line(Shelf(tmp_path), lambda: stands[0])
    running, waiting = (before.add(FORM, {"a": a}) for a in "xy")
    until(before, running, RUNNING)
    before.close()
    assert [before.shelf.find(name).state for name in (running, waiting)] == [STOPPED, STOPPED]
    assert before.shelf.find(running).reason == "Stopped after step 1"
    after = Line(Shelf(tmp_path), lambda: stands[1])
    after.resume(waiting)
    end(after, stands[1], waiting)
    until(after, waiting, FINISHED)
    after.close()


def test_runs_of_a_server_that_was_killed_are_stopped(tmp_path):
    shelf = Shelf(tmp_path)
    for state in (WAITING, RUNNING, FINISHED):
        asked = shelf.add("edit", {}, [], shelf.begin("edit"))
        shelf.end(asked, state)
    ended = shelf.add("edit", {}, [], shelf.begin("edit"))
    shelf.end(ended, RUNNING)
    shelf.of(ended.name).mkdir()
    (shelf.of(ended.name) / "run.json").write_text("{}")
    shelf.after_a_restart()
    assert [asked.state for asked in shelf.all()] == [FINISHED, FINISHED, STOPPED, STOPPED]
    assert [asked.reason for asked in shelf.all()] == ["", "", ENDED_UNDER_IT, ENDED_UNDER_IT]


def test_a_refusal_leaves_nothing(line, tmp_path):
    with pytest.raises(ValueError, match="it is bad"):
        line.add(FORM, {"a": "bad"})
    with pytest.raises(OSError, match="there-is-none"):
        line.add(FORM, {"picture": str(tmp_path / "there-is-none.png")})
    assert line.shelf.all() == []
    assert list((tmp_path / ".ui").iterdir()) == []


def test_pictures_are_kept_by_the_names_they_had(line, stand, tmp_path):
    (tmp_path / "mine.png").write_bytes(b"bytes")
    name = line.add(FORM, {"picture": str(tmp_path / "mine.png")})
    (tmp_path / "mine.png").unlink()
    end(line, stand, name)
    kept = line.shelf.kept(name) / "inputs" / "picture" / "mine.png"
    assert kept.read_bytes() == b"bytes"
    assert until(line, name, FINISHED).words == [str(kept)]


def test_no_name_leads_out_of_the_folder(tmp_path):
    shelf = Shelf(tmp_path / "out")
    name = shelf.begin("morph")
    shelf.add("morph", {}, [], name)
    (tmp_path / "out" / ASKED).write_text((shelf.kept(name) / ASKED).read_text())
    assert shelf.find(name).name == name
    for other in ("..", "../out/.ui/0001-morph", "0001-morph/", "0001-morph\n", "", None, 1, "0002-morph"):
        assert shelf.find(other) is None
    (shelf.kept(name) / ASKED).write_text('{"name": 1}')
    assert shelf.find(name) is None
    assert shelf.all() == []
    assert shelf.begin("edit") == "0002-edit"
