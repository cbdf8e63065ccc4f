"""A batch of edits by one method of editing: what is made, and measured, and what failed and why."""

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..media.bounds import MOST_MEGAPIXELS
from ..media.pictures import read_picture
from ..metrics.summary import BETTER
from ..models.flow import FlowModel, latent_model
from ..models.latents import UnsuitedPipelineError
from ..pipelines.comparators import EditMethod, EditModels, EditTask
from ..pipelines.comparators.flow_settings import FlowSettings
from ..pipelines.edit.flow_inversion import invert
from ..pipelines.recipe import RecipeConfig
from ..world import EditCase
from .measures import Measures
from .passes import counted

# what Python raises of faults in programs: ours, and no failure of a method
FAULTS = (TypeError, AttributeError, LookupError, NameError, AssertionError, ZeroDivisionError)


@dataclass(frozen=True)
class Contender:
    """A method with its settings; ``label`` names both."""

    label: str
    method: EditMethod
    settings: Any

    def settled(self, models: EditModels) -> "Contender":
        """The same with the settings that its recipe leaves to the models."""
        if isinstance(self.settings, FlowSettings):
            return replace(self, settings=self.settings.settled(FlowModel(models.pipeline)))
        if isinstance(self.settings, RecipeConfig):
            return replace(self, settings=self.settings.settled(models.pipeline, models.encoder))
        return self


@dataclass(frozen=True)
class Plan:
    """How edits are made.

    Attributes:
        contenders: Who makes them.
        steps: Of DDIM, or levels of a rectified flow.
        skip: Timesteps that the inversion leaves out at either end; 0 for a rectified flow.
        batch: Edits at a time.
        seed: Of each edit's chance, with its number added.
        size: Longest side of the pictures; None for the model's own.
        most_megapixels: Pictures of more millions of pixels are not read.
        solver: Of a rectified flow's inversion; None for the usual one, and for U-Nets.
    """

    contenders: Sequence[Contender]
    steps: int = 50
    skip: int = 1
    batch: int = 4
    seed: int = 0
    size: int | None = None
    most_megapixels: float = MOST_MEGAPIXELS
    solver: str | None = None

    @property
    def config(self) -> dict:
        """The settings that every edit is made with."""
        config = {name: getattr(self, name) for name in ("steps", "skip", "batch", "size")}
        return config if self.solver is None else {**config, "solver": self.solver}


class FaultError(Exception):
    """A method, or a measure of what it made, met a fault of geokernels, which is the cause."""


class Failure(NamedTuple):
    """Why there is no picture, or no measure of one."""

    sentence: str
    traceback: str

    @classmethod
    def of(cls, error: Exception, doing: str = "") -> "Failure":
        """A failure that is a method's.

        Raises:
            FaultError: If it is none, but a fault of geokernels.
        """
        if isinstance(error, FAULTS) and not isinstance(error, UnsuitedPipelineError):
            raise FaultError(f"{type(error).__name__}: {error}") from error
        lines = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        return cls(doing + said, "".join(traceback.format_exception(error)))


class Made(NamedTuple):
    """What came of an edit, the seconds it took, and the passes of networks; see :func:`counted`."""

    picture: Tensor | Failure
    seconds: float = 0.0
    passes: float | None = None


