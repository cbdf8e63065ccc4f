"""The one way to run: :func:`drive` takes a job through its stages, and loses nothing however it ends.

A :class:`Job` is what one command does: stages that are taken step by step, what is kept on the way, and the
files at the end. What is the same for all of them stands here alone: checkpoints, Ctrl-C, times, the record.
"""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..pipelines.run_state import require_same_facts
from .folder import RECORD, RunFolder
from .record import assemble

# facts that are names of files; their contents are compared elsewhere
NAMES = ("picture", "clip", "masks", "masked", "first", "second")
MINUTE = 60.0  # seconds of work that a run which is killed may lose, and the step that it was in
PREPARE = "prepare"  # what ``seconds`` calls the time before the first step of each stage
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

# What long work that has no steps tells of itself: what it is, how much is done, and of how much.
Tell = Callable[..., None]


class Stage(Protocol):
    """What is taken in whole steps: a :class:`geokernels.pipelines.run.Run`, or what has the same face."""

    index: int
    terms: tuple[str, ...]

    @property
    def steps(self) -> int | None:
        """How many there are, where that is known."""

    @property
    def done(self) -> bool:
        """Whether every step has been taken."""

    @property
    def history(self) -> Tensor:
        """A row for each step, with a column for each of ``terms``."""

    @property
    def facts(self) -> dict:
        """What names it: its settings as ``"config"``, and more."""

    def prepare(self, tell: Callable[[str], None] | None = None) -> None:
        """Do what is done once before the first step."""

    def step(self) -> None:
        """Take one step, whole or not at all."""

    def state_dict(self) -> dict:
        """Everything that is needed to continue."""

    def load_state_dict(self, state: dict) -> None:
        """Continue from a state; refuses that of another run."""
        return


class Gathering(ABC):
    """A stage that gathers what it makes and minimises nothing: what all such have of :class:`Stage`."""

    terms = ()
    index: int
    steps: int

    @property
    def done(self) -> bool:
        """Whether all is made."""
        return self.index >= self.steps

    @property
    def history(self) -> Tensor:
        """Nothing is minimised."""
        return torch.empty(0, 0, dtype=torch.float32)

    def prepare(self, tell: Callable[[str], None] | None = None) -> None:
        """Nothing is to be done before the first step."""
        return


class Job(ABC):
    """What one command does, from the first step to the last file.

    Attributes:
        folder: Where it is written; claimed already.
        facts: What ``run.json`` says of this run besides what it says of every one.
        config: Settings by stage, as far as they are known before the first stage.
        device: Where the work is done.
        seconds: Taken so far: by stage, and under ``"prepare"`` before their first steps.
        every: Steps between checkpoints, which are written every :data:`MINUTE` at the latest.
        kept_on: Device that checkpoints are read to; None for the one where the work is done.
    """

    every: ClassVar[int] = 20
    kept_on: ClassVar[str | None] = None

    def __init__(
        self,
        folder: RunFolder,
        *,
        facts: Mapping,
        config: Mapping[str, Mapping] | None = None,
        device: str = "cpu",
    ):
        self.folder, self.facts, self.device = folder, dict(facts), device
        self.config = {name: dict(settings) for name, settings in (config or {}).items()}
        self.seconds: dict[str, float] = {PREPARE: 0.0}

    def prepare(self, tell: Tell) -> None:
        """Do what comes before the first stage, of a run that is continued as well."""
        return

    @abstractmethod
    def stages(self) -> Iterable[tuple[str, Stage]]:
        """The stages with their names, in order; each is at its end when the next is asked for."""

    def before(self, name: str, stage: Stage) -> None:
        """Write what is of use already before the steps of a stage; the folder is this run's by now."""
        return

    def keep(self, name: str, stage: Stage) -> None:
        """Keep what is to be shown of the step that was just taken; it is a part of :meth:`state_dict`."""
        return

    def preview(self) -> Tensor | None:
        """The newest picture that there is, ``(3, H, W)`` in [0, 1]; None where there is none yet."""
        return None

    def state_dict(self) -> dict:
        """What a continued run needs besides the stages' states: tensors, numbers and strings only."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take back what :meth:`state_dict` gave."""
        return

    def require_same(self, state: Mapping) -> None:
        """Refuse a checkpoint of another run of the command, before anything is loaded from it.

        Raises:
            ValueError: Names the first thing that differs.
        """
        require_same_facts({"stages": list(state["config"])}, {"stages": list(self.config)})
        for stage, settings in self.config.items():
            require_same_facts(state["config"][stage], settings)
        kept, own = (
            {key: value for key, value in facts.items() if key not in NAMES}
            for facts in (state["facts"], self.facts)
        )
        require_same_facts(kept, own)

    def last_good(self, name: str, stage: Stage) -> str:
        """Write what is of use of a run that cannot go on; says where what was reached is kept."""
        return f"step {stage.index} of {name} is kept in {self.folder.path / self.folder.checkpoint}"

    def complete(self, tell: Tell) -> None:
        """Make what is made once every stage is done, and that :meth:`record` speaks of."""
        return

    def record(self) -> dict:
        """What ``run.json`` says of this command's results."""
        return {}

    @abstractmethod
    def finish(self, record: dict) -> Collection[str]:
        """Write every file but ``run.json``; returns their names.

        Args:
            record: Everything in ``run.json`` but the checksums.
        """


