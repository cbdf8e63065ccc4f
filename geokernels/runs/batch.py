"""Runs many jobs, each a command in a folder of its own, and loses none of them however it ends.

What came of a job is on the disk: its ``run.json`` says that it is finished, its checkpoint that it goes on.
The lines of a batch say besides what failed, why, and how often.
"""

import re
import shlex
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from .._files import read_json, write_csv, write_text
from ..pipelines.run_state import require_same_facts
from ..report.batch import batch_page
from .folder import RECORD
from .growing import GrowingFolder
from .held_folder import HeldFolder
from .loop import Gathering, Job, Tell
from .shards import WHOLE, Shard, shards_in
from .worker import INTERRUPTED, LOST, Crew, Outcome

STAGE = "jobs"
LINES, LAST, TABLE, PAGE = "batch.jsonl", "batch.json", "jobs.csv", "report.html"
JOBS, LOGS = "jobs", "logs"  # folders of what jobs leave, and of what they print
FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"
STARTED = ("checkpoint.pt", "*.partial.json")  # names of what a job goes on from
HEAD = ("name", "state", "attempts", "seconds", "reason", "command")
MOST_LOST = 3  # how often a job may be lost with who ran it, which is no failure of its own
PATIENCE = 120.0  # seconds to wait for a job's folder that somebody still writes to, whom nobody waits for


@dataclass
class BatchFolder(GrowingFolder):
    """Where a batch is written; the folders of its jobs are theirs."""

    command = "batch"
    checkpoint = "batch.partial.json"
    again = f"remove the files beside {JOBS}/, and call again: finished jobs stay"
    listed, last, tables = LINES, LAST, (TABLE, PAGE)
    names = tuple(map(re.escape, (LINES, LAST, TABLE, PAGE)))

    def job(self, name: str) -> Path:
        """The folder of a job."""
        return self.path / JOBS / name

    def log(self, name: str) -> Path:
        """What a job prints."""
        return self.path / LOGS / f"{name}.txt"


class Task(NamedTuple):
    """A job that is asked for.

    Attributes:
        name: By which its folder is called.
        command: The words that name its command.
        words: What is typed behind them.
    """

    name: str
    command: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def typed(self) -> list[str]:
        """All of it."""
        return [*self.command, *self.words]


@dataclass(frozen=True)
class Course:
    """How a job has come along: what its last line says.

    Attributes:
        name: Of the job.
        words: What was typed.
        state: ``finished``, ``failed`` or ``stopped``.
        attempts: How often it has failed or finished.
        seconds: That it took so far, in all.
        reason: Why it failed.
    """

    name: str
    words: list[str]
    state: str = STOPPED
    attempts: int = 0
    seconds: float = 0.0
    reason: str = ""


