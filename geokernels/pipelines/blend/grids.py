"""Grids over pictures: positions from -1 to 1 across a picture, or in its pixels, and values at other sizes.

Positions are (x, y); pixel centres are at whole numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # down and across


def plane(size: Size) -> Tensor:
    """Middles of equal cells, from -1 to 1 across the picture, ``(h, w, 2)`` float32."""
    y, x = ((2 * torch.arange(side, dtype=torch.float32) + 1) / side - 1 for side in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def sides(size: Size) -> Tensor:
    """Width and height, as positions have them."""
    return torch.tensor([size[1], size[0]], dtype=torch.float32)


def to_pixels(to: Tensor, size: Size) -> Tensor:
    """From -1 to 1 across a picture of that height and width to its pixels."""
    return ((to + 1) * sides(size) - 1) / 2


def to_plane(positions: Tensor, size: Size) -> Tensor:
    """From pixels to -1 to 1."""
    return (2 * positions + 1) / sides(size) - 1


def resized(planes: Tensor, size: Size) -> Tensor:
    """``(C, H, W)`` at another size."""
    if tuple(planes.shape[1:]) == tuple(size):
        return planes
    return F.interpolate(planes[None], tuple(size), mode="bilinear", antialias=True, align_corners=False)[0]


def resized_map(to: Tensor, size: Size) -> Tensor:
    """A map ``(h, w, 2)`` at another size: how far it leads, between the places that there were."""
    if tuple(to.shape[:2]) == tuple(size):
        return to
    motion = (to - plane(to.shape[:2])).permute(2, 0, 1)
    return plane(size) + resized(motion, size).permute(1, 2, 0)


def at(values: Tensor, to: Tensor) -> Tensor:
    """``values`` (h, w, C) at positions ``(..., 2)``, from -1 to 1; those of the border beyond it."""
    grid = to.reshape(1, 1, -1, 2)
    found = F.grid_sample(values.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=False)
    return found[0, :, 0].T.reshape(*to.shape[:-1], values.shape[2])
