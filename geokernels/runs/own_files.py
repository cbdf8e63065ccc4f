"""Which files of a folder a run may write, and which of them it wrote; nothing else is ever removed.

Names are relative to the folder, with "/" between their parts. A pattern is a regular expression of a name,
with no "/" inside a group.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .._files import sha256

PART = r"[\w=,-][\w.=,-]*"  # of a name that was made safe, never ".."


def present(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """Files whose names fit, those behind links to folders among them; what is in the way of one, too."""
    for pattern in patterns:
        yield from _present(folder, pattern.split("/"))


def _present(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        fitting = sorted(
            (entry for entry in entries if re.fullmatch(parts[0], entry.name)), key=lambda e: e.name
        )
    for entry in fitting:
        if len(parts) > 1 and entry.is_dir():
            yield from _present(Path(entry.path), parts[1:])
        else:
            yield Path(entry.path)


def in_the_way(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """What is a folder where a file is to be written, or no folder where one is needed."""
    for pattern in patterns:
        depth = pattern.count("/") + 1
        for path in _present(folder, pattern.split("/")):
            if path.is_dir() or len(path.relative_to(folder).parts) < depth:
                yield path


def places(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """The folder, and those in it that files which fit are written to; none behind a link."""
    yield folder
    parents = {
        tuple(pattern.split("/")[:depth])
        for pattern in patterns
        for depth in range(1, pattern.count("/") + 1)
    }
    for parts in sorted(parents):
        yield from (path for path in _present(folder, parts) if _no_link(folder, path))


def discard(
    folder: Path, written: Mapping[str, str], patterns: Sequence[str], *, keep: Collection[Path] = ()
) -> None:
    """Remove files that a run wrote, and every folder in ``folder`` that they leave empty.

    A file goes only if its name fits, no link leads to it, and it holds what was written.

    Args:
        folder: Of the run.
        written: Checksums by name, as a record says; believed no further than that.
        patterns: Of all names that the run could have written.
        keep: Files, and folders with all that is in them, that stay whatever the record says.
    """
    kept = {path.resolve() for path in keep}
    for name, checksum in written.items():
        file = folder / name
        if not any(re.fullmatch(pattern, name) for pattern in patterns) or not _no_link(folder, file.parent):
            continue
        if file.is_symlink() or not file.is_file() or sha256(file) != checksum:
            continue
        if kept & {file.resolve(), *file.resolve().parents}:
            continue
        file.unlink()
        remove_empty(file.parent, folder)


def remove_empty(place: Path, folder: Path) -> None:
    """Remove ``place`` and those around it, up to ``folder``, as far as they are empty."""
    with suppress(OSError):  # not empty
        while place != folder:
            place.rmdir()
            place = place.parent


def _no_link(folder: Path, place: Path) -> bool:
    """Whether a folder in ``folder`` is there, without a link on the way."""
    parts = place.relative_to(folder).parts
    way = [folder.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    return ".." not in parts and all(path.is_dir() and not path.is_symlink() for path in way)
