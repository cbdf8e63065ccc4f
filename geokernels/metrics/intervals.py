"""How sure a measured share is."""

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """A share with the bounds that chance allows it, all in [0, 1]."""

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def wilson_interval(hits: int, trials: int, *, z: float = 1.959964) -> Interval:
    """Wilson's score interval for ``hits`` out of ``trials``; 95% by default.

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
