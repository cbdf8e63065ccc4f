"""Combinations of attributes that no training shows, so that drawing them is more than memory."""

import torch
from torch import Tensor

from .scenes import ATTRIBUTES, Scenes, sample_scenes

HELD_OUT = 5  # one combination of attributes in this many is never shown in training


def held_out(scenes: Scenes) -> Tensor:
    """Which scenes combine attributes as no scene in training does, ``(n,)``.

    Every value, and every pair of values, occurs in training.
    """
    code = sum(w * getattr(scenes, a) for w, a in zip((1, 2, 3, 4, 1), ATTRIBUTES))
    return code % HELD_OUT == 0


def sample_seen(n: int, *, generator: torch.Generator) -> Scenes:
    """``n`` scenes of combinations that training may show."""
    scenes = sample_scenes(2 * n, generator=generator)
    return scenes[torch.nonzero(~held_out(scenes))[:n, 0]]


def sample_unseen(n: int, *, generator: torch.Generator) -> Scenes:
    """``n`` scenes of combinations that training never shows."""
    scenes = sample_scenes(2 * HELD_OUT * n, generator=generator)
    return scenes[torch.nonzero(held_out(scenes))[:n, 0]]