class Batch:
    """Some edits: their pictures and inversions, each as far as it could be had."""

    def __init__(self, plan: Plan, models: EditModels, cases: Sequence[EditCase], first: int):
        self.plan, self.models, self.cases = plan, models, cases
        self.model = latent_model(models.pipeline)
        self.tasks: dict[tuple[int, ...], EditTask] = {}
        self.inversions: dict[tuple[int, ...], float] = {}  # passes an edit
        self.failures: dict[int, Failure] = {}
        self.first = first
        given: dict[tuple, list[int]] = {}
        self.pictures: dict[int, Tensor] = {}
        for i, case in enumerate(cases):
            try:
                self.pictures[i] = self._picture(case)
                given.setdefault(tuple(self.pictures[i].shape), []).append(i)
            except Exception as error:
                self.failures[i] = Failure.of(error)
        for rows in given.values():
            self._prepare(tuple(rows))

    def _picture(self, case: EditCase) -> Tensor:
        given = read_picture(case.picture, most_megapixels=self.plan.most_megapixels).rgb
        return self.model.suited(given, self.plan.size)

    def _prepare(self, rows: tuple[int, ...]) -> None:
        """Invert pictures of one size; by themselves if they fail together."""
        try:
            self.tasks[rows] = self._task(rows)
        except Exception as error:
            failure = Failure.of(error)
            if len(rows) == 1:
                self.failures[rows[0]] = failure
                return
            for i in rows:
                self._prepare((i,))

    def _task(self, rows: tuple[int, ...]) -> EditTask:
        cases = [self.cases[i] for i in rows]
        pictures, captions = torch.stack([self.pictures[i] for i in rows]), [case.source for case in cases]
        plan = {"steps": self.plan.steps, "skip": self.plan.skip, "solver": self.plan.solver}
        with counted(self.model.network) as passes:
            source = invert(self.models.pipeline, pictures, captions, **plan)
        self.inversions[rows] = passes.count / len(rows)
        return EditTask(
            pictures,
            source,
            tuple(case.target for case in cases),
            tuple(case.instruction for case in cases),
            tuple(self.plan.seed + self.first + i for i in rows),
        )

    def edit(self, contender: Contender, measures: Measures) -> list[tuple[dict, Tensor | None]]:
        """A row of results for each edit, and its picture; None where it failed."""
        results = {i: Made(why) for i, why in self.failures.items()}
        for rows, task in self.tasks.items():
            before = self.inversions[rows] if contender.method.inverted else 0.0
            results |= zip(rows, _edited(contender, self.models, task, before), strict=True)
        return [self._row(contender, measures, i, results[i]) for i in range(len(self.cases))]

    def _row(
        self, contender: Contender, measures: Measures, i: int, made: Made
    ) -> tuple[dict, Tensor | None]:
        case, values, result = self.cases[i], dict.fromkeys(BETTER), made.picture
        picture, failure = (None, result) if isinstance(result, Failure) else (result, None)
        if picture is not None:
            # what the file holds
            picture = (picture.float().cpu() * 255).round() / 255
            try:
                values = measures(case, self.pictures[i], picture)
            except Exception as error:
                failure = Failure.of(error, "could not be measured: ")
        row = {"key": case.key, "kind": case.kind, "attribute": case.attribute, "method": contender.label}
        row |= {"seconds": round(made.seconds, 3), "passes": made.passes}
        row |= {"failure": failure and failure.sentence}
        row |= {"traceback": failure and failure.traceback}
        return {**row, **{name: _plain(value) for name, value in values.items()}}, picture


def _edited(contender: Contender, models: EditModels, task: EditTask, before: float) -> list[Made]:
    """What came of each edit of a task, which took ``before`` passes already."""
    start, n = time.perf_counter(), len(task.targets)
    networks = [latent_model(models.pipeline).network]
    networks += [models.instructed.unet] if models.instructed else []
    try:
        with counted(*networks) as passes:
            pictures = contender.method.run(models, task, contender.settings)
        if len(pictures) != n:
            raise RuntimeError(f"{contender.label} returned {len(pictures)} pictures for {n} edits")
        seconds, count = (time.perf_counter() - start) / n, round(before + passes.count / n, 2)
        return [Made(picture, seconds, count) for picture in pictures]
    except Exception as error:
        failure = Failure.of(error)
        if n == 1:
            return [Made(failure, time.perf_counter() - start)]
        return [made for i in range(n) for made in _edited(contender, models, task.part(i), before)]


def _plain(value: float | None) -> float | str | None:
    """A number of JSON's, which knows no infinity."""
    return "inf" if value is not None and math.isinf(value) else value
