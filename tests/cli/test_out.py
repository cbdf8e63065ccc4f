"""``--out`` of every command: what is the user's own stays, and a folder that goes away is noticed."""

import os
import shutil
from contextlib import contextmanager

import pytest
import torch
import typer
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli import clone as cli_scripts
from geokernels.runs import demo as demo_report
from geokernels.runs import loop
from geokernels.runs.held_folder import HeldFolder
from geokernels.runs.record import read_record, require_record

# of each command: whether it can be continued, and files that it writes
COMMANDS = {
    "morph": (True, ["result.png", "report.html", "frames/001.png"]),
    "blend": (True, ["blend.gif", "frames/001.png", "frames.png"]),
    "edit": (True, ["edit-00.png", "report.html"]),
    "adapt": (True, ["generator.pt", "adapt.gif"]),
    "video": (True, ["edited.mp4", "frames/0001.png", "atlas.safetensors"]),
    "interpolate": (True, ["path.png", "path/001.png"]),
    "eval": (True, ["results.csv", "pictures/no_edit/600000000001.png", "edits/mapping_file.json"]),
    "world sample": (True, ["grid.png", "pictures/0001.png"]),
    "world train": (False, ["world-generator.safetensors", "generator.log.jsonl"]),
    "rerun": (True, ["result.png", "morph.gif", "frames/001.png"]),
    "demo": (False, ["overview.png", "report.html"]),
}
OF_OTHERS = {"batch", "merge", "ui"}  # which make nothing themselves: test_batch, test_shards, tests/ui
EVERY = pytest.mark.parametrize("command", COMMANDS)
RESUMED = pytest.mark.parametrize("command", [name for name, (resumed, _) in COMMANDS.items() if resumed])


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def sentence(result):
    """The one line on stderr of a refusal, without a traceback."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def every_command(group=None, name=()):
    """All commands of the command line."""
    group = group or typer.main.get_command(app)
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*name, word))
        else:
            yield " ".join((*name, word)), command


def test_no_command_is_left_out():
    writing = {name for name, command in every_command() if any(p.name == "out" for p in command.params)}
    assert writing == set(COMMANDS) | OF_OTHERS


@EVERY
def test_nowhere_is_refused(command, command_line):
    said = sentence(run(*command_line[command], "--out", ""))
    assert said == "Error: --out must say where to write, got ''"


@EVERY
def test_files_of_the_users_own_are_not_replaced_unasked(command, command_line, tmp_path):
    names = [*COMMANDS[command][1], *(["run.json"] if command != "world train" else [])]
    for name in names:
        out = tmp_path / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text('{"mine": 1}')
        before = contents(out)
        said = sentence(run(*command_line[command], "--out", out))
        assert str(out) in said
        assert name in said or "edits" in name or command == "demo", said
        assert contents(out) == before


@EVERY
def test_a_folder_removed_in_the_middle_is_said_to_be(command, command_line, tmp_path, monkeypatch):
    out, resumed = tmp_path / "out", COMMANDS[command][0]

    def remove():
        shutil.rmtree(out, ignore_errors=True)

    @contextmanager
    def removing():
        yield remove

    if resumed:
        monkeypatch.setattr(loop, "interrupts_between_steps", removing)
    elif command == "demo":
        monkeypatch.setattr(demo_report, "walk_in_w", _before(demo_report.walk_in_w, remove))
    else:
        monkeypatch.setattr("geokernels.cli.world.run_training", _before(cli_scripts.run_training, remove))
    said = sentence(run(*command_line[command], "--out", out))
    assert said.startswith(f"Error: --out {out} was removed or replaced while the run wrote to it"), said
    assert not (out / "run.json").exists()


def interrupted(arguments, monkeypatch):
    """Run a command that is stopped after its first step."""

    def press():
        raise KeyboardInterrupt

    @contextmanager
    def pressing():
        yield press

    with monkeypatch.context() as patch:
        patch.setattr(loop, "interrupts_between_steps", pressing)
        assert run(*arguments).exit_code == 130


@RESUMED
def test_what_is_refused_changes_nothing(command, command_line, tmp_path, monkeypatch):
    """With --resume, other settings than the stopped run's; with --overwrite, input that cannot be used."""
    out, arguments = tmp_path / "out", [*command_line[command], "--out", tmp_path / "out"]
    if command == "morph":
        arguments += ["--steps", 30]  # so many that it saves what the first step left
    interrupted(arguments, monkeypatch)
    before = contents(out)
    assert before
    other = {"rerun": ("--set", "views=3"), "blend": ("--set", "palette=33")}.get(command, ("--seed", 5))
    assert sentence(run(*arguments, *other, "--resume"))
    assert contents(out) == before
    bad = {"morph": "--where", "edit": "--inversion", "adapt": "--real", "video": "--atlas"}
    (tmp_path / "bad").write_text("no input")
    options = {"interpolate": ("--prompt", "c " * 200), "world sample": ("--frames", 3)}
    options |= {"rerun": ("--set", "views=0"), "blend": ("--match", "0,0:999,0")}
    options |= {"eval": ("--judge-clip", "open_clip:none", "--judge-clip-weights", tmp_path / "bad")}
    more = options.get(command) or (bad[command], tmp_path / "bad")
    method = ("--method", "text2live") if command == "morph" else ()
    assert sentence(run(*arguments, *more, *method, "--overwrite"))
    assert contents(out) == before
    assert run(*arguments, "--resume").exit_code == 0


