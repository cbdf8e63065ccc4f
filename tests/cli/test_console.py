"""Progress: a bar in a terminal, elsewhere a plain line now and then and one for the end of each stage."""

import errno
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from rich.console import Console
from rich.table import Table

from geokernels.cli import console
from geokernels.cli.console import EVERY, Seen, showing


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(console.time, "monotonic", clock)
    return clock


@pytest.fixture
def written(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(console, "console", lambda: Console(file=file, highlight=False, soft_wrap=True))
    return lambda: file.getvalue().splitlines()


def run(index, steps=100, loss=0.5):
    return SimpleNamespace(index=index, steps=steps, loss=loss)


def test_at_most_one_line_in_ten_seconds_and_the_last(clock, written):
    begin = clock.now
    with showing(nouns={"morph": "morphing"}) as show:
        for index in range(1, 101):
            clock.now += 0.3
            show(None, "morph", run(index), clock.now - begin)
    lines = written()
    assert lines[-1] == "morphing: 100 of 100 steps, loss 0.500, 3.3 steps/s"
    assert [int(line.split()[1]) for line in lines] == [34, 68, 100]


def test_slow_steps_are_told_in_seconds_each(clock, written):
    with showing(nouns={"morph": "morphing"}) as show:
        show(None, "morph", run(3, 3), 123.0)
    assert written() == ["morphing: 3 of 3 steps, loss 0.500, 41.0 s/step"]
    record = {"seconds": {"morph": 123.0, "frames": 7.0, "total": 130.0}, "steps": {"morph": 3}}
    said = console.took({**record, "terms": {"morph": ["loss"]}}, Path("out"))
    assert said == f"130.0 s, 41.0 s/step. Report: {Path('out') / 'report.html'}"


def test_the_end_of_every_stage_is_said_once(clock, written):
    with showing(nouns={"fit": "atlas", "edit": "edit"}) as show:
        show.tell("reading the clip")
        for name in ("fit", "edit"):
            for index in (0, 1, 2):
                show(None, name, run(index, 2), 1.0)
        clock.now += EVERY
        show.update("writing", Seen(1, None, unit="frames"))
    assert written() == [
        "reading the clip",
        "atlas: 2 of 2 steps, loss 0.500, 2.0 steps/s",
        "edit: 2 of 2 steps, loss 0.500, 2.0 steps/s",
        "writing: 1 frames",
    ]


def test_in_a_terminal_it_is_a_bar(monkeypatch):
    file = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "console", lambda: Console(file=file, force_terminal=True, width=80))
    with showing(nouns={"morph": "morphing"}) as show:
        show(None, "morph", run(50), 1.0)
    assert "━" in file.getvalue()
    assert "50/100" in file.getvalue()


def test_what_has_no_measure_goes_from_the_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "console", lambda: Console(file=Terminal(), force_terminal=True, width=80))
    with showing(nouns={"morph": "morphing"}) as show:
        for turn in range(2):
            show.tell("searching")
            assert [task.description for task in show.show.progress.tasks][-1] == "searching"
            show(None, "morph", run(turn), 1.0)
            assert [task.description for task in show.show.progress.tasks] == ["morphing"]


@pytest.mark.parametrize(
    ("nouns", "shown", "said"),
    [
        ({"morph": "morphing"}, ("morph", Seen(3, 7)), "after step 3 of 7;"),
        ({"fit": "atlas", "edit": "edit"}, ("fit", Seen(2, 60)), "after step 2 of 60 of the atlas;"),
        ({}, ("ot", Seen(2, 4, unit="pictures")), "after 2 of 4 pictures;"),
        ({}, None, "before the first step, while reading the clip;"),
    ],
)
def test_an_interruption_says_how_far_it_came(written, capsys, tmp_path, nouns, shown, said):
    def interrupted():
        with showing(tmp_path, nouns) as show:
            show.tell("reading the clip")
            if shown:
                show.update(*shown)
            raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as stopped:
        interrupted()
    assert stopped.value.exit_code == 130
    said = f"Stopped {said} the same command with --resume continues in {tmp_path}.\n"
    assert capsys.readouterr().err == said


def test_where_there_is_nothing_to_continue_an_interruption_is_one(written):
    def interrupted():
        with showing():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_no_run_but_is_said_of_results(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    with showing(nouns={"morph": "morphing"}) as show:
        show(None, "morph", run(1), 1.0)
    with pytest.raises(OSError, match="standard output cannot be written to: No space left on device"):
        console.say("done")


def test_where_errors_cannot_be_said_the_exit_code_stays(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Full())
    with pytest.raises(typer.Exit) as ended:
        console.fail("nothing")
    assert ended.value.exit_code == console.BAD_INPUT


def test_no_table_is_cut_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table(*(f"a column with the number {i}" for i in range(6)))
    console.console().print(table)
    assert "a column with the number 5" in capsys.readouterr().out
