"""Draws and judges samples into a folder, a batch at a time, so that a run can be stopped and continued."""

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from .._files import sha256, write_json, write_text
from ..environment import machine, peak_memory_mib, versions
from ..media.pictures import grid, png, read_picture, write_bytes, write_picture
from ..metrics.summary import shares
from ..pipelines.run_state import require_same_facts
from ..report.samples import SAMPLE_SIDE, SHOWN, samples_page
from ..world import ATTRIBUTES
from ..world.edit_folder import NAMES as EDIT_NAMES
from ..world.edit_folder import clear_edit_folder
from .folder import REMEDY, RunFolder, listed, texts
from .loop import interrupts_between_steps

GRID, SAMPLES, PAGE = "grid.png", "samples.json", "report.html"
GRID_SHOWS = 100  # samples on the grid
EDITS = "edits"  # folder, within a run's, of edits in the layout of PIE-Bench


class Sample(NamedTuple):
    """One sample, ready to be written."""

    files: dict[str, Tensor | bytes | None]  # by name, the grid's picture first; None is written already
    facts: dict  # caption, wanted and seen, each of them None where it is not known


class Source(Protocol):
    """What draws samples; the same settings give the same samples."""

    kind: str
    count: int
    batch: int  # how many are drawn at once
    settings: dict

    def draw(self, rows: range) -> list[Sample]:
        """The samples of these numbers."""


class SampleFolder(RunFolder):
    """Where samples are written."""

    command = "world sample"
    checkpoint = "samples.partial.json"
    names = (
        r"grid\.png",
        r"samples\.json",
        r"report\.html",
        r"pictures/\d{4,}\.png",
        r"clips/\d{4,}/(frame|mask)-\d{3,}\.png",
        r"clips/\d{4,}/(clip\.gif|truth\.safetensors)",
        *(f"{EDITS}/{name}" for name in EDIT_NAMES),
    )

    def clear(self, keep: Collection[Path] = ()) -> None:
        """Remove an earlier run, its pictures and their folders included."""
        begun = self._record() is not None or self.begins()
        super().clear(keep)
        if begun:
            clear_edit_folder(self.path / EDITS)

    def written(self) -> dict[str, str]:
        """Every file of every sample among them, and those of interrupted runs."""
        found = super().written()
        for name in (self.checkpoint, SAMPLES):
            for sample in listed(self.path / name, "samples"):
                found |= texts(sample.get("sha256"))
        return found

    def begun(self, run: dict) -> dict:
        """What a stopped run of the same settings had done.

        Raises:
            ValueError: If the settings were others, or one of its files is not what was written.
        """
        kept = self.load_json()
        with self.as_written():
            require_same_facts(kept["run"], run)
            for name, checksum in (pair for sample in kept["samples"] for pair in sample["sha256"].items()):
                path = self.path / name
                if not (path.is_file() and sha256(path) == checksum):
                    raise ValueError(f"the stopped run's {name} is not what it was; {REMEDY}")
            return {"samples": list(kept["samples"]), "seconds": float(kept["seconds"])}

    def keep(self, run: dict, samples: list[dict], seconds: float) -> None:
        """Write the checkpoint."""
        self.save_json({"run": run, "samples": samples, "seconds": seconds})

    def add(self, sample: Sample) -> dict:
        """Write the files of a sample; returns its entry in the list."""
        for name, content in sample.files.items():
            if isinstance(content, bytes):
                write_bytes(self.file(name), content)
            elif content is not None:
                write_picture(self.file(name), content)
        self.require_there()
        return {**sample.facts, "sha256": {name: sha256(self.path / name) for name in sample.files}}


def run_samples(
    source: Source,
    folder: SampleFolder,
    *,
    facts: dict,
    resume: bool = False,
    on_batch: Callable[[int, float], None] = lambda done, seconds: None,
) -> dict:
    """Draw every sample of ``source`` that is not there yet, and write what the run leaves behind.

    Args:
        source: What draws.
        folder: Claimed already.
        facts: What ``run.json`` says besides: the seed, the device.
        resume: Whether to continue the stopped run in the folder.
        on_batch: Called with the number of samples and of seconds so far; a KeyboardInterrupt leaves what was
            drawn, to be continued.

    Returns:
        The record, as in ``run.json`` without the checksums.
    """
    run = json.loads(json.dumps({"kind": source.kind, "count": source.count, **source.settings, **facts}))
    samples, seconds = [], 0.0
    if resume:
        kept = folder.begun(run)
        samples, seconds = kept["samples"], kept["seconds"]
    else:
        # at once: an interruption before the first sample must leave something to continue from
        folder.keep(run, samples, seconds)
    with interrupts_between_steps() as check:
        while len(samples) < source.count:
            start = time.perf_counter()
            rows = range(len(samples), min(len(samples) + source.batch, source.count))
            samples += [folder.add(sample) for sample in source.draw(rows)]
            seconds += time.perf_counter() - start
            folder.keep(run, samples, seconds)
            on_batch(len(samples), seconds)
            check()
    return _finish(folder, run, samples, seconds)


def _finish(folder: SampleFolder, run: dict, samples: list[dict], seconds: float) -> dict:
    """Write grid, list, page and, last, ``run.json``; then the checkpoint goes."""
    first = [read_picture(folder.path / next(iter(s["sha256"]))).rgb for s in samples[:GRID_SHOWS]]
    write_picture(folder.file(GRID), grid(first))
    write_json(folder.file(SAMPLES), {"samples": samples})
    record = {
        "command": "world sample",
        **run,
        "seconds": round(seconds, 3),
        "per_second": round(len(samples) / max(seconds, 1e-9), 2),
        "peak_memory_mib": peak_memory_mib(run.get("device", "cpu")),
        "machine": machine(run.get("device", "cpu")),
        "versions": versions(),
        "judged": judged(samples),
    }
    shown = [png(picture, longest=SAMPLE_SIDE) for picture in first[:SHOWN]]
    write_text(folder.file(PAGE), samples_page(record, samples, shown, shares(record["judged"])))
    folder.end(record, [GRID, SAMPLES, PAGE])
    return record


def judged(samples: list[dict]) -> dict[str, dict[str, int]]:
    """For each attribute: how many samples the judge names it in, and is right of those where it is known."""
    counts = {}
    for attribute in ATTRIBUTES:
        read = [s["seen"] for s in samples if s["seen"]]
        asked = [(s["wanted"][attribute], s["seen"][attribute]) for s in samples if _knows(s, attribute)]
        counts[attribute] = {
            "samples": len(read),
            "named": sum(seen[attribute] is not None for seen in read),
            "asked": len(asked),
            "as_asked": sum(wanted == seen for wanted, seen in asked),
        }
    return counts


def _knows(sample: dict, attribute: str) -> bool:
    return bool(sample["seen"] and sample["wanted"] and attribute in sample["wanted"])
