"""The eight outlines of the rendered world, and exact signed distances to them.

An outline is a set of closed polygons in unit coordinates (y down), filled by the even-odd rule; curves are
polygons of many corners. Distances are computed once, in float64, at the nodes of a fine table, and read
back by bilinear interpolation: the error is below 1e-3 radii, a fiftieth of a pixel at 64 x 64.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .scenes import ATTRIBUTES

REACH = 1.5  # the table covers [-REACH, REACH] squared
NODES = 193


def signed_distance(shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to each object's outline, negative inside, in object radii.

    Args:
        shape: Index into ``ATTRIBUTES["shape"]``, ``(n,)`` int64.
        x: Coordinates in the object's own frame, ``(n, ...)`` float32.
        y: Like ``x``; points down.

    Returns:
        Distances, shaped like ``x``. Exact within ``REACH``; beyond it a lower bound, always positive.
    """
    table = _table()[None, None]
    tile = shape.view(-1, *[1] * (x.ndim - 1))
    column = (x.clamp(-REACH, REACH) + REACH) * ((NODES - 1) / (2 * REACH)) + tile * NODES
    grid = torch.stack([column * (2 / (table.shape[-1] - 1)) - 1, y / REACH], -1)
    values = F.grid_sample(table, grid.view(1, 1, -1, 2), padding_mode="border", align_corners=True)
    return values.view(x.shape)


@cache
def _table() -> Tensor:
    """Distances of every shape side by side, ``(NODES, 8 * NODES)`` float32."""
    axis = torch.linspace(-REACH, REACH, NODES, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.cat([_polygon_distance(x, y, OUTLINES[name]()) for name in ATTRIBUTES["shape"]], 1).float()


def _polygon_distance(x: Tensor, y: Tensor, polygons: list[Tensor]) -> Tensor:
    """Exact signed distance to the even-odd fill of ``polygons``, each ``(corners, 2)``."""
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for polygon in polygons:
        for (ax, ay), (bx, by) in zip(polygon.tolist(), polygon.roll(-1, 0).tolist()):
            ex, ey = bx - ax, by - ay
            along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
            nearest = torch.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
            if ey:  # a horizontal ray to the right of (x, y) crosses this edge
                inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (ex / ey))
    return torch.where(inside, -1, 1) * nearest.sqrt()


def _arc(start: float, stop: float, radius: float = 1.0, centre=(0.0, 0.0), corners: int = 64) -> Tensor:
    angle = torch.linspace(start, stop, corners + 1, dtype=torch.float64)[:-1]
    return torch.stack([centre[0] + radius * angle.cos(), centre[1] + radius * angle.sin()], -1)


def _circle() -> list[Tensor]:
    return [_arc(0, 2 * math.pi, 0.95)]


def _square() -> list[Tensor]:
    return [torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64) * 0.8]


def _triangle() -> list[Tensor]:
    return [_arc(-math.pi / 2, 3 * math.pi / 2, 1.15, (0, 0.15), corners=3)]


def _star() -> list[Tensor]:
    outer = _arc(-math.pi / 2, 3 * math.pi / 2, 1.15, corners=5)
    inner = _arc(-math.pi / 2 + math.pi / 5, 3 * math.pi / 2 + math.pi / 5, 0.5, corners=5)
    return [torch.stack([outer, inner], 1).flatten(0, 1)]


def _heart() -> list[Tensor]:
    t = _arc(0, 2 * math.pi, corners=96)
    t = torch.atan2(t[:, 1], t[:, 0])
    x = 16 * t.sin() ** 3
    y = -(13 * t.cos() - 5 * (2 * t).cos() - 2 * (3 * t).cos() - (4 * t).cos())
    return [torch.stack([x, y - 2.5], -1) / 15.5]


def _ring() -> list[Tensor]:
    return [_arc(0, 2 * math.pi, 1.0), _arc(0, 2 * math.pi, 0.52)]


def _cross() -> list[Tensor]:
    a, b = 1.02, 0.36
    corners = [(b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a)]
    right = torch.tensor(corners, dtype=torch.float64)
    return [torch.cat([right, -right])]


def _moon() -> list[Tensor]:
    """A disc less another one whose centre lies to the right."""
    radius, bite, offset = 1.05, 0.86, 0.62
    # where the two circles meet
    x = (offset**2 + radius**2 - bite**2) / (2 * offset)
    outer = math.atan2(math.sqrt(radius**2 - x**2), x)
    inner = math.atan2(math.sqrt(radius**2 - x**2), x - offset)
    back = _arc(outer, 2 * math.pi - outer, radius)
    front = _arc(2 * math.pi - inner, inner, bite, (offset, 0.0))
    return [torch.cat([back, front]) + torch.tensor([0.25, 0.0], dtype=torch.float64)]


OUTLINES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "cross": _cross,
    "moon": _moon,
}
