"""What ``run.json`` says, the same in every command: its one schema, who fills it in, and who reads it.

``docs/runs.md`` is the same table with an example.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .._files import read_json
from ..environment import machine, peak_memory_mib, versions

SCHEMA = 3  # of the records of this version; those of geokernels 0.1.0 bear no number
MORPH, ADAPT, VIDEO, EDIT, BLEND = "morph", "adapt", "video", "edit", "blend"
INTERPOLATE, EVAL, SAMPLE, DEMO, BATCH = "interpolate", "eval", "world sample", "demo", "batch"
TEXTS = (MORPH, ADAPT, VIDEO, EDIT)
TOTAL = "total"


class Key(NamedTuple):
    """One key of a record: of which kind its value is, what it says, and which commands have it."""

    kind: str
    about: str
    commands: tuple[str, ...] = ()  # () for all


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _list_of(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _by_name(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(_text, value)) and all(map(test, value.values()))


def _or_null(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or test(value)


def _object(value: object) -> bool:
    return isinstance(value, dict)


def _rows(value: object) -> bool:
    """Numbers, or null for what was not measured, in lists of one depth."""
    return isinstance(value, list) and all(_rows(v) or _or_null(_number)(v) for v in value)


KINDS: dict[str, Callable[[object], bool]] = {
    "whole number": _whole,
    "whole numbers": _list_of(_whole),
    "whole numbers by stage": _by_name(_whole),
    "number": _number,
    "numbers by stage": _by_name(_number),
    "true or false": lambda value: isinstance(value, bool),
    "text": _text,
    "text or null": _or_null(_text),
    "texts": _list_of(_text),
    "texts by name": _by_name(_or_null(_text)),
    "texts by stage": _by_name(_list_of(_text)),
    "object": _object,
    "object or null": _or_null(_object),
    "objects": _list_of(_object),
    "objects by name": _by_name(_object),
    "objects by stage": _by_name(_object),
    "object or objects": lambda value: _object(value) or _list_of(_object)(value),
    "rows": _rows,
    "rows by stage": _by_name(_rows),
    "checksums by name": _by_name(lambda v: _text(v) and re.fullmatch("[0-9a-f]{64}", v) is not None),
}

KEYS: dict[str, Key] = {
    "schema": Key("whole number", f"of this table; {SCHEMA}"),
    "command": Key("text", "`morph`, `adapt`, ..., `world sample`"),
    "options": Key("object or null", "what was typed, by `--option`; null: run from Python"),
    "inputs": Key("objects", "`option`, `path` and `sha256` of files and folders among them"),
    "config": Key("objects by stage", "every setting of each stage, its `recipe` among them"),
    "seeds": Key("whole numbers", "as `--seed` gave them"),
    "encoders": Key("texts", "names of the CLIP models that guide; empty where none does"),
    "seconds": Key("numbers by stage", "`prepare` for what comes before first steps, each stage, `total`"),
    "steps": Key("whole numbers by stage", "taken; results of `eval`, samples of `world sample`"),
    "steps_per_second": Key("numbers by stage", "by the stage's seconds"),
    "terms": Key("texts by stage", "names of the columns of `history`; empty where nothing is minimised"),
    "history": Key("rows by stage", "a row a step of `terms`; of `edit` one for each edit; null: not guided"),
    "peak_memory_mib": Key("number", "MiB: of the process on the CPU, of what torch allocated on CUDA"),
    "machine": Key("object", "`cpu`, `threads`, `device`, `gpu` (null without one)"),
    "versions": Key("texts by name", "of Python, geokernels and what it builds on; null: not installed"),
    "files": Key("checksums by name", "SHA-256 of every file of the run but `run.json`"),
    "from": Key("text", "what is shown before", TEXTS),
    "to": Key("texts", "what shall be shown: one text, of `edit` one for each edit", TEXTS),
    "picture": Key("text or null", "name of its file; null where none was given", (MORPH, ADAPT, EDIT)),
    "method": Key("text", "`clip-inversion` or `text2live`", (MORPH,)),
    "model": Key("text", "`world`, or the name of the file or folder", (ADAPT, EDIT, INTERPOLATE, EVAL)),
    "dtype": Key("text", "`float32`, `bfloat16` or `float16`", (EDIT, INTERPOLATE, EVAL)),
    "decoder": Key("text or null", "of the view that CLIP is shown; null for the model's own", (EDIT, EVAL)),
    "captioner": Key("text or null", "that said what the picture shows", (EDIT,)),
    "lpips": Key("text or null", "network by which `picture` was inverted", (ADAPT,)),
    "start": Key("object or null", "of the search for a start: `cosine`, `score`, `taken`", (ADAPT,)),
    "layers": Key("rows", "rows of W+ whose layers learnt, each time they were chosen", (ADAPT,)),
    "judged": Key("objects by name", "by attribute: what the judge reads in the pictures", (ADAPT, SAMPLE)),
    "clip": Key("text", "name of the clip", (VIDEO,)),
    "masks": Key("text or null", "name of the masks; null where they were found from motion", (VIDEO,)),
    "flow": Key("text", "estimator of optical flow", (VIDEO,)),
    "frames": Key("whole number", "of the clip", (VIDEO,)),
    "size": Key("whole numbers", "of its frames, in pixels: width, height", (VIDEO, BLEND)),
    "atlas": Key("object", "`clip` (checksum of frames), `psnr` (dB), `fitted` (or used again)", (VIDEO,)),
    "prompts": Key("texts", "stations of the path", (INTERPOLATE,)),
    "negative": Key("text or null", "what guidance leads away from", (INTERPOLATE,)),
    "pipeline": Key("text", "kind of the model", (INTERPOLATE,)),
    "distance": Key("text", "between pictures", (INTERPOLATE,)),
    "mp4": Key("true or false", "whether films were written", (INTERPOLATE, BLEND)),
    "invariance": Key("object", "how far the model reads rows as a set", (INTERPOLATE,)),
    "paths": Key("objects by name", "by coupling: `times`, `distances`, `score`, `rounds`", (INTERPOLATE,)),
    "first": Key("text", "name of the picture that the film begins with", (BLEND,)),
    "second": Key("text", "name of the picture that it ends with", (BLEND,)),
    "places": Key("rows", "of both in the frames, in pixels: x, y, width, height", (BLEND,)),
    "matches": Key("object", "`fixed` pairs, pixels `missed`, mean `confidence`, share `folded`", (BLEND,)),
    "masked": Key("texts", "names of the masks by which they were matched; empty without", (BLEND,)),
    "diffusion": Key("object or null", "`model`, `pipeline`, `dtype`, `prompts`; null without one", (BLEND,)),
    "path": Key("object", "`times` of the frames, `distances` of neighbours, `score`", (BLEND,)),
    "methods": Key("objects by name", "by label: `title`, `settings`", (EVAL,)),
    "edits": Key("texts", "keys of the edits", (EVAL,)),
    "contents": Key("text", "checksum of pictures, texts and masks of the edits", (EVAL,)),
    "measures": Key("texts by name", "what measures", (EVAL,)),
    "conventions": Key("object", "of measuring: `fingerprint`, `departures` from PIE-Bench's", (EVAL,)),
    "summary": Key("objects by name", "by method: `edits`, `failed`, each column with bounds", (EVAL,)),
    "shard": Key("text or null", "`I/N`, where it is one of N parts of a run", (EVAL, BATCH)),
    "jobs": Key("objects", "`name`, `state`, `attempts`, `seconds`, `reason` of each", (BATCH,)),
    "kind": Key("text", "`scenes`, `clips`, `edits`, `generator` or `diffusion`", (SAMPLE,)),
    "photographs": Key("object", "`first`, `second`, `fixed`, ... of a blend; or `left_out`, why", (DEMO,)),
    "morphs": Key("objects", "each edit by both losses, judged", (DEMO,)),
    "walk": Key("object", "in w: `ends`, `largest_over_mean_step`, `seen`", (DEMO,)),
    "between_prompts": Key("object", "like `walk`; or `left_out`, why", (DEMO,)),
    "drawn": Key("object or objects", "`prompt`, `wanted`, `seen` of each; or `left_out`, why", (DEMO,)),
}  # fmt: skip


def keys_of(command: str) -> dict[str, Key]:
    """The keys that the record of a command has."""
    return {name: key for name, key in KEYS.items() if not key.commands or command in key.commands}


def require_record(record: object) -> None:
    """Refuse what is not a whole record of this schema.

    Raises:
        ValueError: Names the first key that is wrong.
    """
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA}, got {dict(record).get('schema')!r}")
    keys = keys_of(record["command"])
    for name in {**keys, **record}:
        if name not in keys:
            raise ValueError(f"{name} is no key of the record of {record['command']}")
        if name not in record:
            raise ValueError(f"{name} is missing in the record of {record['command']}")
        if not KINDS[keys[name].kind](record[name]):
            raise ValueError(f"{name} must be {keys[name].kind}, got {record[name]!r:.200}")
    stages = list(record["steps"])
    for name, more in {
        "config": (),
        "steps_per_second": (),
        "terms": (),
        "history": (),
        "seconds": (TOTAL,),
    }.items():
        lacking = {*stages, *more} - record[name].keys()
        if lacking or (name != "seconds" and record[name].keys() != set(stages)):
            raise ValueError(
                f"{name} must be of the stages {', '.join(stages)}, got {', '.join(record[name])}"
            )
    for stage, terms in record["terms"].items():
        if terms and len(record["history"][stage]) != record["steps"][stage]:
            raise ValueError(f"history must have a row for each of {record['steps'][stage]} steps of {stage}")


def read_record(path: Path) -> Any:
    """The record in a file.

    Raises:
        ValueError: If it is damaged, or of another schema.
    """
    record = read_json(path)
    schema = record.get("schema", 1) if isinstance(record, dict) else None
    if schema == 2:
        raise ValueError(
            f"{path} is a record of schema 2, which does not say all that was typed, and this version reads "
            f"schema {SCHEMA}; run the command again, with --overwrite or into another folder"
        )
    if schema == 1:
        raise ValueError(
            f"{path} was written by geokernels 0.1.0, whose records this version does not read; run the "
            "command again, with --overwrite or into another folder, or read it with 0.1.0"
        )
    if schema != SCHEMA:
        raise ValueError(f"{path} must be a record of schema {SCHEMA}, got schema {schema!r}")
    return record


def assemble(
    command: str,
    facts: Mapping,
    *,
    stages: Mapping[str, Any],
    config: Mapping[str, Mapping],
    seconds: Mapping[str, float],
    device: str = "cpu",
) -> dict:
    """The record of a run that is done, without the checksums of its files.

    Args:
        command: Whose run it is.
        facts: The keys that not every command has, and those that cannot be known here: seeds and encoders.
        stages: What was stepped, by name: see :class:`geokernels.runs.loop.Stage`.
        config: Settings by stage, besides those that stages have.
        seconds: What took how long; the total is added.
        device: Where it ran.
    """
    times = {name: round(value, 3) for name, value in seconds.items()}
    return {
        "schema": SCHEMA,
        "command": command,
        **facts,
        "config": {name: {**stage.facts["config"], **config.get(name, {})} for name, stage in stages.items()},
        "seconds": {**times, TOTAL: round(sum(seconds.values()), 3)},
        "steps": {name: stage.index for name, stage in stages.items()},
        "steps_per_second": {
            name: round(stage.index / max(seconds[name], 1e-9), 2) for name, stage in stages.items()
        },
        "peak_memory_mib": peak_memory_mib(device),
        "machine": machine(device),
        "versions": versions(),
        "terms": {name: list(stage.terms) for name, stage in stages.items()},
        "history": {name: rows_of(stage.history) for name, stage in stages.items()},
    }


def rows_of(history: Tensor) -> list:
    """A history as JSON has it: six digits, and null for NaN, which it has no word for."""
    return _plain(history.tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, Sequence | Iterable):
        return [_plain(v) for v in value]
    return None if math.isnan(value) else round(value, 6)
