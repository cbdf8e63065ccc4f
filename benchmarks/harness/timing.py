"""Timing that can be believed: correct first, contenders in turn, and a canary for a disturbed machine."""

import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from .case import Case, Rival, Work
from .machine import Peaks, threads

ROUNDS, FEWEST = 15, 3
SECONDS_PER_SAMPLE = 0.05
FIRST_CALL = 30.0  # seconds; torch.compile, XLA and KeOps compile in it


class OverTimeError(Exception):
    """A call took longer than it may."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise :class:`OverTimeError` inside when the time is up, as soon as Python has its say."""

    def stop(signum, frame):
        raise OverTimeError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Canary:
    """A fixed product: its time tells whether others are at work on the machine, or on its GPU."""

    def __init__(self, device: str = "cpu"):
        size = 384 if device == "cpu" else 4096
        self._a, self._threads = torch.ones(size, size, device=device), torch.get_num_threads()
        self._device = device
        self._sung: list[float] = []

    def sing(self) -> None:
        """Time the product, on the same threads whatever the case runs on."""
        with threads(self._threads):
            self._sung.append(min(sample(lambda: self._a @ self._a, 1, self._device) for _ in range(3)))

    def heard(self) -> dict:
        """The best time and the upper quarter since the last call; :func:`results.judged` compares them."""
        sung = sorted(self._sung)
        self._sung.clear()
        return {"canary_best_s": sung[0], "canary_upper_s": sung[3 * len(sung) // 4]}


def sample(run: Callable[[], object], repeats: int, device: str = "cpu") -> float:
    """Seconds a call, over so many calls; on the GPU from the start of the first to the end of the last."""
    if device != "cpu":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def admit(case: Case, rival: Rival, inputs: tuple) -> tuple[Callable[[], object] | None, dict, float]:
    """Let a contender show that it is right, with the loosest setting that is.

    Returns:
        The call to time, or None; facts for its row: the setting, its error, or ``why`` there is no time; and
        the seconds of a call, now that whatever compiles has compiled.
    """
    if absent := rival.missing():
        return None, {"why": f"not installed: {absent}"}, 0.0
    facts, patience = {}, FIRST_CALL
    for setting in rival.settings or (None,):
        run = partial(rival.run, *inputs, *([setting] if rival.settings else []))
        try:
            with limit(patience):
                result = run()
            patience = case.patience
            facts = {"setting": setting, "error": case.error(result, inputs)}
            if facts["error"] <= case.allowed:
                with limit(patience):
                    return run, facts, sample(run, 1, case.device)
        except OverTimeError:
            return None, facts | {"why": f"over {patience:g} s a call"}, 0.0
        except Exception as error:
            sentence = (str(error).splitlines() or [""])[0]
            return None, facts | {"why": f"{type(error).__name__}: {sentence}"}, 0.0
    return None, facts | {"why": f"error above {case.allowed:.1e}"}, 0.0


def take_rounds(
    case: Case, runs: dict[tuple, Callable[[], object]], calls: dict[tuple, float], canary: Canary
) -> dict[tuple, list[float]]:
    """Time everybody in turn, round after round, until the case's time is up.

    A contender that has used its share of the time sits out, but for a few rounds; of one so slow that even
    these would be too many, the one call that is known stands alone.

    Args:
        case: Whose ``seconds`` to keep to.
        runs: The calls.
        calls: About how long each takes.
        canary: Sings after each round.

    Returns:
        Seconds a call, of every round.
    """
    times = {key: [call] if call > case.seconds / FEWEST else [] for key, call in calls.items()}
    repeats = {key: max(1, int(SECONDS_PER_SAMPLE / call)) for key, call in calls.items()}
    repeats |= {
        key: max(1, int(SECONDS_PER_SAMPLE / sample(runs[key], n, case.device)))
        for key, n in repeats.items()
        if n > 1
    }
    share, turning = case.seconds / max(1, len(runs)), [key for key in runs if not times[key]]
    for turn in range(ROUNDS):
        for key in turning:
            if turn < FEWEST or sum(times[key]) * repeats[key] < share:
                times[key].append(sample(runs[key], repeats[key], case.device))
        canary.sing()
    return times


def spread(seconds: list[float]) -> dict:
    """The median, the quarters, the ends, and of how many."""
    q1, _, q3 = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {
        "median_s": statistics.median(seconds),
        "q1_s": q1,
        "q3_s": q3,
        "min_s": min(seconds),
        "max_s": max(seconds),
        "rounds": len(seconds),
    }


def measure(case: Case, *, canary: Canary, peaks: Peaks | None = None, rivals: bool = True) -> list[dict]:
    """Time every contender of a case that is right.

    Args:
        case: What to measure.
        canary: Listens for a disturbed machine.
        peaks: What the machine can do with the case's threads, for the floor.
        rivals: Whether to time the others as well.

    Returns:
        A row per contender: seconds, error, floor and canaries, or why there is no time.
    """
    with threads(case.threads):
        inputs = case.make()
        work = case.work(inputs) if case.work and peaks else None
        facts, runs, calls = {}, {}, {}
        for key, contender in case.contenders(rivals=rivals).items():
            run, facts[key], call = admit(case, contender, inputs)
            if run:
                runs[key], calls[key] = run, call
        canary.sing()
        times = take_rounds(case, runs, calls, canary)
    shared = {
        "case": case.name,
        "reason": case.reason,
        "series": case.series,
        "curve": case.curve,
        "at": case.at,
        "allowed": case.allowed,
        "targets": case.targets,
    } | canary.heard()
    rows = []
    for (side, name), known in facts.items():
        row = shared | {"side": side, "name": name} | known
        if seconds := times.get((side, name)):
            row |= spread(seconds)
            row |= against_floor(row["median_s"], work, peaks)
        rows.append(row)
    return rows


def against_floor(seconds: float, work: Work | None, peaks: Peaks | None) -> dict:
    """Rates achieved, and how far above the least possible time."""
    if work is None:
        return {}
    floor = peaks.floor(work)
    return {
        "gflops": work.flops / seconds / 1e9,
        "gexps": work.exps / seconds / 1e9,
        "gbytes": work.bytes / seconds / 1e9,
        "floor_s": floor,
        "over_floor": seconds / floor,
    }
