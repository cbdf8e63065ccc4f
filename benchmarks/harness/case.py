"""What a benchmark is: a piece of work, who does it, how wrong it may be, and what is asked of ours."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

TABLE, MORE, ERROR, POINTS, FEATURES, BATCH, THREADS, MEMORY = (
    "table",
    "more",
    "error",
    "n",
    "d",
    "batch",
    "threads",
    "memory",
)


@dataclass(frozen=True)
class Work:
    """The least that must be done, whoever does it.

    Attributes:
        flops: Additions and multiplications, float32.
        exps: Exponentials.
        bytes: What must cross memory once: the inputs read, the outputs written.
    """

    flops: float = 0
    exps: float = 0
    bytes: float = 0


@dataclass(frozen=True)
class Rival:
    """Somebody else's way to do it.

    Attributes:
        run: From the inputs of the case to a result; with ``settings``, one of them comes last.
        needs: Modules that must be importable.
        settings: Stopping rules from the loosest to the strictest. Libraries stop on different quantities, so
            the one that is timed is the loosest whose error, as we measure it, is small enough.
    """

    run: Callable
    needs: tuple[str, ...] = ()
    settings: tuple = ()

    def missing(self) -> str | None:
        """Which module is not installed."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), None)


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes:
        name: What is computed, with the sizes.
        reason: Where the sizes come from.
        make: Returns the positional arguments of every contender; called once, outside the timer.
        ours: Our implementations, by name; the first is the one the ratio is formed with.
        rivals: Other people's, by name.
        error: From a contender's result and the inputs to the error that must be equal among contenders.
        allowed: Largest error with which a contender is timed at all.
        work: From the inputs to the least work; None where it is not counted.
        targets: What is asked of ours, by quantity: see :func:`benchmarks.harness.rows.verdicts`.
        threads: Threads of torch, or None for all.
        series: Where the page shows it: ``TABLE``, one of the curves, or ``MORE`` among its rows alone.
        curve: Which curve of the series.
        at: Where on the curve: a tolerance, a size, a number of threads.
        seconds: How long to go on timing.
        patience: Most seconds of one call; a contender that needs more is not timed.
        device: Where it runs; on ``"cuda"`` the clock is the GPU's own.
    """

    name: str
    reason: str
    make: Callable[[], tuple]
    ours: dict[str, Callable]
    rivals: dict[str, Callable | Rival]
    error: Callable[[object, tuple], float]
    allowed: float
    work: Callable[[tuple], Work] | None = None
    targets: dict[str, float] = field(default_factory=dict)
    threads: int | None = None
    series: str = TABLE
    curve: str = ""
    at: float | None = None
    seconds: float = 6.0
    patience: float = 20.0
    device: str = "cpu"

    def contenders(self, *, rivals: bool) -> dict[tuple[str, str], Rival]:
        """Everybody by side ("ours" or "rival") and name."""
        everybody = {("ours", name): Rival(run) for name, run in self.ours.items()}
        if rivals:
            for name, rival in self.rivals.items():
                everybody["rival", name] = rival if isinstance(rival, Rival) else Rival(rival)
        return everybody
