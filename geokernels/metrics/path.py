"""How long a path of pictures is, and how evenly it is walked."""

from typing import NamedTuple

import torch
from torch import Tensor


class PathScore(NamedTuple):
    """One path of pictures, by a distance ``d`` between two of them.

    Attributes:
        length: Sum of ``d`` over consecutive pictures.
        smoothness: 1 - Gini's coefficient of the steps: 1 where all are equal, 0 where one is everything.
        worst_step: The largest step, in mean steps.
        fidelity: 1 - d(last picture, the one its prompt gives alone) / d(first picture, that one).
    """

    length: float
    smoothness: float
    worst_step: float
    fidelity: float


def score_path(steps: Tensor, *, missed: float, chord: float) -> PathScore:
    """Measure a path.

    Args:
        steps: Distances of consecutive pictures, ``(n,)``, none negative.
        missed: Distance of the last picture to the one that the last prompt gives by itself.
        chord: Distance of the first picture to that one.

    Returns:
        Its length, its evenness, and whether it arrives.

    Raises:
        ValueError: If there is no step, or one is negative or not finite.

    Example:
        >>> score_path(torch.tensor([1.0, 3.0]), missed=0.0, chord=4.0)
        PathScore(length=4.0, smoothness=0.75, worst_step=1.5, fidelity=1.0)
    """
    if steps.dim() != 1 or not len(steps) or not bool((steps >= 0).all() & steps.isfinite().all()):
        raise ValueError(f"steps must be finite numbers (n,), none negative, got {steps.tolist()}")
    steps = steps.double()
    mean = float(steps.mean())
    worst = float(steps.max()) / mean if mean > 0 else 1.0
    reached = 1.0 - missed / chord if chord > 0 else float(missed == 0)
    values = float(steps.sum()), 1.0 - gini(steps), worst, reached
    return PathScore(*(round(value, 6) for value in values))


def gini(values: Tensor) -> float:
    """Gini's coefficient of ``values`` (n,), none negative: mean difference of two over twice their mean.

    0 where all are equal, 1 - 1/n where one is everything; 0 where all are 0.

    Args:
        values: ``(n,)``, none negative.

    Returns:
        A number from 0 to 1 - 1/n.
    """
    mean = values.mean()
    if mean == 0:
        return 0.0
    return float((values[:, None] - values).abs().mean() / (2 * mean))


def respace(times: Tensor, steps: Tensor, known: Tensor, gaps: Tensor) -> Tensor:
    """Times at which pictures would lie more evenly.

    Within a step the pictures known there say how it is walked; steps themselves count as measured, because
    the distances of many small ones add up to more than that of their ends.

    Args:
        times: When the pictures were made, ``(n,)``, ascending, all of them known.
        steps: Distances of consecutive pictures, ``(n - 1,)``.
        known: All times at which there is a picture, ``(m,)``, ascending.
        gaps: Distances of consecutive known pictures, ``(m - 1,)``.

    Returns:
        As many times, with the same first and last.
    """
    first = torch.searchsorted(known, times)
    finely = torch.cat([gaps.new_zeros(1), gaps.cumsum(0)])
    inside = (torch.searchsorted(times, known, right=True) - 1).clamp(max=len(steps) - 1)
    low, high = finely[first[inside]], finely[first[inside + 1]]
    share = torch.where(high > low, (finely - low) / torch.where(high > low, high - low, 1), 0)
    walked = torch.cat([steps.new_zeros(1), steps.cumsum(0)])[inside] + steps[inside] * share
    walked[-1] = steps.sum()
    if walked[-1] <= 0:
        return times.clone()

    wanted = torch.linspace(0, 1, len(times), dtype=walked.dtype) * walked[-1]
    after = torch.searchsorted(walked, wanted).clamp(1, len(known) - 1)
    low, high = walked[after - 1], walked[after]
    share = torch.where(high > low, (wanted - low) / torch.where(high > low, high - low, 1), 0)
    respaced = torch.lerp(known[after - 1], known[after], share.clamp(0, 1))
    respaced[0], respaced[-1] = times[0], times[-1]
    return respaced
