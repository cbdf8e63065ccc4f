"""Did the asked attribute change, and did everything else stay?"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class EditScore(NamedTuple):
    """One judged edit.

    Attributes:
        reached: Whether the asked attribute is what was asked for.
        kept: Share of the other attributes that are what they were.
        right: All at once.
    """

    reached: bool
    kept: float
    right: bool


def score_edit(wanted: Mapping[str, str], seen: Mapping[str, str | None], attribute: str) -> EditScore:
    """Compare what the judge saw with what was wanted.

    Args:
        wanted: Every attribute as it should be after the edit.
        seen: The same as the judge names them; None where it recognises nothing.
        attribute: The one that was asked to change.

    Returns:
        What was reached, and what was kept.

    Example:
        >>> score_edit({"colour": "blue", "shape": "star"}, {"colour": "blue", "shape": None}, "colour")
        EditScore(reached=True, kept=0.0, right=False)
    """
    reached = seen[attribute] == wanted[attribute]
    others = [seen[name] == value for name, value in wanted.items() if name != attribute]
    kept = sum(others) / len(others) if others else 1.0
    return EditScore(reached, kept, reached and all(others))


def outside_psnr(picture: Tensor, source: Tensor, inside: Tensor, *, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio, in dB, over the pixels outside a mask.

    Args:
        picture: ``(3, H, W)``.
        source: Like ``picture``.
        inside: ``(1, H, W)`` or ``(H, W)``; every pixel above 0 is left out.
        peak: Largest value a pixel can have.

    Returns:
        Decibels; infinity where the two agree exactly.

    Raises:
        ValueError: If the mask covers the whole picture.
    """
    outside = (inside.reshape(picture.shape[-2:]) == 0).expand_as(picture)
    if not outside.any():
        raise ValueError("inside must leave some pixels out, got a mask that covers the picture")
    error = (picture - source)[outside].double().square().mean()
    return float(10 * torch.log10(peak**2 / error)) if error > 0 else float("inf")
