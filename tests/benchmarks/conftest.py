"""A case that costs nothing, and rows without measuring."""

import pytest
import torch

from benchmarks.harness import case as cases
from benchmarks.harness.case import Case, Rival, Work


def double(x):
    return 2 * x


def error(result, inputs):
    return (result - 2 * inputs[0]).abs().max().item()


@pytest.fixture
def doubling():
    """Make a case of doubling eight numbers, with whatever is to differ."""

    def make(**different) -> Case:
        settings = {
            "name": "doubling",
            "reason": "nothing is cheaper",
            "make": lambda: (torch.arange(8.0),),
            "ours": {"native": double},
            "rivals": {"adding": Rival(lambda x: x + x)},
            "error": error,
            "allowed": 1e-6,
            "work": lambda inputs: Work(flops=8, bytes=64),
            "targets": {"ratio": 0.01},
            "seconds": 0.2,
        }
        return Case(**settings | different)

    return make


MACHINE = {"processor": "a test", "threads": 2, "torch": "2", "simd": "avx2", "commit": "c0ffee" * 7}


def row(case: str, side: str, name: str, median: float | None = None, **more) -> dict:
    found = {
        "case": case,
        "side": side,
        "name": name,
        "reason": "because",
        "series": cases.TABLE,
        "curve": "",
    }
    found |= {"at": None, "targets": {"ratio": 2}, "quiet": True, "rivals": True, "on_threads": 2} | MACHINE
    if median is not None:
        found |= {"median_s": median, "q1_s": 0.9 * median, "q3_s": 1.1 * median, "error": 1e-5}
        found |= {"min_s": median, "max_s": median, "rounds": 3, "gflops": 1.0, "floor_s": 1e-4}
        found |= {"over_floor": median / 1e-4}
    return found | more


@pytest.fixture
def found():
    """A results file's contents: a win, a loss, a wrong rival, memory, and one point of each curve."""
    rows = [
        row("won", "ours", "native", 1e-3),
        row("won", "rival", "eager", 5e-3),
        row("won", "rival", "POT", why="not installed: ot"),
        row("lost", "ours", "native", 2e-3),
        row("lost", "rival", "scipy", 1e-3),
        row("lost", "rival", "hasty", why="error above 1.0e-04", error=0.3),
        row("memory", "ours", "native", series=cases.MEMORY, megabytes=50.0, targets={"megabytes": 200}),
    ]
    for series in (cases.ERROR, cases.POINTS, cases.FEATURES, cases.BATCH):
        for at in (1, 10):
            place = {"series": series, "curve": "a curve", "at": at}
            rows.append(row(f"{series} {at}", "ours", "native", 1e-3 * at, **place))
            rows.append(row(f"{series} {at}", "rival", "eager", 2e-3 * at, **place))
    place = {"series": cases.THREADS, "curve": "a curve", "at": 2}
    rows += [
        row("threads", "ours", "2 threads", 1e-3, **place),
        row("threads", "rival", "one thread", 1.9e-3, **place),
    ]
    peaks = [{"threads": 2, "flops": 1e11, "exps": 1e9, "copies": {"1048576": 1e10}}]
    return {"machine": MACHINE, "versions": {"torch": "2.11.0", "lapx": None}, "peaks": peaks, "rows": rows}
