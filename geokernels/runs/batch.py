"""Runs many jobs, each a command in a folder of its own, and loses none of them however it ends.

What came of a job is on the disk: its ``run.json`` says that it is finished, its checkpoint that it goes on.
The lines of a batch say besides what failed, why, and how often.
"""

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from .._files import read_json, write_csv, write_text
from ..pipelines.run_state import require_same_facts
from ..report.batch import batch_page
from .folder import RECORD
from .growing import GrowingFolder
from .loop import Gathering, Job, Tell
from .shards import WHOLE, Shard
from .worker import INTERRUPTED, Worker

STAGE = "jobs"
LINES, LAST, TABLE, PAGE = "batch.jsonl", "batch.json", "jobs.csv", "report.html"
JOBS, LOGS = "jobs", "logs"  # folders of what jobs leave, and of what they print
FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"
STARTED = ("checkpoint.pt", "*.partial.json")  # names of what a job goes on from
HEAD = ("name", "state", "attempts", "seconds", "reason", "command")


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
    """The jobs, an attempt at one a step."""

    terms = ()

    def __init__(self, tasks: Sequence[Task], folder: BatchFolder, worker: Worker, *, retries: int):
        self.tasks, self.folder, self.worker, self.retries = tasks, folder, worker, retries
        self.courses = {task.name: Course(task.name, task.typed) for task in tasks}
        self._check: Callable[[], None] = lambda: None
        self._left: list[Task] = []

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
        self._left = [task for task in self.tasks if not self._is_done(task)]

    def _is_done(self, task: Task) -> bool:
        course = self.courses[task.name]
        if is_finished(self.folder.job(task.name)):
            self.courses[task.name] = replace(course, state=FINISHED, reason="")
            return True
        return course.state == FAILED and course.attempts > self.retries

    def step(self) -> None:
        """Run the next job, to its end, until it fails, or until the batch is asked to stop."""
        task = self._left[0]
        course = self.courses[task.name]
        log = self.folder.file(f"{LOGS}/{task.name}.txt")
        place = [f"--out={self.folder.job(task.name)}", *self._going_on(task, course)]
        words = [*task.command, *place, *task.words]
        code, reason, seconds = self.worker.run(words, log, self._check)
        stopped = code == INTERRUPTED
        state = STOPPED if stopped else FAILED if code else FINISHED
        course = replace(
            course,
            state=state,
            attempts=course.attempts + (not stopped),
            seconds=round(course.seconds + seconds, 3),
            reason="" if stopped else reason,
        )
        self.courses[task.name] = course
        self.folder.require_there()
        self.folder.lines.append(vars(course))
        if self._is_done(task):
            self._left.pop(0)

    def _going_on(self, task: Task, course: Course) -> list[str]:
        """What is typed for a job that was begun already."""
        folder = self.folder.job(task.name)
        if course.state == FAILED and "--overwrite" in course.reason and "--resume" not in course.reason:
            return ["--overwrite"]  # which its command has named as the remedy
        return ["--resume"] if any(any(folder.glob(name)) for name in STARTED) else []

    def state_dict(self) -> dict:
        """Nothing: every attempt is a line."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing is to be taken back; see :meth:`take_back`."""


class BatchJob(Job):
    """A batch.

    Args:
        tasks: All jobs.
        worker: That runs them.
        folder: Claimed already.
        retries: How often a job that failed is tried again.
        shard: Which of the jobs are run.
    """

    every = 100

    def __init__(
        self,
        tasks: Sequence[Task],
        worker: Worker,
        folder: BatchFolder,
        *,
        retries: int = 0,
        shard: Shard = WHOLE,
    ):
        super().__init__(folder, facts={"seeds": [], "encoders": [], "shard": shard.word})
        own = [task for i, task in enumerate(tasks) if shard.has(i)]
        self.jobs = Jobs(own, folder, worker, retries=retries)
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
        """Write the table and the page."""
        self.folder.keep_last()
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
    pages = [f"{JOBS}/{course.name}/{PAGE}" for course in courses]
    linked = [page if (folder.path / page).is_file() else None for page in pages]
    logs = [f"{LOGS}/{course.name}.txt" for course in courses]
    logged = [log if (folder.path / log).is_file() else None for log in logs]
    write_text(folder.file(PAGE), batch_page(record, typed, linked, logged))
    return [LINES, LAST, TABLE, PAGE]


def is_finished(folder: Path) -> bool:
    """Whether a job's run is finished: its record, which is written last, is there and can be read."""
    try:
        record = read_json(folder / RECORD)
    except (ValueError, OSError):
        return False
    return isinstance(record, dict) and {"command", "files"} <= record.keys()
