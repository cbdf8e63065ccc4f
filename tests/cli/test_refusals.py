"""Every option of every command refuses wrong values before any model is read, in one sentence that names it.

The options are typer's own, so that a new one is held to the same.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_type_hints

import pytest
import torch
import typer
from typer.testing import CliRunner

import geokernels.pipelines
from geokernels import world
from geokernels._files import write_json
from geokernels.cli import app
from geokernels.environment import versions
from geokernels.media.pictures import write_picture
from geokernels.runs.record import SCHEMA

diffusers = pytest.importorskip("diffusers")
open_clip = pytest.importorskip("open_clip")


class Reached(BaseException):
    """A model would be read now: what was given has been taken."""


def reach(*args, **kwargs):
    raise Reached


class Option(NamedTuple):
    """What a command is given: ``--name``, or NAME for an argument; and the type of its value."""

    command: tuple[str, ...]
    name: str
    kind: type


def options(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[Option]:
    """Those of all commands, as they were registered."""
    for under in group.registered_groups:
        yield from options(under.typer_instance, (*path, under.name))
    for info in group.registered_commands:
        command = *path, info.name or info.callback.__name__
        for name, hint in get_type_hints(info.callback, include_extras=True).items():
            for about in getattr(hint, "__metadata__", ()):
                kind = next((k for k in (bool, int, float, str, Path) if str(k.__name__) in str(hint)), None)
                names = [w for w in (about.default, *(about.param_decls or ())) if str(w).startswith("--")]
                given = names[0] if names else "--" + name.replace("_", "-")
                argument = isinstance(about, typer.models.ArgumentInfo)
                if kind is not bool:
                    yield Option(command, name.upper() if argument else given, kind)


OPTIONS = list(options(app))
TEXTS = "a large plain red circle on a white background", "a large plain blue circle on a white background"

FREE = {"--from", "--to", "--prompt", "--screen", "--only"}  # any text, which is not empty
FREE |= {("interpolate", "--negative")}
EMPTY = {"--only", ("interpolate", "--negative")}  # text that may be empty
PICTURES = ("PICTURE", "FIRST", "SECOND", "--where", "--real", "--mask-a", "--mask-b")
DRAWN = ("--level", "--from", "--to", "--steps", "--guidance-scale", "--solver", "--size", "--batch")
DRAWN += ("--dtype", "--variant", "--model-config")
# what an option is given with
WITH = {
    ("morph", "--screen"): ["--method", "text2live"],
    ("morph", "--where"): ["--method", "text2live"],
    ("adapt", "--real-steps"): ["--real", "PICTURE"],
    ("adapt", "--lpips"): ["--real", "PICTURE"],
    ("interpolate", "--lpips-weights"): ["--distance", "lpips"],
    ("edit", "--captioner"): ["--from"],  # left out
    ("edit", "--cycle-steps"): ["--cycle", "1"],
    ("bench", "--json"): ["--resume"],
    ("blend", "--mask-a"): ["--mask-b", "MASK"],
    ("blend", "--mask-b"): ["--mask-a", "MASK"],
    **{("blend", option): ["--model", "world"] for option in DRAWN},
    **{
        (command, "--clip-weights"): ["--clip", "open_clip:ViT-B-32"]
        for command in ("morph", "video", "blend")
    },
    **{
        (command, "--clip-weights"): ["--clip", "open_clip:ViT-B-32"] for command in ("adapt", "edit", "eval")
    },
    ("eval", "--judge-clip-weights"): ["--judge-clip", "open_clip:ViT-B-32"],
}
KINDS = {"--prompt": "diffusion", "--steps": "diffusion", "--guidance-scale": "diffusion"}
KINDS |= {"--truncation": "generator", "--model": "generator", "--frames": "clips"}


# of a run that has taken no step
RECORD = {
    "schema": SCHEMA, "command": "morph", "options": {}, "inputs": [], "config": {}, "seeds": [0],
    "encoders": ["world"], "seconds": {"total": 0}, "steps": {}, "steps_per_second": {}, "terms": {},
    "history": {}, "peak_memory_mib": 0, "machine": {"device": "cpu"}, "versions": {}, "files": {},
    "from": "a", "to": ["b"], "picture": None, "method": "clip-inversion",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture, a clip, and a file that is nothing."""
    folder = tmp_path_factory.mktemp("files")
    shown = world.render(world.sample_scenes(2, generator=torch.Generator().manual_seed(0)))
    write_picture(folder / "picture.png", shown[0])
    mask = torch.zeros(3, *shown.shape[2:])
    mask[:, 16:48, 16:48] = 1
    write_picture(folder / "mask.png", mask)
    (folder / "clip").mkdir()
    for i, frame in enumerate(shown):
        write_picture(folder / "clip" / f"{i}.png", frame)
    (folder / "run").mkdir()
    options = {"PICTURE": str(folder / "picture.png"), "--from": TEXTS[0], "--to": TEXTS[1]}
    write_json(folder / "run" / "run.json", {**RECORD, "options": options, "versions": versions()})
    (folder / "jobs.jsonl").write_text('{"command": "world sample", "KIND": "scenes"}\n')
    (folder / "garbage").write_bytes(b"nothing that anybody wrote")
    (folder / "garbage.png").write_bytes(b"nothing that anybody wrote")
    (folder / "garbage.safetensors").write_bytes(b"nothing that anybody wrote")
    return folder


