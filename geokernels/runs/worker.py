"""A process of its own that runs one job after another, so that models stay loaded, and a crash is one job's.

It is sent a line of JSON for each job and answers with one; whatever a job prints goes to its log. Signals of
a terminal do not reach it: whoever asks for its work decides.
"""

import json
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

INTERRUPTED, CRASHED = 130, -1
PROGRESS, PREVIEW = "progress.json", "preview.png"  # in the folder of whoever watches
EVERY = 0.1  # seconds between two looks at whether it shall be stopped


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        code: Of the exit; :data:`CRASHED` where the process ended under it.
        reason: Why it failed, in a sentence; "" where it did not.
        seconds: That it took.
    """

    code: int
    reason: str
    seconds: float


class Worker:
    """The process, which is started when it is needed, and again after a crash.

    Args:
        command: What to start.
        environment: Of the process.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
        self.command, self.environment = list(command), dict(environment)
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
                self.command, env=self.environment, start_new_session=True, **pipes
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


def without(environment: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """An environment without some variables."""
    return {name: value for name, value in environment.items() if name not in names}
