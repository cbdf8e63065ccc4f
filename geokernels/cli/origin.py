"""What a command was given, as ``run.json`` keeps it for ``geokernels rerun`` to repeat from anywhere."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

from .typed import is_given, option_names

# what says where results go, and how to go on: a rerun has its own
OF_PLACE = ("out", "resume", "overwrite")
# what says who does the work, which no result depends on: a record is the same without
OF_WHO = ("ray", "ray_workers", "ray_cpus", "ray_gpus")
# texts that may name a file or folder: a path, NAME=PATH or local-dir:PATH
MAY_NAME_FILES = ("model", "clip", "clip_model", "judge_clip", "decoder", "captioner", "instruct")
MAY_NAME_FILES += ("flow", "lpips")
BUILT_IN = ("world", "world-evaluation", "world-flow")  # names that no folder has
MARKS = ("local-dir:", "=")  # what a path stands behind


class Origin(NamedTuple):
    """What was typed.

    Attributes:
        options: Values by ``--option``, or NAME for an argument; paths are absolute, or begin at home, ``~``.
        inputs: Of each file and folder among them ``option``, ``path`` and ``sha256``.
    """

    options: dict[str, Any]
    inputs: list[dict[str, str]]


def origin_of(context: typer.Context) -> Origin:
    """What was typed for a command."""
    options: dict[str, Any] = {}
    inputs: list[dict[str, str]] = []
    for name, option in option_names(context.command).items():
        if name in OF_PLACE + OF_WHO or not is_given(context, name):
            continue
        value = context.params[name]
        values = list(value) if isinstance(value, list | tuple) else [value]
        for i, one in enumerate(values):
            if (path := _path_in(name, one)) is not None:
                written = from_home(path)
                inputs.append({"option": option, "path": written, "sha256": checksum_of(Path(path))})
                values[i] = str(one).removesuffix(path) + written
            elif isinstance(one, Path):
                values[i] = str(one)
        options[option] = values if isinstance(value, list | tuple) else values[0]
    return Origin(options, inputs)


def words_of(command, options: Mapping[str, Any], inputs: Sequence[Mapping]) -> list[str]:
    """What to type for these options of a command.

    Raises:
        ValueError: If it has one no more.
    """
    names = option_names(command)
    params = {names[param.name]: param for param in command.params}
    words, arguments = [], []
    for option, value in options.items():
        if option not in params:
            raise ValueError(f"RUN was given {option}, which {command.name} does not have")
        param = params[option]
        paths = {entry["path"]: str(Path(entry["path"]).expanduser()) for entry in inputs}
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool):
                words += [(param.opts if one else param.secondary_opts)[0]]
                continue
            text = str(one)
            for written, path in paths.items():
                if text.endswith(written):
                    text = text.removesuffix(written) + path
            if param.param_type_name == "argument":
                arguments.append(text)
            else:
                words.append(f"{option}={text}")
    return [*words, "--", *arguments]


def require_inputs(inputs: Sequence[Mapping]) -> None:
    """Refuse to repeat a run whose files and folders are not what they were.

    Raises:
        ValueError: Names the first one.
    """
    for entry in inputs:
        path = Path(entry["path"]).expanduser()
        if not path.exists():
            raise ValueError(f"{entry['option']} must be what the run was given, found nothing at {path}")
        if checksum_of(path) != entry["sha256"]:
            raise ValueError(f"{entry['option']} must be what the run was given, {path} has changed since")


def from_home(path: str) -> str:
    """An absolute path; below the user's home, from there, so that it does not tell whose it is."""
    whole, home = os.path.abspath(path), os.path.expanduser("~")
    return f"~{whole[len(home) :]}" if whole.startswith(f"{home.rstrip('/')}/") and home != "/" else whole


def checksum_of(path: Path) -> str:
    """SHA-256 of a file, or of the names and checksums of all files in a folder."""
    from .._files import sha256

    if not path.is_dir():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def _path_in(name: str, value: Any) -> str | None:
    """The path of a file or folder in a value, if there is one."""
    if isinstance(value, Path):
        texts = [str(value)]
    elif name in MAY_NAME_FILES and isinstance(value, str) and value not in BUILT_IN:
        texts = [value, *(value.partition(mark)[2] for mark in MARKS if mark in value)]
    else:
        return None
    # no pipe, which can be read once
    return next((text for text in texts if text and (Path(text).is_file() or Path(text).is_dir())), None)