def drive(
    job: Job,
    *,
    resume: bool = False,
    checkpoint_every: int | None = None,
    on_step: Callable[[Job, str, Stage, float], None] = lambda job, name, stage, seconds: None,
    tell: Tell = lambda *said, **counted: None,
) -> dict:
    """Run a job to its end in its folder, and write everything that it leaves behind.

    There is a checkpoint from the beginning, so that a run that is killed before its first step can be
    continued. Where the folder holds an earlier run that is to be replaced, it stays until the first stage
    is prepared, because input may be refused up to then; a new folder is left empty by such a refusal.

    Args:
        job: Fresh; with ``resume`` it is taken to where the checkpoint stands.
        resume: Whether to continue from the folder's checkpoint.
        checkpoint_every: Most steps between checkpoints; None for the job's own number.
        on_step: Called after each step with the job, the stage, its name and its seconds so far. A
            KeyboardInterrupt that it raises leaves a checkpoint and is raised again.
        tell: Called, by what has no steps, with what is done, how much of it, of how much, and of what.

    Returns:
        The record, as in ``run.json`` without the checksums.

    Raises:
        ValueError: If the checkpoint is of another run, or input cannot be used.
        FloatingPointError: If a step came to no finite number; a checkpoint of the last good one is left.
        KeyboardInterrupt: If the run was asked to stop; a checkpoint is left.
    """
    with interrupts_between_steps() as check:

        def tell_and_check(*said, **counted) -> None:
            check()
            tell(*said, **counted)

        driver = _Driver(job, checkpoint_every or job.every, on_step, tell_and_check, check)
        driver.begin(resume=resume)
        stages = iter(job.stages())
        while (stage := driver.prepare(stages)) is not None:
            driver.take_steps(*stage)
        job.complete(tell_and_check)
        record = assemble(
            job.folder.command,
            {**job.facts, **job.record()},
            stages=driver.stages,
            config=job.config,
            seconds=job.seconds,
            device=job.device,
        )
        job.folder.end(record, job.finish(record))
    return record


