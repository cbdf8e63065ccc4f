"""Runs the jobs of a batch on a Ray cluster, as many at once as it has room for.

Ray decides which node a worker stands on and which GPU it has; a worker that is lost with its process or its
node is replaced, and its job runs again from its checkpoint. Nothing goes through Ray but what is typed for a
job and how it ended: what jobs make is written to the batch's folder, which all nodes must see.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..environment import versions
from . import post, worker
from .held_folder import OWNER, HeldFolder
from .worker import EVERY, LOST, Outcome

LOCAL, AUTO = "local", "auto"  # addresses: of a cluster here while the batch runs, of this node's cluster
REACHED, STARTED = 60.0, 120.0  # seconds within which a cluster must answer, and one on this machine start
STORE = 80 * 2**20  # bytes of Ray's store of objects, in which nothing is put; about the least that it takes
MOST_FAILED = 3  # workers in a row that may be lost before they ran a job
SILENT = 30.0  # seconds without a worker, until that is said
ENDING = 10.0  # seconds that workers have to end


class Needs(NamedTuple):
    """What a worker is given by Ray.

    Attributes:
        cpus: Cores, and as many threads.
        gpus: A share of one or a number of them; None for one where the cluster has any, else none.
        workers: How many there are; None for as many as there is room for.
    """

    cpus: int = 1
    gpus: float | None = None
    workers: int | None = None


def prepare() -> None:
    """Import Ray, whose settings are read then.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody unasked
    os.environ.setdefault("RAY_raylet_start_wait_time_s", f"{STARTED:.0f}")
    import ray  # noqa: F401


class RayCrew:
    """Workers on a cluster.

    Args:
        hire: Makes an actor of :class:`geokernels.runs.post.Post`.
        count: How many.
        seen: What each must agree to have, see :meth:`geokernels.runs.post.Post.refusal`.
    """

    def __init__(self, hire: Callable[[], Any], count: int, seen: Sequence):
        self._hire_one, self._seen = hire, seen
        self._hired: dict[Any, Any] = {}  # actors that have not said yet whether they can be used
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[str, Any]] = {}
        self._lost, self._served = 0, time.monotonic()
        for _ in range(count):
            self._hire()

    @property
    def free(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle)

    def begin(self, name: str, words: Sequence[str], log: Path) -> None:
        """Have a worker run a job."""
        actor = self._idle.pop()
        self._running[actor.run.remote(list(words), str(log))] = name, actor

    def wait(self, check: Callable[[], None]) -> list[tuple[str, Outcome]]:
        """Wait a moment, or for the end of a job.

        Raises:
            ValueError: If a worker cannot be used, with the reason.
        """
        try:
            check()
        except KeyboardInterrupt:
            if not self._running:
                raise
            return self._stopped()
        self._say_silence()
        return self._ended([*self._running, *self._hired])

    def close(self) -> None:
        """End every worker; what runs is killed."""
        import ray

        actors = [*self._idle, *(actor for _, actor in self._running.values())]
        ends = [actor.end.remote() for actor in actors]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=ENDING)
        for actor in [*actors, *self._hired.values()]:
            ray.kill(actor)
        self._idle, self._running, self._hired = [], {}, {}

    def _hire(self) -> None:
        actor = self._hire_one()
        self._hired[actor.refusal.remote(*self._seen)] = actor

    def _stopped(self) -> list[tuple[str, Outcome]]:
        """Have all that runs stop after its step; how it ended."""
        for _, actor in self._running.values():
            actor.stop.remote()
        ended = []
        while self._running:
            ended += self._ended([*self._running])
        return ended

    def _ended(self, waited: list) -> list[tuple[str, Outcome]]:
        """How those jobs ended that did; what is heard from new workers is taken note of."""
        import ray

        if not waited:
            time.sleep(EVERY)
            return []
        found = []
        for ref in ray.wait(waited, num_returns=1, timeout=EVERY)[0]:
            if ref in self._hired:
                self._take(ref)
            else:
                found.append(self._outcome(ref))
        return found

    def _outcome(self, ref) -> tuple[str, Outcome]:
        import ray

        name, actor = self._running.pop(ref)
        try:
            outcome = Outcome(*ray.get(ref))
        except _losses() as error:
            self._replace(actor)
            return name, Outcome(LOST, f"a worker was lost ({_reason(error)})", 0.0)
        self._idle.append(actor)
        return name, outcome

    def _take(self, ref) -> None:
        """Use a worker that was hired, or another in its place."""
        import ray

        actor = self._hired.pop(ref)
        try:
            refusal = ray.get(ref)
        except _losses() as error:
            self._lost += 1
            if self._lost > MOST_FAILED:
                raise ValueError(
                    f"--ray must name a cluster that can start workers: {_reason(error)}"
                ) from error
            self._replace(actor)
            return
        if refusal is not None:
            ray.kill(actor)
            raise ValueError(refusal)
        self._lost = 0
        self._idle.append(actor)

    def _replace(self, actor) -> None:
        import ray

        with suppress(Exception):  # it may only have been out of reach
            ray.kill(actor)
        self._hire()

    def _say_silence(self) -> None:
        """Say, once, that no worker could be started for a while."""
        if self._idle or self._running:
            self._served = time.monotonic()
        elif time.monotonic() - self._served > SILENT:
            self._served = float("inf")
            warnings.warn("the cluster has had no room for a worker, which is waited for", stacklevel=4)