class Jobs(Gathering):
    """The jobs, an attempt at one a step, or at several that run at once.

    Attributes:
        courses: How each has come along, by name.
        failed: Names of those that have failed as often as they may.
        running: Those that run now, by name.
    """

    terms = ()

    def __init__(self, tasks: Sequence[Task], folder: BatchFolder, crew: Crew, *, retries: int):
        self.tasks, self.folder, self.crew, self.retries = tasks, folder, crew, retries
        self.courses = {task.name: Course(task.name, task.typed) for task in tasks}
        self.failed: set[str] = set()
        self.running: dict[str, Task] = {}
        self._check: Callable[[], None] = lambda: None
        self._left: dict[str, Task] = {}
        self._lost: Counter[str] = Counter()
        self._in_use: dict[str, float] = {}  # since when, by the clock

    @property
    def facts(self) -> dict:
        """The settings."""
        return {"config": {"retries": self.retries}}

    @property
    def index(self) -> int:
        """Jobs that are finished, or have failed as often as they may."""
        return len(self.tasks) - len(self._left)

    @property
    def steps(self) -> int:
        """Jobs that there are."""
        return len(self.tasks)

    def take_back(self) -> None:
        """Take back how the jobs of an earlier call came along.

        Raises:
            ValueError: If a job of the same name was another.
        """
        self.folder.lines.mend()
        for _, line in self.folder.lines:
            course = Course(**line)
            ours = self.courses.get(course.name)
            if ours is not None and ours.words != course.words:
                raise ValueError(
                    f"job {course.name} must be the one it was, {shlex.join(course.words)}, got "
                    f"{shlex.join(ours.words)}: give it another name, or choose another --out"
                )
            if ours is not None:
                self.courses[course.name] = course

    def prepare(self, tell: Callable[[str], None] | None = None) -> None:
        """See what is left to do."""
        if tell is not None:
            self._check = lambda: tell("running jobs")
        self._left = {task.name: task for task in self.tasks if not self._was_done(task)}

    def _was_done(self, task: Task) -> bool:
        """Whether nothing is left to do for a job, as far as can be seen on the disk."""
        course = self.courses[task.name]
        if is_finished(self.folder.job(task.name)):
            if course.state != FINISHED:  # whoever waited for it was gone before it ended
                self._note(replace(course, state=FINISHED, attempts=course.attempts + 1, reason=""))
            return True
        if course.state == FAILED and course.attempts > self.retries:
            self.failed.add(task.name)
            return True
        return False

    def step(self) -> None:
        """Begin as many jobs as can run, and see one or more to where they end, fail or are stopped."""
        ended: list[tuple[str, Outcome]] = []
        while self._left and not ended:
            self._begin()
            if self._left:
                ended = self.crew.wait(self._check)
        for name, outcome in ended:
            self._end(self.running.pop(name), outcome)

    def _begin(self) -> None:
        """Begin those that come next, as far as there is who runs them."""
        for task in list(self._left.values()):
            if not self.crew.free:
                return
            if task.name in self.running or self._is_in_use(task):
                continue
            if self._was_done(task):
                del self._left[task.name]
                continue
            log = self.folder.file(f"{LOGS}/{task.name}.txt")
            place = [f"--out={self.folder.job(task.name)}", *self._going_on(task, self.courses[task.name])]
            self.running[task.name] = task
            self.crew.begin(task.name, [*task.command, *place, *task.words], log)

    def _is_in_use(self, task: Task) -> bool:
        """Whether somebody still writes to a job's folder: what runs on after who asked for it is gone."""
        place = place_of_run(self.folder.job(task.name))
        if not HeldFolder(place).is_in_use():
            return False
        if task.name not in self._in_use:
            self._in_use[task.name] = time.monotonic()
            warnings.warn(f"{place} is still written to, job {task.name} waits for that to end", stacklevel=3)
        return time.monotonic() - self._in_use[task.name] < PATIENCE  # then its command says who that is

    def _end(self, task: Task, outcome: Outcome) -> None:
        """Take note of how an attempt ended."""
        code, reason, seconds = outcome
        if code == LOST:
            self._lost[task.name] += 1
            if self._lost[task.name] <= MOST_LOST:
                warnings.warn(f"{reason}: job {task.name} is run again", stacklevel=3)
                return
        stopped = code == INTERRUPTED
        course = self.courses[task.name]
        state = STOPPED if stopped else FAILED if code else FINISHED
        course = replace(
            course,
            state=state,
            attempts=course.attempts + (not stopped),
            seconds=round(course.seconds + seconds, 3),
            reason="" if stopped else reason,
        )
        self.folder.require_there()
        self._note(course)
        # its exit code is believed: a drive that is shared may show its files to others later
        if state == FINISHED or self._was_done(task):
            del self._left[task.name]

    def _note(self, course: Course) -> None:
        self.courses[course.name] = course
        self.folder.lines.append(vars(course))

    def _going_on(self, task: Task, course: Course) -> list[str]:
        """What is typed for a job that was begun already."""
        folder = self.folder.job(task.name)
        if course.state == FAILED and "--overwrite" in course.reason and "--resume" not in course.reason:
            return ["--overwrite"]  # which its command has named as the remedy
        return ["--resume"] if any(any(place_of_run(folder).glob(name)) for name in STARTED) else []

    def state_dict(self) -> dict:
        """Nothing: every attempt is a line."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing is to be taken back; see :meth:`take_back`."""


