"""Maps between points made smooth: by what their likely neighbours say, of those that look alike the most."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

COLOUR_WIDTH = 0.15  # difference of colours at which a neighbour counts for less
OUTLIER = 1.0  # cells off the others at which a neighbour counts half
ROUNDS = 3
PRIOR = 0.05  # of the whole window: what speaks for the prior


def smoothed(to: Tensor, prior: Tensor, confidence: Tensor, colours: Tensor, width: float) -> Tensor:
    """A robust, edge-aware mean of a map over windows; the prior where nothing is to be believed.

    Args:
        to: Positions in cells, ``(h, w, 2)``.
        prior: What was expected, likewise.
        confidence: ``(h, w)`` in [0, 1].
        colours: ``(3, h, w)``, what the points look like.
        width: Standard deviation of the window, in cells.
    """
    h, w = confidence.shape
    radius = math.ceil(2 * width)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float32)
    near = torch.exp(-(offset.square() + offset.square()[:, None]) / (2 * width**2)).flatten()[:, None]
    rest = (to - prior).permute(2, 0, 1)
    around = windows(torch.cat([rest, colours, confidence[None]]), radius)  # (6, K, h * w)
    rests, alike, believed = around[:2], around[2:5], around[5]
    unlike = (alike - colours.flatten(1)[:, None]).square().sum(0)
    weight = near * torch.exp(-unlike / (2 * COLOUR_WIDTH**2)) * believed
    speaks = PRIOR * near.sum()
    found = (rests * weight).sum(1) / (weight.sum(0) + speaks)
    for _ in range(ROUNDS):
        off = (rests - found[:, None]).square().sum(0)
        robust = weight / (1 + off / OUTLIER**2)
        found = (rests * robust).sum(1) / (robust.sum(0) + speaks)
    return prior + found.view(2, h, w).permute(1, 2, 0)


def windows(planes: Tensor, radius: int) -> Tensor:
    """Planes ``(C, h, w)`` in the window of every point, ``(C, K, h * w)``; 0 beyond the border."""
    return F.unfold(planes[:, None], 2 * radius + 1, padding=radius)
