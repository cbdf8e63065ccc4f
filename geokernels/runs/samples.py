"""Draws and judges samples into a folder, a batch at a time, so that a run can be stopped and continued."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from .._files import sha256, write_json, write_text
from ..media.pictures import grid, png, read_picture, write_bytes, write_picture
from ..metrics.summary import shares
from ..report.samples import SAMPLE_SIDE, SHOWN, samples_page
from ..world import ATTRIBUTES
from ..world.edit_folder import NAMES as EDIT_NAMES
from ..world.edit_folder import clear_edit_folder
from .folder import REMEDY, RunFolder, listed, texts
from .loop import Gathering, Job

GRID, SAMPLES, PAGE = "grid.png", "samples.json", "report.html"
GRID_SHOWS = 100  # samples on the grid
STAGE = "samples"
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
        files = super().written()
        for sample in (
            *listed(self.path / self.checkpoint, "stages", STAGE, "samples"),
            *listed(self.path / SAMPLES, "samples"),
        ):
            files |= texts(sample.get("sha256"))
        return files

    def write(self, sample: Sample) -> dict:
        """Write the files of a sample; returns its entry in the list."""
        for name, content in sample.files.items():
            if isinstance(content, bytes):
                write_bytes(self.file(name), content)
            elif content is not None:
                write_picture(self.file(name), content)
        self.require_there()
        return {**sample.facts, "sha256": {name: sha256(self.path / name) for name in sample.files}}


class Samples(Gathering):
    """Samples that are drawn, a batch a step.

    Attributes:
        samples: Entries of the list, so far.
    """

    def __init__(self, source: Source, folder: SampleFolder):
        self.source, self.folder = source, folder
        self.samples: list[dict] = []

    @property
    def facts(self) -> dict:
        """The settings."""
        return {"config": {"count": self.source.count, **self.source.settings}}

    @property
    def index(self) -> int:
        """Samples so far."""
        return len(self.samples)

    @property
    def steps(self) -> int:
        """Samples there will be."""
        return self.source.count

    def step(self) -> None:
        """Draw the next batch, and write it."""
        rows = range(self.index, min(self.index + self.source.batch, self.steps))
        self.samples = [*self.samples, *(self.folder.write(sample) for sample in self.source.draw(rows))]

    def state_dict(self) -> dict:
        """The list."""
        return {"samples": self.samples}

    def load_state_dict(self, state: dict) -> None:
        """Take back the list.

        Raises:
            ValueError: If a file of a sample is not what was written.
        """
        for name, checksum in (pair for sample in state["samples"] for pair in sample["sha256"].items()):
            path = self.folder.path / name
            if not (path.is_file() and sha256(path) == checksum):
                raise ValueError(f"the stopped run's {name} is not what it was; {REMEDY}")
        self.samples = list(state["samples"])


class SampleJob(Job):
    """Samples, drawn and judged.

    Args:
        source: What draws.
        folder: Claimed already.
        facts: See :class:`geokernels.runs.loop.Job`.
        device: Where it is drawn.
    """

    every = 1

    def __init__(self, source: Source, folder: SampleFolder, *, facts: dict, device: str = "cpu"):
        self.samples = Samples(source, folder)
        config = json.loads(json.dumps(self.samples.facts["config"]))
        super().__init__(folder, facts={"kind": source.kind, **facts}, config={STAGE: config}, device=device)

    def stages(self) -> Iterator[tuple[str, Samples]]:
        """The samples."""
        yield STAGE, self.samples

    def record(self) -> dict:
        """What the judge reads in them."""
        return {"judged": judged(self.samples.samples)}

    def finish(self, record: dict) -> Collection[str]:
        """Write grid, list and page; the samples are written already."""
        file, samples = self.folder.file, self.samples.samples
        first = [read_picture(self.folder.path / next(iter(s["sha256"]))).rgb for s in samples[:GRID_SHOWS]]
        write_picture(file(GRID), grid(first))
        write_json(file(SAMPLES), {"samples": samples})
        shown = [png(picture, longest=SAMPLE_SIDE) for picture in first[:SHOWN]]
        write_text(file(PAGE), samples_page(record, samples, shown, shares(record["judged"])))
        return [GRID, SAMPLES, PAGE]


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