class BatchJob(Job):
    """A batch.

    Args:
        tasks: All jobs.
        crew: Who runs them.
        folder: Claimed already.
        retries: How often a job that failed is tried again.
        shard: Which of the jobs are run.
    """

    every = 100

    def __init__(
        self,
        tasks: Sequence[Task],
        crew: Crew,
        folder: BatchFolder,
        *,
        retries: int = 0,
        shard: Shard = WHOLE,
    ):
        super().__init__(folder, facts={"seeds": [], "encoders": [], "shard": shard.word})
        own = [task for i, task in enumerate(tasks) if shard.has(i)]
        self.jobs = Jobs(own, folder, crew, retries=retries)
        self.continues = False

    def require_same(self, state: Mapping) -> None:
        """Refuse to continue another part; jobs may have been added, and may be retried more often."""
        require_same_facts({"shard": state["facts"]["shard"]}, {"shard": self.facts["shard"]})

    def load_state_dict(self, state: dict) -> None:
        """Go on from the lines that there are."""
        self.continues = True

    def prepare(self, tell: Tell) -> None:
        """Take back what there is."""
        if self.continues:
            with self.folder.as_written():
                self.jobs.take_back()
        else:
            self.folder.lines.replace([])

    def stages(self) -> Iterator[tuple[str, Jobs]]:
        """The jobs."""
        yield STAGE, self.jobs

    @property
    def courses(self) -> list[Course]:
        """How every job has come along, in order."""
        return [self.jobs.courses[task.name] for task in self.jobs.tasks]

    def record(self) -> dict:
        """What the jobs came to."""
        return {"jobs": described(self.courses)}

    def finish(self, record: dict) -> Collection[str]:
        """Write the table and the page; the lines are brought into the order of the jobs."""
        self.folder.keep_last()
        order = {task.name: i for i, task in enumerate(self.jobs.tasks)}
        lines = [line for _, line in self.folder.lines]
        self.folder.lines.replace(sorted(lines, key=lambda line: order.get(line["name"], len(order))))
        return write_pages(self.folder, record, self.courses)


def described(courses: Sequence[Course]) -> list[dict]:
    """What ``run.json`` says of jobs."""
    kept = ("name", "state", "attempts", "seconds", "reason")
    return [{name: getattr(course, name) for name in kept} for course in courses]


def write_pages(folder: BatchFolder, record: dict, courses: Sequence[Course]) -> list[str]:
    """Write the table and the page; returns the names of all files of a batch."""
    typed = [shlex.join(course.words) for course in courses]
    lines = [
        (course.name, course.state, course.attempts, course.seconds, course.reason, words)
        for course, words in zip(courses, typed)
    ]
    write_csv(folder.file(TABLE), HEAD, lines)
    pages = [place_of_run(folder.job(course.name)) / PAGE for course in courses]
    linked = [page.relative_to(folder.path).as_posix() if page.is_file() else None for page in pages]
    logs = [f"{LOGS}/{course.name}.txt" for course in courses]
    logged = [log if (folder.path / log).is_file() else None for log in logs]
    write_text(folder.file(PAGE), batch_page(record, typed, linked, logged))
    return [LINES, LAST, TABLE, PAGE]


def place_of_run(folder: Path) -> Path:
    """Where the run of a job is that has this folder: the folder, or within it that of the part it does."""
    return next(iter(shards_in(folder)), folder)


def is_finished(folder: Path) -> bool:
    """Whether a job's run is finished: its record, which is written last, is there and can be read."""
    try:
        record = read_json(place_of_run(folder) / RECORD)
    except (ValueError, OSError):
        return False
    return isinstance(record, dict) and {"command", "files"} <= record.keys()
