"""The parts of a run that several processes did: whether they are all there, and of one run."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .folder import RECORD
from .record import BATCH, EVAL, read_record, require_record
from .shards import Shard, parse, shards_in

# keys of a record that parts differ in, or that are made anew of the whole
OWN = ("shard", "seconds", "steps", "steps_per_second", "peak_memory_mib", "machine")
OWN += ("summary", "jobs", "files")
WORD = "--shard"  # what a part is given besides
SHOWN = 60  # letters of a value that a refusal shows


class Part(NamedTuple):
    """A finished part of a run."""

    folder: Path
    record: dict
    shard: Shard


def parts_of(given: Sequence[Path]) -> list[Path]:
    """The folders of parts: those that are given, and those within one that is none itself."""
    found: list[Path] = []
    for folder in given:
        inner = [] if (folder / RECORD).is_file() else shards_in(folder)
        found += inner or [folder]
    return found


def require_parts(folders: Sequence[Path]) -> list[Part]:
    """All parts of one run, in order.

    Raises:
        ValueError: If one is missing, there twice, unfinished, or of another run, settings or version.
    """
    parts = [_part(folder) for folder in folders]
    require_all((part.folder, part.shard) for part in parts)
    require_alike([(part.folder, _common(part.record)) for part in parts])
    machines = [(part.folder, part.record["machine"]) for part in parts]
    if (found := _differing(machines)) is not None:
        warnings.warn(f"{found}: results may differ in rounding from those of one machine", stacklevel=2)
    return sorted(parts, key=lambda part: part.shard.index)


def require_all(found: Iterable[tuple[Path, Shard]]) -> None:
    """Refuse parts of different numbers, one that is there twice, or fewer than there are.

    Raises:
        ValueError: Names the first.
    """
    seen: dict[Shard, Path] = {}
    for folder, shard in found:
        for other, place in seen.items():
            if other.count != shard.count:
                raise ValueError(
                    f"PARTS must be of one run: {place} is part {other}, {folder} is part {shard}"
                )
        if shard in seen:
            raise ValueError(f"PARTS must hold each part once, {seen[shard]} and {folder} are both {shard}")
        seen[shard] = folder
    count = next(iter(seen)).count
    missing = [str(part) for i in range(count) if (part := Shard(i, count)) not in seen]
    if missing:
        raise ValueError(f"PARTS must be every part of a run, {', '.join(missing)} is missing")


def require_alike(found: Sequence[tuple[Path, Mapping]]) -> None:
    """Refuse what was not made alike.

    Raises:
        ValueError: Names the first thing that differs.
    """
    if (said := _differing(found)) is not None:
        raise ValueError(f"PARTS must be of one run: {said}")


def options_of_all(record: Mapping) -> dict | None:
    """What was typed for every part."""
    options = record["options"]
    return options and {name: value for name, value in options.items() if name != WORD}


def _part(folder: Path) -> Part:
    if not (folder / RECORD).is_file():
        begun = any(folder.glob("*.partial.json"))
        state = "is not finished: continue it first" if begun else f"has no {RECORD}"
        raise ValueError(f"PARTS must be finished parts of a run, {folder} {state}")
    record = read_record(folder / RECORD)
    if record.get("command") not in (EVAL, BATCH):
        raise ValueError(f"PARTS must be of {EVAL} or {BATCH}, {folder} is of {record.get('command')}")
    require_record(record)
    if record["shard"] is None:
        raise ValueError(f"PARTS must be parts of a run, made with --shard, {folder} is a whole one")
    if record["options"] is None:
        raise ValueError(f"PARTS must be of a command, {folder} was left by a run from Python")
    return Part(folder, record, parse(record["shard"]))


def _common(record: Mapping) -> dict:
    """What all parts have alike."""
    known = {name: value for name, value in record.items() if name not in OWN}
    return {**known, "options": options_of_all(record)}


def _differing(found: Sequence[tuple[Path, Mapping]]) -> str | None:
    """The first difference, as a phrase."""
    (first, one), *others = found
    for folder, other in others:
        if (difference := _difference(one, other)) is not None:
            name, a, b = difference
            return f"{name} is {_short(a)} in {first}, {_short(b)} in {folder}"
    return None


def _difference(one: Mapping, other: Mapping, within: str = "") -> tuple[str, object, object] | None:
    """The first key whose values differ, with both; of objects, the one within."""
    for key in {**one, **other}:
        name = f"{within} {key}".strip()
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            if (found := _difference(a, b, name)) is not None:
                return found
        elif a != b:
            return name, a, b
    return None


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
