"""Timing that can be believed: correct first, contenders in turn, and a canary for a disturbed machine."""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from geokernels.kernels import native

ROUNDS = 15
SECONDS_PER_SAMPLE = 0.05
CANARY_TOLERANCE = 1.5  # a fixed product that took this much longer afterwards than before was disturbed


@dataclass(frozen=True)
class Case:
    """One piece of work, who does it, and how wrong a result may be.

    Attributes:
        name: What is computed, with the sizes.
        reason: Where the sizes come from.
        make: Returns the positional arguments of every contender; called once, outside the timer.
        ours: Our implementations, by name; the first is the one the ratio is formed with.
        rivals: Other people's, by name.
        error: From a contender's output and the arguments to the error that must be equal among contenders.
        allowed: Largest error with which a contender is timed at all.
        flops: Least floating-point operations of the work, for the achieved rate; 0 when not counted.
        rounds: How often every contender is timed; fewer for what takes seconds.
    """

    name: str
    reason: str
    make: Callable[[], tuple]
    ours: dict[str, Callable]
    rivals: dict[str, Callable]
    error: Callable[[object, tuple], float]
    allowed: float
    flops: float = 0
    rounds: int = ROUNDS


def _sample(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _canary() -> float:
    a = torch.ones(384, 384)
    return min(_sample(lambda: a @ a, 5) for _ in range(5))


def measure(case: Case) -> list[dict]:
    """Time every contender of a case in turn, round after round.

    Returns:
        A row per contender: seconds (median, smallest, largest), error, and whether the machine was quiet.
        A contender whose error exceeds ``case.allowed`` gets no time.
    """
    inputs = case.make()
    contenders = {("ours", n): f for n, f in case.ours.items()} | {
        ("rival", n): f for n, f in case.rivals.items()
    }
    errors = {key: case.error(f(*inputs), inputs) for key, f in contenders.items()}
    sound = {key: f for key, f in contenders.items() if errors[key] <= case.allowed}
    repeats = {
        key: max(1, int(SECONDS_PER_SAMPLE / _sample(lambda f=f: f(*inputs), 2))) for key, f in sound.items()
    }
    before = _canary()
    times: dict[tuple, list[float]] = {key: [] for key in sound}
    for _ in range(case.rounds):
        for key, f in sound.items():
            times[key].append(_sample(lambda f=f: f(*inputs), repeats[key]))
    quiet = _canary() < CANARY_TOLERANCE * before
    rows = []
    for (side, name), _ in contenders.items():
        row = {"case": case.name, "reason": case.reason, "side": side, "name": name}
        row |= {"error": errors[side, name], "allowed": case.allowed, "quiet": quiet}
        if seconds := times.get((side, name)):
            row |= {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}
            row |= {"gflops": case.flops / row["median_s"] / 1e9 if case.flops else None}
        rows.append(row)
    return rows


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def machine() -> dict:
    """What the figures were measured on: processor, threads, versions, commit."""
    changes = " with changes" if _git("status", "--porcelain", "-uno") else ""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "simd": native.build_info().get("simd"),
        "commit": _git("rev-parse", "HEAD") + changes,
    }