@contextmanager
def crew_on(
    address: str,
    needs: Needs,
    *,
    arguments: Sequence[str],
    without: Sequence[str],
    out: HeldFolder,
    jobs: int,
) -> Iterator[RayCrew]:
    """Workers on a cluster, for as long as this is entered.

    Args:
        address: ``HOST:PORT`` of the cluster's head, :data:`AUTO`, or :data:`LOCAL`.
        needs: What each is given.
        arguments: What Python is started with for the process that runs jobs.
        without: Variables of the environment that it does not get.
        out: The batch's folder, held.
        jobs: How many there are: no more workers than that are of use.

    Raises:
        ValueError: If the cluster does not answer, or has no room for a worker.
    """
    import ray

    with _connected(address):
        gpus, count = _room(address, needs)
        ray.cloudpickle.register_pickle_by_value(worker)
        ray.cloudpickle.register_pickle_by_value(post)
        kind = ray.remote(post.Post).options(num_cpus=needs.cpus, num_gpus=gpus, max_concurrency=2)
        installed = {name: version for name, version in versions(("torch",)).items() if name != "python"}
        seen = (OWNER, (out.path / OWNER).read_text(encoding="utf-8"))
        how = (list(arguments), list(without), os.getcwd(), needs.cpus, gpus > 0)
        crew = RayCrew(lambda: kind.remote(*how), min(count, jobs), (str(out.path), seen, installed))
        try:
            yield crew
        finally:
            crew.close()


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """While this is entered, this process belongs to a cluster."""
    import ray

    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
    try:
        if address == LOCAL:
            quiet |= {"include_dashboard": False, "object_store_memory": STORE}
        else:
            _require_reached(address)
        try:
            ray.init(address, **quiet)
        except Exception as error:  # Ray has no kind of its own for it
            raise ValueError(f"--ray {address} cannot be used: {_reason(error)}") from error
        if main:
            signal.signal(signal.SIGTERM, before)
        yield
    finally:
        ray.shutdown()
        if main:
            signal.signal(signal.SIGTERM, before)


def _require_reached(address: str) -> None:
    """Refuse a cluster that does not answer: Ray would try for a quarter of an hour, or end this process.

    Raises:
        ValueError: Names the address.
    """
    said = f"--ray must be the address of a cluster that this machine is a node of, {address}"
    if address != AUTO:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=REACHED).close()
        except OSError as error:
            raise ValueError(f"{said} cannot be reached: {error.strerror or error}") from error
    trial = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='CRITICAL')"
    try:
        found = subprocess.run(
            [sys.executable, "-P", "-c", trial, address], capture_output=True, text=True, timeout=REACHED
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{said} did not answer within {REACHED:.0f} seconds") from error
    if found.returncode:
        lines = [line.strip() for line in found.stderr.splitlines() if line.strip()]
        raise ValueError(f"{said} cannot be used: {lines[-1] if lines else 'no reason was given'}")


def _room(address: str, needs: Needs) -> tuple[float, int]:
    """GPUs of a worker, and how many workers there are.

    Raises:
        ValueError: If there is room for none, and no number of them was asked for.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = needs.gpus
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    if needs.workers is not None:
        return gpus, needs.workers
    fits = [int(node.get("CPU", 0) // needs.cpus) for node in nodes]
    if gpus:
        fits = [min(fit, int(node.get("GPU", 0) / gpus + 1e-6)) for fit, node in zip(fits, nodes)]
    if not sum(fits):
        each = f"{needs.cpus} CPU" + (f" and {gpus:g} GPU" if gpus else "")
        raise ValueError(
            f"--ray must name a cluster with room for a worker, of {each} each; {address} has none: change "
            "--ray-cpus or --ray-gpus, or give --ray-workers, which are waited for"
        )
    return gpus, sum(fits)


def _losses() -> tuple[type[Exception], ...]:
    """What Ray raises where who should answer is gone."""
    from ray import exceptions

    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
    )


def _reason(error: Exception) -> str:
    """The first line of what Ray says, of which there may be a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
