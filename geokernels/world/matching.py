"""Outlines and textures in normalised frames, to compare what is seen with what the renderer draws."""

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .renderer import texture_distance
from .scenes import ATTRIBUTES
from .shapes import signed_distance

GRID = 32  # samples along each side of a normalised frame
OUTLINE_REACH = 1.7  # half width of the outline frame, in radii of the disc of equal area
TEXTURE_REACH = 1.0  # half width of the texture frame, in object radii
ANGLES = torch.arange(-17, 18, dtype=torch.float32) * 0.02
TURNS = torch.arange(-8, 9, dtype=torch.float32) * 0.04
SHIFTS = torch.tensor([-0.1, 0.0, 0.1], dtype=torch.float32)


class OutlineFit(NamedTuple):
    """The best outline of each picture.

    Attributes:
        shape: Index, ``(n,)``.
        likeness: Overlap with it in [0, 1], ``(n,)``.
        lead: How much less the best outline of any other shape overlaps, ``(n,)``.
        radius: In picture widths, ``(n,)``.
        centre: Origin of the object's frame, in picture widths, ``(n, 2)``.
    """

    shape: Tensor
    likeness: Tensor
    lead: Tensor
    radius: Tensor
    centre: Tensor


def fit_outline(coverage: Tensor) -> OutlineFit:
    """Compare coverage (n, 1, side, side) with every outline at every rotation, by overlap."""
    side = coverage.shape[-1]
    pixel = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    mass = coverage.sum((1, 2, 3)).clamp(min=1e-6)
    centroid = torch.stack(
        [(coverage[:, 0] * pixel).sum((1, 2)), (coverage[:, 0] * pixel[:, None]).sum((1, 2))], -1
    )
    centroid = centroid / mass[:, None]
    disc = (mass / torch.pi).sqrt() / side  # radius of the disc of equal area
    seen = _sample(coverage, centroid, disc * OUTLINE_REACH).flatten(1)
    bank = _outlines()
    both = seen @ bank.pictures.T
    overlap = both / (seen.square().sum(1, keepdim=True) + bank.pictures.square().sum(1) - both).clamp(
        min=1e-6
    )
    likeness, best = overlap.max(1)
    first, second = overlap.view(len(seen), -1, len(ANGLES)).amax(2).topk(2).values.unbind(1)
    radius = disc / bank.disc[best]
    centre = centroid - radius[:, None] * bank.centroid[best]
    return OutlineFit(bank.shape[best], likeness, first - second, radius, centre)


class TextureFit(NamedTuple):
    """The best texture of each picture.

    Attributes:
        contrast: Standard deviation of the brightness, ``(n,)``.
        texture: 0 striped or 1 dotted, ``(n,)``.
        likeness: Correlation with it, ``(n,)``.
        lead: How much less the other texture correlates, ``(n,)``.
    """

    contrast: Tensor
    texture: Tensor
    likeness: Tensor
    lead: Tensor


def fit_texture(brightness: Tensor, coverage: Tensor, fit: OutlineFit) -> TextureFit:
    """Compare the brightness pattern inside the object with stripes and dots.

    Args:
        brightness: Relative to the object's full colour, ``(n, 1, side, side)``.
        coverage: Of each pixel by the object, likewise.
        fit: Where the object is.
    """
    inner = -F.max_pool2d(-(coverage > 0.8).float(), 3, 1, 1)
    reach = fit.radius * TEXTURE_REACH
    weight = _sample(inner, fit.centre, reach).flatten(1)
    level = _sample(brightness, fit.centre, reach).flatten(1)
    bank, texture = _textures()
    total = weight.sum(1, keepdim=True).clamp(min=1e-6)
    level = level - (weight * level).sum(1, keepdim=True) / total
    variance = (weight * level.square()).sum(1, keepdim=True) / total
    mean = weight @ bank.T / total
    spread = weight @ bank.square().T / total - mean.square()
    product = (weight * level) @ bank.T / total
    correlation = product / (variance * spread.clamp(min=0)).sqrt().clamp(min=1e-4)
    likeness, best = correlation.max(1)
    first, second = correlation.view(len(level), 2, -1).amax(2).sort(1, descending=True).values.unbind(1)
    return TextureFit(variance[:, 0].sqrt(), texture[best], likeness, first - second)


class _Outlines(NamedTuple):
    pictures: Tensor  # (S, GRID * GRID)
    shape: Tensor  # (S,)
    disc: Tensor  # (S,) radius of the disc of equal area, in object radii
    centroid: Tensor  # (S, 2) in object radii


@cache
def _outlines() -> _Outlines:
    """Every shape at every angle, in the frame given by its own area and centroid."""
    shape = torch.arange(len(ATTRIBUTES["shape"])).repeat_interleave(len(ANGLES))
    angle = ANGLES.repeat(len(ATTRIBUTES["shape"]))
    step = 0.02
    fine = torch.arange(-70, 71, dtype=torch.float32) * step

    def cover(x: Tensor, y: Tensor, edge: float) -> Tensor:
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        distance = signed_distance(shape, cos * x + sin * y, cos * y - sin * x)
        return (0.5 - distance / edge).clamp(0, 1)

    x, y = fine.expand(len(shape), len(fine), -1), fine[:, None].expand(len(shape), -1, len(fine))
    full = cover(x, y, step)
    mass = full.sum((1, 2))
    centroid = torch.stack([(full * x).sum((1, 2)), (full * y).sum((1, 2))], -1) / mass[:, None]
    disc = (mass * step**2 / torch.pi).sqrt()
    axis = _axis() * OUTLINE_REACH
    x = disc[:, None, None] * axis + centroid[:, 0, None, None]
    y = disc[:, None, None] * axis[:, None] + centroid[:, 1, None, None]
    x, y = torch.broadcast_tensors(x, y)
    return _Outlines(cover(x, y, 0.08).flatten(1), shape, disc, centroid)


@cache
def _textures() -> tuple[Tensor, Tensor]:
    """Stripes and dots at every turn and small shift, ``(2 * S, GRID * GRID)``, and which is which."""
    turn, dx, dy = (t.reshape(-1, 1, 1) for t in torch.meshgrid(TURNS, SHIFTS, SHIFTS, indexing="ij"))
    axis = _axis() * TEXTURE_REACH
    x, y = axis - dx, axis[:, None] - dy
    cos, sin = turn.cos(), turn.sin()
    patterns = [
        # as brightness: what is covered by the texture is darker
        -(0.5 - distance / 0.1).clamp(0, 1).flatten(1)
        for distance in texture_distance(cos * x + sin * y, cos * y - sin * x)
    ]
    return torch.cat(patterns), torch.arange(2).repeat_interleave(len(patterns[0]))


def _axis() -> Tensor:
    return (torch.arange(GRID, dtype=torch.float32) + 0.5) * (2 / GRID) - 1


def _sample(maps: Tensor, centre: Tensor, reach: Tensor) -> Tensor:
    """Sample maps (n, 1, H, W) in square frames around ``centre`` (n, 2), in picture widths."""
    axis = _axis() * 2 * reach[:, None]
    grid = torch.stack(
        torch.broadcast_tensors(
            axis[:, None, :] + 2 * centre[:, 0, None, None] - 1,
            axis[:, :, None] + 2 * centre[:, 1, None, None] - 1,
        ),
        -1,
    )
    return F.grid_sample(maps, grid, align_corners=False)[:, 0]
