"""Colours of one palette moved to another by transport, where there is no partner to take them from."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops import sinkhorn

SIDE = 17  # points on each side of the table of colours
MOST_ITERATIONS, CLOSE = 500, 1e-3  # of the transport: what it moves is shown in 8 bits
# steps of the most even sequence in the plane: by the root of x^3 = x + 1, and its square
EVEN = (0.7548776662466927, 0.5698402909980532)
SOLID = 0.5  # opacity from which a pixel's colour counts


class Moves(NamedTuple):
    """By how much each colour moves, on its whole way, ``(3, SIDE, SIDE, SIDE)`` over blue, green and red."""

    of_first: Tensor  # to the second picture's palette
    of_second: Tensor  # to the first picture's


def find_moves(first: Tensor, second: Tensor, *, palette: int, eps: float) -> Moves | None:
    """How the colours of two pictures move to each other's: the entropic map of transport, debiased.

    A colour ``c`` moves by ``T(c) - S(c)``: ``T`` sends it to the mean of the other palette that the
    potentials of transport say, also where the palette has no such colour. ``S`` does the same within its
    own, so that nothing moves between pictures of one palette.

    Args:
        first: ``(3 or 4, H, W)``, the last of four the opacity.
        second: Likewise.
        palette: Pixels of each that are taken.
        eps: Regularisation.

    Returns:
        None where a picture is transparent.
    """
    x, y = _palette(first, palette), _palette(second, palette)
    if not len(x) or not len(y):
        return None
    side = torch.linspace(0, 1, SIDE, dtype=x.dtype, device=x.device)
    blue, green, red = torch.meshgrid(side, side, side, indexing="ij")
    colours = torch.stack([red, green, blue], -1).reshape(-1, 3)
    how = {"eps": eps, "max_iter": MOST_ITERATIONS, "tol": CLOSE}
    between = sinkhorn(x, y, **how)
    moves = [
        _sent(colours, there, potential, eps) - _sent(colours, own, sinkhorn(own, own, **how).g, eps)
        for own, there, potential in ((x, y, between.g), (y, x, between.f))
    ]
    return Moves(*(move.mT.reshape(3, SIDE, SIDE, SIDE) for move in moves))


def move_of(rgb: Tensor, moves: Tensor) -> Tensor:
    """By how much the colours of ``rgb`` (3, H, W) move, in the same shape."""
    at = rgb.permute(1, 2, 0)[None, None] * 2 - 1
    return F.grid_sample(moves[None], at, mode="bilinear", padding_mode="border", align_corners=True)[0, :, 0]


def _palette(picture: Tensor, count: int) -> Tensor:
    """Colours ``(n, 3)`` of evenly spread pixels that are not transparent."""
    H, W = picture.shape[-2:]
    index = torch.arange(count, dtype=torch.float64)
    x, y = (((0.5 + step * index) % 1 * side).long() for step, side in zip(EVEN, (W, H)))
    taken = picture[:, y.to(picture.device), x.to(picture.device)].mT
    return taken[:, :3] if len(picture) == 3 else taken[taken[:, 3] >= SOLID, :3]


def _sent(colours: Tensor, palette: Tensor, potential: Tensor, eps: float) -> Tensor:
    """The mean of ``palette`` to which its potential sends each of ``colours``."""
    cost = torch.cdist(colours, palette).square()
    return torch.softmax((potential - cost) / eps, -1) @ palette