class _Driver:
    """A job on its way.

    Attributes:
        saved_at: When the last checkpoint was written, by the clock.
        saved_facts: What the last checkpoint says of the run.
        stages: Those that were begun, by name.
        waiting: States, from the checkpoint, of stages that are not begun yet.
    """

    def __init__(self, job: Job, every: int, on_step: Callable, tell: Tell, check: Callable[[], None]):
        self.job, self.every, self.on_step, self.tell, self.check = job, every, on_step, tell, check
        self.stages: dict[str, Stage] = {}
        self.waiting: dict[str, dict] = {}
        self.begun_anew = self.prepared = False
        self.saved_facts = dict(job.facts)
        self.saved_at = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint."""
        job, states = self.job, {name: stage.state_dict() for name, stage in self.stages.items()}
        job.folder.save(
            {
                "facts": job.facts,
                "config": job.config,
                "stages": {**self.waiting, **states},
                "kept": job.state_dict(),
                "seconds": dict(job.seconds),
            }
        )
        self.saved_at, self.saved_facts = time.monotonic(), dict(job.facts)

    def begin(self, *, resume: bool) -> None:
        """Stand where the checkpoint stands, or write the first one."""
        folder = self.job.folder
        if resume:
            state = folder.load(self.job.kept_on or self.job.device)
            with folder.as_written():
                self.job.require_same(state)
                self.job.load_state_dict(state["kept"])
                self.job.seconds |= {name: float(value) for name, value in state["seconds"].items()}
                self.waiting = dict(state["stages"])
        elif not folder.replaces:
            self.begun_anew = True
            self.save()

    def prepare(self, stages: Iterator[tuple[str, Stage]]) -> tuple[str, Stage] | None:
        """Stand before the first step of the next stage that is left; None if every stage is done.

        What is refused before the first step of all leaves the folder as it was.
        """
        start = time.perf_counter()
        try:
            if not self.prepared:
                self.job.prepare(self.tell)
            name, stage = next(stages, (None, None))
            if stage is not None:
                self._begin_stage(name, stage)
        except KeyboardInterrupt:
            self._replace()
            raise
        except Exception:
            if self.begun_anew and not self.prepared:
                self.job.folder.clear()
            raise
        self.job.seconds[PREPARE] += time.perf_counter() - start
        self.prepared = True
        self._replace()
        if self.job.facts != self.saved_facts:  # what was prepared is a part of them
            self.save()
        if stage is None:
            return None
        self.job.before(name, stage)
        return name, stage

    def _begin_stage(self, name: str, stage: Stage) -> None:
        """Stand before its first step, or where the checkpoint stands."""
        self.job.seconds.setdefault(name, 0.0)
        stage.prepare(self.tell)
        if name in self.waiting:
            with self.job.folder.as_written():
                stage.load_state_dict(self.waiting[name])
            del self.waiting[name]
        self.stages[name] = stage

    def _replace(self) -> None:
        """From now on the folder is this run's: what an earlier one left goes."""
        folder = self.job.folder
        if folder.replaces:
            folder.replace()
            self.save()
        elif (folder.path / RECORD).exists():  # of a finished run that is continued with more to do
            self.save()
            (folder.path / RECORD).unlink()

    def take_steps(self, name: str, stage: Stage) -> None:
        """Take what steps are left of a stage."""
        job = self.job
        while not stage.done:
            start = time.perf_counter()
            try:
                stage.step()
            except (FloatingPointError, MemoryError) as error:
                self.save()
                raise type(error)(f"{error}; {job.last_good(name, stage)}") from error
            job.keep(name, stage)
            job.seconds[name] += time.perf_counter() - start
            try:
                self.on_step(job, name, stage, job.seconds[name])
                self.check()
            except KeyboardInterrupt:
                self.save()
                raise
            late = time.monotonic() - self.saved_at >= MINUTE
            if stage.done or stage.index % self.every == 0 or late:
                self.save()


@contextmanager
def interrupts_between_steps() -> Iterator[Callable[[], None]]:
    """Hold what asks a run to stop back until the function given is called, so that no step is cut in half.

    That is Ctrl-C, the SIGTERM of schedulers and of machines that are taken away, and the SIGHUP of a
    terminal that is closed; one that is ignored, as under nohup, stays ignored. A second one acts at once.
    Outside the main thread signals cannot be held back, and are left alone.
    """
    pressed = False

    def note(number, frame):
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = {}
    try:
        for number in STOPPING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    except ValueError:
        yield check
        return
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
