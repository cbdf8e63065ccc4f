"""A process of its own that runs one job after another, so that models stay loaded, and a crash is one job's.

It is sent a line of JSON for each job and answers with one; whatever a job prints goes to its log. Signals of
a terminal do not reach it: whoever asks for its work decides. Nothing of geokernels is imported here, so that
what starts such a process on another machine stays small.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

INTERRUPTED, CRASHED, LOST = 130, -1, -2
PROGRESS, PREVIEW = "progress.json", "preview.png"  # in the folder of whoever watches
EVERY = 0.1  # seconds between two looks at whether it shall be stopped


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        code: Of the exit; :data:`CRASHED` where the process ended under it, :data:`LOST` where nobody knows
            how it ended, because who ran it is gone.
        reason: Why it failed, in a sentence; "" where it did not.
        seconds: That it took.
    """

    code: int
    reason: str
    seconds: float


class Crew(Protocol):
    """Who runs jobs: one after the other, or several at once."""

    @property
    def free(self) -> bool:
        """Whether a job may be begun now."""

    def begin(self, name: str, words: Sequence[str], log: Path) -> None:
        """Begin a job; see :meth:`Worker.run`."""

    def wait(self, check: Callable[[], None]) -> list[tuple[str, Outcome]]:
        """Wait a moment, or for the end of a job; returns how those ended that did.

        Args:
            check: See :meth:`Worker.run`; all that runs is stopped, and is among what is returned.

        Raises:
            KeyboardInterrupt: As ``check`` raises it, if nothing ran.
        """


class Worker:
    """The process, which is started when it is needed, and again after a crash.

    Args:
        command: What to start.
        environment: Of the process.
        folder: That it works in; None for the one that this process works in.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: str | Path | None = None
    ):
        self.command, self.environment, self.folder = list(command), dict(environment), folder
        self.process: subprocess.Popen | None = None

    def run(
        self, words: Sequence[str], log: Path, check: Callable[[], None], watch: Path | None = None
    ) -> Outcome:
        """Run a job.

        Args:
            words: What is typed for it.
            log: What it prints is written there, behind what is there.
            check: Called now and then; a KeyboardInterrupt that it raises has the job stop after its step,
                and the outcome says so. A second one ends the process.
            watch: A folder in which the process keeps how far it has come; see :mod:`geokernels.cli.watched`.
        """
        start = time.monotonic()
        asked = {"words": list(words), "log": str(log), **({} if watch is None else {"watch": str(watch)})}
        process = self._started()
        try:
            try:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                return self._crashed(start)
            stopped = False
            while not select.select([process.stdout], [], [], EVERY)[0]:
                try:
                    if not stopped:
                        check()
                except KeyboardInterrupt:
                    stopped = True
                    process.send_signal(signal.SIGINT)
        except BaseException:
            process.kill()
            self.close()
            raise
        answer = process.stdout.readline()
        if not answer.endswith("\n"):
            return self._crashed(start, stopped=stopped)
        said = json.loads(answer)
        if said["ends"]:
            self.close()
        code, reason = said["code"], said["reason"]
        if code == INTERRUPTED and not stopped:
            code, reason = CRASHED, "it was stopped by a signal that did not come from the batch"
        return Outcome(INTERRUPTED if stopped and code else code, reason, time.monotonic() - start)

    def close(self) -> None:
        """Let it end; whoever has a worker closes it."""
        if self.process is not None:
            with suppress(OSError):  # what could not be sent to a process that is no more
                self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def _started(self) -> subprocess.Popen:
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.folder, start_new_session=True, **pipes
            )
        return self.process

    def _crashed(self, start: float, *, stopped: bool = False) -> Outcome:
        process = self.process
        self.close()
        code = process.returncode
        reason = f"its process ended with exit code {code}"
        if code < 0:
            with suppress(ValueError):  # a number that has no name
                reason = f"its process was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                reason += ", as when memory runs out"
        return Outcome(INTERRUPTED if stopped else CRASHED, reason, time.monotonic() - start)


class Alone:
    """One worker, which runs one job after the other."""

    def __init__(self, worker: Worker):
        self.worker = worker
        self._next: tuple[str, Sequence[str], Path] | None = None

    @property
    def free(self) -> bool:
        """Whether no job was begun."""
        return self._next is None

    def begin(self, name: str, words: Sequence[str], log: Path) -> None:
        """Begin a job, which is run by :meth:`wait`."""
        self._next = name, words, log

    def wait(self, check: Callable[[], None]) -> list[tuple[str, Outcome]]:
        """Run the job that was begun."""
        if self._next is None:
            check()
            time.sleep(EVERY)
            return []
        (name, words, log), self._next = self._next, None
        return [(name, self.worker.run(words, log, check))]

    def close(self) -> None:
        """Let the worker end."""
        self.worker.close()


def worker_here(
    arguments: Sequence[str], *, without: Sequence[str], folder: str | Path | None = None, **variables: str
) -> Worker:
    """A worker of this machine's Python, which finds the geokernels that is installed here.

    Args:
        arguments: Of the interpreter.
        without: Variables of this process's environment that it does not get.
        folder: That it works in.
        **variables: That it gets besides.
    """
    environment = {name: value for name, value in os.environ.items() if name not in without}
    paths = [str(package_root()), *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), **variables}
    return Worker([sys.executable, *arguments], environment, folder)


def package_root() -> Path:
    """The folder that geokernels is imported from.

    Raises:
        ModuleNotFoundError: If it is not installed here.
    """
    found = find_spec("geokernels")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'geokernels'", name="geokernels")
    return Path(found.origin).parents[1]
