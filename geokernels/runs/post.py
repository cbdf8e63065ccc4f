"""What stands on each node of a cluster: a process for jobs, the same that a batch has on one machine.

Ray sends this class to its nodes; geokernels itself is imported by the process for jobs alone.
"""

import platform
import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from .worker import worker_here


class Post:
    """An actor of Ray's: runs one job after another, and can be told meanwhile to stop.

    Args:
        arguments: What Python is started with for the process that runs jobs.
        without: Variables of the environment that it does not get.
        folder: That jobs run in: relative paths are seen from there.
        threads: Of the processor, that a job may use.
        gpus: Whether it has a GPU; of those that Ray gave to this actor.
    """

    def __init__(
        self, arguments: Sequence[str], without: Sequence[str], folder: str, threads: int, gpus: bool
    ):
        self._folder, self._stopping = folder, threading.Event()
        hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
        self._how = {"arguments": arguments, "without": without, "folder": folder}
        self._how |= {"OMP_NUM_THREADS": str(threads), **hidden}
        self._worker = None

    def refusal(self, out: str, seen: tuple[str, str], versions: Mapping[str, str | None]) -> str | None:
        """Why no job of a batch can be run here; None if it can.

        Args:
            out: The batch's folder.
            seen: The name of a file in it, and what that says.
            versions: Of packages, which must be the same here.
        """
        node = platform.node()
        try:
            self._worker = worker_here(**self._how)
        except ModuleNotFoundError:
            return f"--ray must name a cluster whose nodes have geokernels installed, {node} has not"
        for name, version in versions.items():
            found = _version(name)
            if found != version:
                return f"every node must have {name} {version} as this machine has, {node} has {found}"
        place, (name, text) = Path(self._folder, out), seen
        if not Path(self._folder).is_dir():
            return (
                f"every node must have the folder that the batch is called in, {node} has no {self._folder}"
            )
        try:
            same = (place / name).read_text(encoding="utf-8") == text
        except (OSError, ValueError):
            same = False
        if not same:
            return f"--out must be on a drive that all nodes share, {node} does not see what is in {place}"
        return None

    def run(self, words: Sequence[str], log: str) -> tuple[int, str, float]:
        """Run a job; returns an :class:`geokernels.runs.worker.Outcome` as a plain tuple."""

        def check() -> None:
            if self._stopping.is_set():
                raise KeyboardInterrupt

        return tuple(self._worker.run(words, Path(log), check))

    def stop(self) -> None:
        """Have the job that runs stop after its step."""
        self._stopping.set()

    def end(self) -> None:
        """End the process; a job that still runs is killed."""
        if self._worker is not None and (process := self._worker.process) is not None:
            process.kill()
            process.wait()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
