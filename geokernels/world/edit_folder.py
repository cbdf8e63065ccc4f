"""Folders of edits that are written from the rendered world: what is in them, whose they are, how they go."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .._files import PARTIAL, read_json, remove_left_over

MAPPING, SOURCES, EDITED, RECIPE = "mapping_file.json", "annotation_images", "edited_images", "world.json"
SIDE = 512  # of every mask in a mapping file, whatever the pictures' size
STRIDE = 2**20  # seeds between those of two folders, one an edit
# patterns of the names in a folder that is written here
NAMES = (
    re.escape(MAPPING),
    re.escape(RECIPE),
    rf"({SOURCES}|{EDITED})/\d_[a-z_]+/\d{{12}}\.png",
)


def require_edit_folder(folder: str | Path, *, seed: int, size: int, replace: bool = False) -> None:
    """Refuse a folder that :func:`geokernels.world.write_edit_folder` cannot write to; changes nothing.

    Args:
        folder: Where; need not be there.
        seed: See :func:`geokernels.world.write_edit_folder`.
        size: See there.
        replace: Whether edits of another seed or size are cleared first.

    Raises:
        ValueError: If seed or size is none, or the folder holds edits of others, or other files.
    """
    if not 0 <= seed < 2**63 // STRIDE:
        raise ValueError(f"seed must lie between 0 and {2**63 // STRIDE - 1}, got {seed}")
    require_size(size)
    folder, recipe = Path(folder), {"seed": seed, "size": size}
    earlier = _recipe(folder)
    if earlier is not None and earlier != recipe and not replace:
        raise ValueError(f"{folder} must be new or hold edits of {recipe}, found those of {earlier}")
    others = earlier is None or replace
    if others and folder.is_dir() and any(not _ours(path, folder) for path in folder.rglob("*")):
        raise ValueError(f"{folder} must be new or hold edits of {recipe}, found other files")


def clear_edit_folder(folder: Path) -> None:
    """Remove what is written here, and the folders that this leaves empty."""
    try:
        if _recipe(folder) is None or folder.is_symlink():
            return
    except ValueError:  # damaged: who knows whose
        return
    places = list(places_of(folder))
    for place in places:
        remove_left_over(place, alone=True)
        for path in place.iterdir():
            if _named_as_ours(path, folder) and not path.is_dir():
                path.unlink()
    for place in reversed(places):
        with suppress(OSError):  # not empty
            place.rmdir()


def places_of(folder: Path) -> Iterator[Path]:
    """The folder and those in it that files are written to, outer ones first; none behind a link."""
    if folder.is_dir():
        yield folder
    for part in (folder / SOURCES, folder / EDITED):
        if part.is_dir() and not part.is_symlink():
            yield part
            yield from (p for p in part.iterdir() if p.is_dir() and not p.is_symlink())


def _named_as_ours(path: Path, folder: Path) -> bool:
    name = path.relative_to(folder).as_posix()
    return any(re.fullmatch(pattern, name) for pattern in NAMES)


def _ours(path: Path, folder: Path) -> bool:
    """Whether a file is written here, in a folder that says so, or half written; folders are."""
    if (path.is_dir() and not path.is_symlink()) or re.fullmatch(PARTIAL, path.name):
        return True
    return (folder / RECIPE).is_file() and not folder.is_symlink() and _named_as_ours(path, folder)


def _recipe(folder: Path) -> dict | None:
    """What is written in a folder of edits; None where it is none of ours."""
    path = folder / RECIPE
    recipe = read_json(path) if path.is_file() else None
    return recipe if isinstance(recipe, dict) and recipe.keys() == {"seed", "size"} else None


def require_size(size: int) -> None:
    """Refuse a size of pictures that masks cannot be cut to."""
    if size < 16 or SIDE % size:
        raise ValueError(f"size must divide {SIDE} and be at least 16, got {size}")
