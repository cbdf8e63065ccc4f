"""How sure a measured share or mean is."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A share with the bounds that chance allows it, all in [0, 1].

    Attributes:
        share: The share itself.
        low: Its lower bound.
        high: Its upper bound.
    """

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class MeanInterval(NamedTuple):
    """A mean, and how far chance may have moved it.

    Attributes:
        mean: The mean.
        half: Half the width of its interval.
    """

    mean: float
    half: float

    @property
    def low(self) -> float:
        """The lower bound."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper bound."""
        return self.mean + self.half


def mean_interval(values: Sequence[float], *, z: float = 1.96) -> MeanInterval:
    """Mean of independent ``values`` with ``z`` standard errors either way; 95% by default, 0 for one value.

    Raises:
        ValueError: If there is no value.

    Example:
        >>> mean, half = mean_interval([1.0, 2.0, 3.0])
        >>> print(f"{mean:.2f} ± {half:.2f}")
        2.00 ± 1.13
    """
    if not values:
        raise ValueError("values must hold at least one number, got none")
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return MeanInterval(statistics.fmean(values), z * error)


def wilson_interval(hits: int, trials: int, *, z: float = 1.959964) -> Interval:
    """Wilson's score interval for ``hits`` out of ``trials``; 95% by default.

    Args:
        hits: How many of the trials succeeded.
        trials: How many there were.
        z: Half-width of the interval in standard deviations; 1.96 for 95%.

    Returns:
        The share and its bounds.

    Raises:
        ValueError: Unless ``0 <= hits <= trials`` and ``trials >= 1``.

    Example:
        >>> print(wilson_interval(180, 200))
        90.0% [85.1, 93.4]
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"hits must lie between 0 and trials, at least 1, got {hits} of {trials}")
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach))