def _before(function, first):
    def run(*args, **how):
        first()
        return function(*args, **how)

    return run


@RESUMED
def test_overwriting_leaves_what_is_the_users_own(command, command_line, tmp_path):
    """A second run over the first: the notes beside it stay, what the first wrote is replaced whole."""
    out = tmp_path / "out"
    assert run(*command_line[command], "--out", out).exit_code == 0
    first = set(contents(out))
    (out / "notes.txt").write_text("mine")
    refused = sentence(run(*command_line[command], "--out", out))
    assert "has a finished one; add --overwrite to replace it" in refused
    assert set(contents(out)) == {*first, "notes.txt"}
    assert run(*command_line[command], "--out", out, "--overwrite").exit_code == 0
    assert set(contents(out)) == {*first, "notes.txt"}
    assert {p.stat().st_mode & 0o777 for p in out.rglob("*") if p.is_file()} == {0o644}
    record = read_record(out / "run.json")
    assert set(record["files"]) <= first
    require_record(record)


class Reached(BaseException):
    """A model is being made."""


@EVERY
def test_the_folder_is_claimed_before_a_model_is_loaded(command, command_line, tmp_path, monkeypatch):
    """And a second run is refused while the first one loads, with the process that is at work."""
    out, events, hold = tmp_path / "out", [], HeldFolder.hold
    arguments = [*command_line[command], "--out", out]
    if command == "world sample":
        arguments[2] = "generator"  # scenes need no model

    def held(self):
        hold(self)
        events.append("claimed")
        return self

    def loading(*args, **how):
        events.append("loading")
        if len(events) == 2:
            said = sentence(run(*arguments))
            assert f"--out must not be in use, another run (process {os.getpid()} on " in said
        raise Reached

    monkeypatch.setattr(HeldFolder, "hold", held)
    monkeypatch.setattr(torch.nn.Module, "__init__", loading)
    monkeypatch.setattr("geokernels.cli.world.run_training", loading)
    monkeypatch.setattr("geokernels.pipelines.Blend", loading)  # it has no model of its own
    with pytest.raises(Reached):
        run(*arguments)
    assert events == ["claimed", "loading"]
    assert not out.exists()


@RESUMED
def test_killed_before_its_first_step_a_run_continues(command, command_line, tmp_path, monkeypatch):
    arguments = command_line[command]

    def die(*args):
        raise SystemExit(9)

    with monkeypatch.context() as killed:
        killed.setattr(loop._Driver, "prepare", die)
        assert run(*arguments, "--out", tmp_path / "out").exit_code == 9
    assert run(*arguments, "--out", tmp_path / "out", "--resume").exit_code == 0
    assert run(*arguments, "--out", tmp_path / "whole").exit_code == 0
    ours, theirs = contents(tmp_path / "out"), contents(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    for name in COMMANDS[command][1]:
        if not name.endswith((".html", ".csv")):  # which tell the time
            assert ours[name] == theirs[name], name
