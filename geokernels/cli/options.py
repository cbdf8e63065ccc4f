"""Kinds of options that commands share, and what a user types for each parameter of a command."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import typer

MAY_BE_EMPTY = ("negative", "only")  # texts that say something by saying nothing
MOST_SEED = 2**63 - 1  # torch draws from twice as many: numbers of edits and samples are added


def seed_option(about: str) -> Any:
    """A seed."""
    return typer.Option(min=0, max=MOST_SEED, help=about)


def file_option(about: str) -> Any:
    """A file that must be there."""
    return _existing(typer.Option(help=about, **PATH), "file")


def folder_option(about: str) -> Any:
    """A folder that must be there."""
    return _existing(typer.Option(help=about, **PATH), "folder")


def path_option(about: str) -> Any:
    """A file or folder that must be there."""
    return _existing(typer.Option(help=about, **PATH), "file or folder")


def file_argument(about: str) -> Any:
    """A file that must be there."""
    return _existing(typer.Argument(help=about, parser=_path), "file")


def folder_argument(about: str) -> Any:
    """A folder that must be there."""
    return _existing(typer.Argument(help=about, parser=_path), "folder")


def path_argument(about: str) -> Any:
    """A file or folder that must be there."""
    return _existing(typer.Argument(help=about, parser=_path), "file or folder")


def _path(text: str | Path) -> Path:
    if text == "":  # which pathlib takes for the folder one is in
        raise typer.BadParameter("must be a path, got an empty text")
    return Path(text)


PATH = {"parser": _path, "metavar": "PATH"}


def _existing(option: Any, kind: str) -> Any:
    option.existing = kind
    return option


def require_usable(command: Callable, given: Mapping[str, Any]) -> None:
    """Refuse numbers that are none, text that is not UTF-8 and files that are not there.

    Raises:
        ValueError: Names the parameter.
    """
    from .._checks import require_text

    kinds = {name: getattr(about, "existing", None) for name, about in _described(command)}
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
            if isinstance(value, str):
                require_text(name, value)
            if isinstance(value, str) and not value.strip() and name not in MAY_BE_EMPTY:
                raise ValueError(f"{name} must not be empty, got {value!r}")
            if isinstance(value, Path) and kinds.get(name):
                _require_existing(name, value, kinds[name])


def _require_existing(name: str, path: Path, kind: str) -> None:
    there = {"file": path.is_file(), "folder": path.is_dir(), "file or folder": path.exists()}[kind]
    if not there:
        raise ValueError(f"{name} must be an existing {kind}, found none at {path}")


def _described(command: Callable) -> Iterator[tuple[str, Any]]:
    """Each parameter of a command, and what was said of it to typer."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        for about in getattr(hint, "__metadata__", ()):
            yield name, about


def options_of(command: Callable) -> dict[str, str]:
    """What a user types for each parameter of a command: ``--option``, or NAME for an argument."""
    found = {}
    for name, about in _described(command):
        # typer takes the first name for a default until the command is registered
        given = [about.default, *(about.param_decls or ())]
        named = [word for word in given if isinstance(word, str) and word.startswith("--")]
        own = named[0] if named else "--" + name.replace("_", "-")
        found[name] = name.upper() if isinstance(about, typer.models.ArgumentInfo) else own
    return found
