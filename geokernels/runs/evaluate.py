"""Runs methods of editing over a folder of edits, and keeps every result and every failure."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..environment import machine, peak_memory_mib, versions
from ..media.bounds import MOST_MEGAPIXELS
from ..media.pictures import read_picture
from ..metrics.summary import BETTER
from ..models.denoiser import Denoiser
from ..pipelines.comparators import EditMethod, EditModels, EditTask
from ..pipelines.edit.source import ddim_inversion
from ..world import EditCase
from .eval_folder import EvalFolder, contents_of
from .loop import interrupts_between_steps
from .measures import Measures


@dataclass(frozen=True)
class Contender:
    """A method with its settings; ``label`` names both."""

    label: str
    method: EditMethod
    settings: Any


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        cases: The edits.
        contenders: Who makes them.
        steps: DDIM steps.
        skip: Timesteps that the inversion leaves out at either end.
        batch: Edits at a time.
        seed: Of each edit's chance, with its number added.
        size: Longest side of the pictures; None for the model's own.
        most_megapixels: Pictures of more millions of pixels are not read.
    """

    cases: Sequence[EditCase]
    contenders: Sequence[Contender]
    steps: int = 50
    skip: int = 1
    batch: int = 4
    seed: int = 0
    size: int | None = None
    most_megapixels: float = MOST_MEGAPIXELS


def run_evaluation(
    plan: Plan,
    models: EditModels,
    measures: Measures,
    folder: EvalFolder,
    *,
    facts: dict,
    resume: bool = False,
    on_rows: Callable[[int, float], None] = lambda done, seconds: None,
) -> dict:
    """Make and measure every edit by every method, and write what the run leaves behind.

    An edit that fails is tried once more by itself, so that it takes no other with it; if it fails again,
    what it failed of is its result.

    Args:
        plan: What to run.
        models: What methods may use.
        measures: What edits are measured by.
        folder: Claimed already.
        facts: What ``run.json`` says besides.
        resume: Whether to continue the stopped run in the folder.
        on_rows: Called with the number of results and of seconds so far; a KeyboardInterrupt leaves what
            there is, to be continued.

    Returns:
        The record, as in ``run.json`` without the checksums.
    """
    run = {
        **facts,
        "methods": {
            c.label: {"title": c.method.title, "settings": dict(vars(c.settings))} for c in plan.contenders
        },
        "edits": [case.key for case in plan.cases],
        "contents": contents_of(plan.cases),
        **{name: getattr(plan, name) for name in ("steps", "skip", "batch", "seed", "size")},
        "measures": measures.names,
    }
    rows, seconds = folder.begun(run, plan.cases) if resume else ([], 0.0)
    # at once: an interruption before the first result must leave something to continue from
    folder.begin(run, rows, seconds)
    done = {(row["key"], row["method"]) for row in rows}
    with interrupts_between_steps() as check:
        for first in range(0, len(plan.cases), plan.batch):
            cases = plan.cases[first : first + plan.batch]
            left = [c for c in plan.contenders if any((case.key, c.label) not in done for case in cases)]
            if not left:
                continue
            start = time.perf_counter()
            batch = _Batch(plan, models, cases, first)
            for contender in left:
                made = batch.edit(contender, measures)
                # an edit may have been made already, in a batch that ended before it was full
                rows += [folder.add(*one) for one in made if (one[0]["key"], contender.label) not in done]
                seconds, start = seconds + time.perf_counter() - start, time.perf_counter()
                folder.keep(run, rows, seconds)
                on_rows(len(rows), seconds)
                check()
    device = str(models.pipeline.unet.device)
    record = {
        "command": "eval",
        **run,
        "seconds": round(seconds, 3),
        "peak_memory_mib": peak_memory_mib(device),
        "machine": machine(device),
        "versions": versions(),
    }
    folder.finish(record, rows, plan.cases)
    return record