@pytest.fixture(autouse=True)
def no_models(monkeypatch):
    """Whatever reads a model or begins to work."""
    monkeypatch.setattr(torch.nn.Module, "__init__", reach)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", reach)
    monkeypatch.setattr(diffusers.AutoencoderTiny, "from_pretrained", reach)
    monkeypatch.setattr("geokernels.cli.world.run_training", reach)
    monkeypatch.setattr("geokernels.cli.world.evaluate_model", reach)
    monkeypatch.setattr("geokernels.runs.loop.drive", reach)
    monkeypatch.setattr("geokernels.cli.bench.run_benchmarks", reach)
    monkeypatch.setattr("geokernels.cli.tune.require_gpu", reach)
    monkeypatch.setattr("geokernels.ui.served.Line", reach)


def usual(option: Option, files, out) -> dict:
    """Valid options of a command, by name; arguments by theirs."""
    command = option.command[-1]
    texts = {"--from": [TEXTS[0]], "--to": [TEXTS[1]]}
    known = {
        "morph": {"PICTURE": [files / "picture.png"], **texts, "--out": [out]},
        "video": {"CLIP": [files / "clip"], **texts, "--out": [out]},
        "adapt": {**texts, "--out": [out]},
        "blend": {"FIRST": [files / "picture.png"], "SECOND": [files / "picture.png"], "--out": [out]},
        "edit": {"PICTURE": [files / "picture.png"], **texts, "--out": [out]},
        "eval": {"--world": [2], "--out": [out]},
        "interpolate": {"--prompt": list(TEXTS), "--out": [out]},
        "demo": {"--out": [out]},
        "rerun": {"RUN": [files / "run"], "--out": [out]},
        "batch": {"JOBS": [files / "jobs.jsonl"], "--out": [out]},
        "merge": {"PARTS": [files / "run"], "--out": [out]},
        "bench": {},
        "tune": {},
        "doctor": {},
        "ui": {"--out": [out], "--port": [0]},
        "sample": {"KIND": [KINDS.get(option.name, "scenes")], "--out": [out]},
        "train": {"NAME": ["vae"], "--out": [out]},
        "evaluate": {"NAME": ["clip"]},
    }[command]
    more = [
        str(word).replace("PICTURE", str(files / "picture.png")).replace("MASK", str(files / "mask.png"))
        for word in WITH.get((command, option.name), [])
    ]
    if len(more) == 1 and more[0] in known:
        del known[more[0]]
    elif more:
        known[more[0]] = more[1:]
    return known


def run(path, given: dict):
    words = list(path)
    options = {name: values for name, values in given.items() if name.startswith("-")}
    for name, values in options.items():
        words += [word for value in values for word in (name, str(value))] or [name]
    # what may begin with a dash stands behind
    words += ["--", *(str(v) for name, values in given.items() if name not in options for v in values)]
    return CliRunner().invoke(app, words)


def wrong(option: Option, files) -> tuple[list, list]:
    """Values that must be refused, and some that must if they are not taken."""
    name, kind, either_way = option.name, option.kind, (option.command[-1], option.name)
    if kind is int:
        return ["x", "1.5", "", "nan", "-1"], ["0", 10**30]
    if kind is float:
        return ["x", "", "nan", "inf", "-1"], ["0", "1e30"]
    if kind is Path and name in ("--out", "--json"):
        return [""], [files / "garbage"]
    if kind is Path:
        ending = ".png" if name in PICTURES else ""
        ending = ".safetensors" if "weights" in name else ending
        # what is in a file is known when its turn has come
        return ["", files / "none" / "such"], [files / f"garbage{ending}"]
    if name in FREE or either_way in FREE:
        return ["caf\udce9", *([] if name in EMPTY or either_way in EMPTY else ["", " "])], []
    return [""] if name == "--variant" else ["nonsense", ""], []


def inner_names() -> set[str]:
    """Fields of settings and parameters of pipelines, where no word is like them."""
    found = set()
    for module in pkgutil.walk_packages(geokernels.pipelines.__path__, "geokernels.pipelines."):
        for _, thing in inspect.getmembers(importlib.import_module(module.name)):
            if dataclasses.is_dataclass(thing):
                found |= {field.name for field in dataclasses.fields(thing)}
            elif inspect.isfunction(thing) and thing.__module__.startswith("geokernels"):
                found |= set(inspect.signature(thing).parameters)
    return found


INNER = inner_names()


TYPED = {option.name.lstrip("-").replace("-", "_") for option in OPTIONS}


def require_sentence(done, name: str, *, untouched: Path | None) -> None:
    said = " ".join(done.stderr.replace("│", " ").split())
    assert done.exit_code == 2, (done.exit_code, said[-400:], done.exception)
    # typer has arguments in lower case
    assert re.search(rf"(?<![\w-]){name}(?![\w-])", said, re.I), f"{name} is not named: {said}"
    assert not {word for word in re.findall(r"[a-z]+_[a-z_]+", said) if word in INNER}, said
    begins = re.match(r"Error: (\w+)", said)
    assert not begins or begins[1] not in INNER, said
    assert untouched is None or not untouched.exists(), f"{untouched} was made"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: " ".join((*option.command, option.name)))
def test_wrong_values_are_refused(option, files, tmp_path):
    refused, either = wrong(option, files)
    for turn, value in enumerate([*refused, *either]):
        out = tmp_path / str(turn)
        given = {**usual(option, files, out), option.name: [value]}
        try:
            done = run(option.command, given)
        except Reached:
            assert value in either, f"{option.name} {value!r} was taken"
            continue
        require_sentence(done, option.name, untouched=None if option.name == "--out" else out)
