"""``--out`` of every command: what is the user's own stays, and a folder that goes away is noticed."""

import json
import shutil
from contextlib import contextmanager
from functools import partial

import pytest
import torch
import typer
from typer.testing import CliRunner

from geokernels import pipelines, world
from geokernels.cli import app
from geokernels.cli import clone as cli_scripts
from geokernels.media.pictures import write_picture
from geokernels.models import AtlasShape, Generator, GeneratorConfig, save_generator
from geokernels.pipelines import AtlasFitConfig, ClipInversionConfig, VideoEditConfig
from geokernels.runs import demo as demo_report
from geokernels.runs import loop
from geokernels.runs import video as video_driver
from geokernels.runs.demo import DemoConfig

TEXTS = ("--from", "a red circle", "--to", "a blue circle")
# of each command: whether it can be continued, and files that it writes
COMMANDS = {
    "morph": (True, ["result.png", "report.html", "frames/001.png"]),
    "edit": (True, ["edit-00.png", "report.html"]),
    "adapt": (True, ["generator.pt", "adapt.gif"]),
    "video": (True, ["edited.mp4", "frames/0001.png", "atlas.safetensors"]),
    "interpolate": (True, ["path.png", "path/001.png"]),
    "eval": (True, ["results.csv", "pictures/no_edit/600000000001.png", "edits/mapping_file.json"]),
    "world sample": (True, ["grid.png", "pictures/0001.png"]),
    "world train": (False, ["world-generator.safetensors", "generator.log.jsonl"]),
    "demo": (False, ["overview.png", "report.html"]),
}
EVERY = pytest.mark.parametrize("command", COMMANDS)
RESUMED = pytest.mark.parametrize("command", [name for name, (resumed, _) in COMMANDS.items() if resumed])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A picture, a clip as a folder of frames with masks, and a tiny generator."""
    folder = tmp_path_factory.mktemp("inputs")
    chance = torch.Generator().manual_seed(1)
    write_picture(folder / "picture.png", world.render(world.sample_scenes(1, generator=chance))[0])
    truth = world.render_clip(world.sample_scenes(1, generator=chance), 3, 24, generator=chance)
    for i, (frame, mask) in enumerate(zip(truth.frames, truth.masks)):
        write_picture(folder / "clip" / f"{i}.png", frame)
        write_picture(folder / "masks" / f"{i}.png", mask.expand(3, -1, -1))
    torch.manual_seed(0)
    small = GeneratorConfig(channels=(8, 6, 4), style_dim=7, mapping_layers=2)
    save_generator(Generator(small), folder / "tiny.pt")
    return folder


@pytest.fixture
def command_line(inputs, pipeline_folder, monkeypatch):
    """What is typed for each command, small, without ``--out``."""
    shape = AtlasShape(width=8, layers=1, map_layers=1, octaves=2)
    how = {"shape": shape, "steps": 3, "samples": 64, "bootstrap": 1.0, "bootstrapped": 2.0}

    class Small(AtlasFitConfig):
        @classmethod
        def of_size(cls, size, **given):
            return AtlasFitConfig(**how)

    monkeypatch.setattr(video_driver, "AtlasFitConfig", Small)
    monkeypatch.setattr(pipelines, "VideoEditConfig", partial(VideoEditConfig, views=2, crops=2, guess=2.0))
    monkeypatch.setattr(pipelines, "ClipInversionConfig", partial(ClipInversionConfig, views=2, guess=2))
    morphs = ClipInversionConfig(steps=1, views=2, guess=2)
    small = DemoConfig(("colour",), morphs, walk=2, line=2, prompts=2, steps=1)
    monkeypatch.setattr(demo_report, "DemoConfig", lambda: small)
    monkeypatch.setitem(demo_report.__dict__, "load_diffusion", _left_out)
    two = ("--frames", 2, "--distance", "features")
    adapting = ("--steps", 2, "--batch", 2, "--pool", 4, "--no-start")
    drawn = ("--model", pipeline_folder, "--steps", 3)
    return {
        "morph": ("morph", inputs / "picture.png", *TEXTS, "--steps", 2),
        "edit": ("edit", "--from", "a", "--to", "b", *drawn),
        "adapt": ("adapt", *TEXTS, "--model", inputs / "tiny.pt", *adapting),
        "video": ("video", inputs / "clip", *TEXTS, "--masks", inputs / "masks", "--steps", 2),
        "interpolate": ("interpolate", "--prompt", "a", "--prompt", "b", *drawn, *two),
        "eval": ("eval", "--world", 2, *drawn, "--method", "no_edit"),
        "world sample": ("world", "sample", "scenes", "--count", 2),
        "world train": ("world", "train", "generator", "--quick"),
        "demo": ("demo",),
    }


def _left_out(name):
    raise ImportError("there is none")


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
    assert writing == set(COMMANDS)


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
    assert sentence(run(*arguments, "--seed", 5, "--resume"))
    assert contents(out) == before
    bad = {"morph": "--where", "edit": "--inversion", "adapt": "--real", "video": "--atlas"}
    (tmp_path / "bad").write_text("no input")
    options = {"interpolate": ("--prompt", "c " * 200), "world sample": ("--frames", 3)}
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
    record = json.loads((out / "run.json").read_text())
    assert set(record["files"]) <= first
