"""Models that stay loaded where one process runs several commands; anywhere else each loads its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Kept:
    """Models by what was asked for; those that a command did not use go after it."""

    def __init__(self) -> None:
        self._models: dict[tuple, Any] = {}
        self._used: set[tuple] = set()

    def get(self, asked: tuple, load: Callable[[], Any]) -> Any:
        """A model: the one that was loaded for the same, or a new one."""
        asked = tuple(map(_marked, asked))
        if asked not in self._models:
            self._models[asked] = load()
        self._used.add(asked)
        return self._models[asked]

    def clear(self) -> None:
        """Keep nothing: a command that failed may have left a model changed."""
        self._models, self._used = {}, set()

    def next(self) -> None:
        """Let those go that the last command did not use."""
        self._models = {asked: model for asked, model in self._models.items() if asked in self._used}
        self._used = set()


_KEPT: list[Kept] = []


@contextmanager
def keeping() -> Iterator[Kept]:
    """Keep models from here on."""
    _KEPT.append(Kept())
    try:
        yield _KEPT[-1]
    finally:
        _KEPT.pop()


def kept(load: Callable, *given: Any, **how: Any) -> Any:
    """What ``load`` returns for these arguments, which may have been loaded before.

    Only for models that no command changes.
    """
    if not _KEPT:
        return load(*given, **how)
    asked = (load.__module__, load.__qualname__, *given, *(pair for pair in sorted(how.items())))
    return _KEPT[-1].get(asked, lambda: load(*given, **how))


def _marked(value: Any) -> Any:
    """A part of what was asked for; of a file or folder with what tells whether it has changed."""
    if isinstance(value, tuple):
        return tuple(map(_marked, value))
    if not isinstance(value, str | Path) or not (path := Path(value)).exists():
        return value
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return str(path), *((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