class _Batch:
    """Some edits: their pictures and inversions, each as far as it could be had."""

    def __init__(self, plan: Plan, models: EditModels, cases: Sequence[EditCase], first: int):
        self.plan, self.models, self.cases = plan, models, cases
        self.denoiser = Denoiser(models.pipeline)
        self.tasks: dict[tuple[int, ...], EditTask] = {}
        self.failures: dict[int, str] = {}
        self.first = first
        given: dict[tuple, list[int]] = {}
        self.pictures: dict[int, Tensor] = {}
        for i, case in enumerate(cases):
            try:
                self.pictures[i] = self._picture(case)
                given.setdefault(tuple(self.pictures[i].shape), []).append(i)
            except Exception as error:
                self.failures[i] = _sentence(error)
        for rows in given.values():
            self._prepare(tuple(rows))

    def _picture(self, case: EditCase) -> Tensor:
        given = read_picture(case.picture, most_megapixels=self.plan.most_megapixels).rgb
        return self.denoiser.suited(given, self.plan.size)

    def _prepare(self, rows: tuple[int, ...]) -> None:
        """Invert pictures of one size; by themselves if they fail together."""
        try:
            self.tasks[rows] = self._task(rows)
        except Exception as error:
            if len(rows) == 1:
                self.failures[rows[0]] = _sentence(error)
                return
            for i in rows:
                self._prepare((i,))

    def _task(self, rows: tuple[int, ...]) -> EditTask:
        cases = [self.cases[i] for i in rows]
        pictures, captions = torch.stack([self.pictures[i] for i in rows]), [case.source for case in cases]
        source = ddim_inversion(
            self.models.pipeline, pictures, captions, steps=self.plan.steps, skip=self.plan.skip
        )
        return EditTask(
            pictures,
            source,
            tuple(case.target for case in cases),
            tuple(case.instruction for case in cases),
            tuple(self.plan.seed + self.first + i for i in rows),
        )

    def edit(self, contender: Contender, measures: Measures) -> list[tuple[dict, Tensor | None]]:
        """A row of results for each edit, and its picture; None where it failed."""
        found: dict[int, tuple[Tensor | str, float]] = {i: (why, 0.0) for i, why in self.failures.items()}
        for rows, task in self.tasks.items():
            found |= zip(rows, _edited(contender, self.models, task), strict=True)
        return [self._row(contender, measures, i, *found[i]) for i in range(len(self.cases))]

    def _row(
        self, contender: Contender, measures: Measures, i: int, found: Tensor | str, seconds: float
    ) -> tuple[dict, Tensor | None]:
        case, values = self.cases[i], dict.fromkeys(BETTER)
        picture, failure = (None, found) if isinstance(found, str) else (found, None)
        if picture is not None:
            # what the file holds
            picture = (picture.float().cpu() * 255).round() / 255
            try:
                values = measures(case, self.pictures[i], picture)
            except Exception as error:
                failure = f"could not be measured: {_sentence(error)}"
        row = {"key": case.key, "kind": case.kind, "attribute": case.attribute, "method": contender.label}
        values = {name: _plain(value) for name, value in values.items()}
        return {**row, "seconds": round(seconds, 3), "failure": failure, **values}, picture


def _edited(contender: Contender, models: EditModels, task: EditTask) -> list[tuple[Tensor | str, float]]:
    """Picture or failure of each edit of a task, and the seconds that it took."""
    start, n = time.perf_counter(), len(task.targets)
    try:
        pictures = contender.method.run(models, task, contender.settings)
        if len(pictures) != n:
            raise RuntimeError(f"{contender.label} returned {len(pictures)} pictures for {n} edits")
        return [(picture, (time.perf_counter() - start) / n) for picture in pictures]
    except Exception as error:
        if n == 1:
            return [(_sentence(error), time.perf_counter() - start)]
        return [found for i in range(n) for found in _edited(contender, models, task.part(i))]


def _sentence(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _plain(value: float | None) -> float | str | None:
    """A number of JSON's, which knows no infinity."""
    return "inf" if value is not None and math.isinf(value) else value
