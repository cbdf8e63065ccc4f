"""Pairs of points that a user fixes: this one of A lies on that one of B."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..._checks import require_finite
from .grids import Size, at, plane, sides, to_plane

FALLOFF = 0.25  # of the longest side: how far from a fixed point the map is drawn along
APART = 0.5  # pixels between two fixed points of a picture, at least


class Fixed(NamedTuple):
    """Partners, in coordinates that run from -1 to 1 across their pictures.

    Attributes:
        at_a: ``(F, 2)`` float32.
        at_b: Likewise.
    """

    at_a: Tensor
    at_b: Tensor

    @classmethod
    def of(cls, pairs: Tensor | None, a: Tensor, b: Tensor) -> "Fixed | None":
        """From ``(F, 4)`` in pixels of the pictures ``(3, H, W)``; None for no pairs."""
        if pairs is None:
            return None
        pairs = torch.as_tensor(pairs, dtype=torch.float32, device="cpu")
        if pairs.dim() != 2 or pairs.shape[1] != 4:
            raise ValueError(f"fixed must have shape (F, 4), got {tuple(pairs.shape)}")
        require_finite("fixed", pairs)
        if not len(pairs):
            return None
        at_a, at_b = (
            _checked(name, part, picture.shape[1:])
            for name, picture, part in (("A", a, pairs[:, :2]), ("B", b, pairs[:, 2:]))
        )
        return cls(at_a, at_b)

    def swapped(self) -> "Fixed":
        """The same for the way back."""
        return Fixed(self.at_b, self.at_a)

    def draw(self, to: Tensor, shape: Size) -> Tensor:
        """Lead a map through the pairs, and what is near along with them.

        Args:
            to: Where the pixels or points of a grid over A lie in B, ``(h, w, 2)``, from -1 to 1 across B.
            shape: Height and width of A, in any unit: what is near does not depend on its proportions.
        """
        scale = sides(shape) / max(shape) / (2 * FALLOFF)
        places, here = self.at_a * scale, plane(to.shape[:2]) * scale
        missing = (self.at_b - at(to, self.at_a)).double()
        pulls = torch.linalg.solve(_kernel(torch.cdist(places, places)).double(), missing).float()
        moved = to.clone()
        for place, pull in zip(places, pulls):
            moved += _kernel((here - place).square().sum(2, keepdim=True).sqrt()) * pull
        return moved


def _kernel(distance: Tensor) -> Tensor:
    """Wendland's smooth function of compact support: from 1 at 0 down to 0 at 1."""
    rest = (1 - distance).clamp(min=0)
    return rest**4 * (4 * distance + 1)


def _checked(name: str, points: Tensor, size: Size) -> Tensor:
    """Points of a picture, from pixels to -1 to 1; refuses those outside of it, and the same one twice."""
    outside = ((points < 0) | (points > sides(size) - 1)).any(1)
    if outside.any():
        x, y = points[outside][0].tolist()
        raise ValueError(
            f"fixed points must lie in their pictures, {name} is {size[1]} x {size[0]} pixels, "
            f"got {x:g},{y:g}"
        )
    if len(points) > 1 and torch.pdist(points).min() < APART:
        raise ValueError(f"fixed must name each point of {name} once, got two less than {APART} pixels apart")
    return to_plane(points, size)
