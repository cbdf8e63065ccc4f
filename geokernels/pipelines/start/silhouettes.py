"""Outlines of no particular kind: a radius that varies with the angle, less a disc.

A few numbers make anything from a disc to a star, a ring, a crescent or a splash, so that a search over them
presumes nothing about what is looked for. Angle and distance are measured in the frame of the object.
"""

import math

import torch
from torch import Tensor

HARMONICS = 8  # of the radius; 8 leaves eight-pointed stars and nothing finer
DIMENSIONS = 4 + 2 * HARMONICS  # scale; radius and centre of the disc; cosines, sines
NARROWEST = 0.05  # least radius, relative to the mean


def signed_distance(silhouettes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Approximate signed distances to outlines, negative inside, in object radii.

    At angle phi the outline is s (1 + sum_k a_k cos k phi + b_k sin k phi) away from the origin. Distances
    are taken along the radius and shortened by the outline's slope: exact to first order at the outline. What
    lies in the disc is outside.

    Args:
        silhouettes: ``(n, DIMENSIONS)``: s, the disc's radius (0 or less for none), its x and y, and then
            a_1 ... b_1 ...
        x: Coordinates, ``(n, h, w)`` or ``(1, h, w)`` if all share them.
        y: Like ``x``; points down.

    Returns:
        ``(n, h, w)``; differentiable in ``silhouettes``.
    """
    shape = len(silhouettes), *x.shape[-2:]
    scale, disc, across, down = silhouettes[:, :4, None, None].unbind(1)
    a, b = silhouettes[:, None, 4:].chunk(2, -1)
    order = torch.arange(1, HARMONICS + 1, device=x.device, dtype=x.dtype)

    r = (x * x + y * y).sqrt().clamp(min=1e-3)
    cosine, sine = _harmonics(x / r, y / r)  # (n or 1, HARMONICS, h * w)
    radius = scale * (1 + a @ cosine + b @ sine).clamp(min=NARROWEST).view(shape)
    slope = scale * ((b * order) @ cosine - (a * order) @ sine).view(shape)
    outer = (r - radius) / (1 + (slope / radius) ** 2).sqrt()

    hole = disc - ((x - across) ** 2 + (y - down) ** 2).sqrt()
    return torch.where(disc > 0, torch.maximum(outer, hole), outer)


def draw_silhouettes(n: int, *, generator: torch.Generator) -> Tensor:
    """Random silhouettes, ``(n, DIMENSIONS)``: smooth and ragged, few- and many-lobed, some bitten."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((n, *shape), generator=generator, dtype=torch.float32)

    order = torch.arange(1, HARMONICS + 1).repeat(2)
    ragged = (
        uniform(0.02, 0.4, 1)
        * torch.randn((n, 2 * HARMONICS), generator=generator, dtype=torch.float32)
        / order
    )
    # every other one is ruled by one harmonic, as stars and polygons are
    lobes = torch.randint(1, HARMONICS, (n,), generator=generator)
    height, phase = uniform(0, 0.45) * (uniform(0, 1) < 0.5), uniform(0, 2 * math.pi)
    rows = torch.arange(n)
    ragged[rows, lobes] += height * phase.cos()
    ragged[rows, HARMONICS + lobes] += height * phase.sin()
    disc = torch.where(uniform(0, 1) < 0.4, uniform(0.2, 1.0), -0.1)
    bite = 0.5 * torch.randn((n, 2), generator=generator, dtype=torch.float32)
    return torch.cat([uniform(0.8, 1.15, 1), disc[:, None], bite, ragged], 1)


def draw_simple_silhouettes(n: int, *, generator: torch.Generator) -> Tensor:
    """The simplest silhouettes, ``(n, DIMENSIONS)``: a disc or one harmonic of it, whole or bitten."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float32)

    silhouettes = torch.zeros(n, DIMENSIONS, dtype=torch.float32)
    silhouettes[:, 0] = uniform(0.8, 1.15)
    silhouettes[:, 1] = torch.where(uniform(0, 1) < 0.5, uniform(0.3, 0.9), -0.1)
    # every other bite is a hole in the middle
    away, where = uniform(0, 1) * (uniform(0, 1) < 0.5), uniform(0, 2 * math.pi)
    silhouettes[:, 2], silhouettes[:, 3] = away * where.cos(), away * where.sin()
    lobes = torch.randint(HARMONICS, (n,), generator=generator)
    height, phase = uniform(0, 0.45) * (uniform(0, 1) < 0.7), uniform(0, 2 * math.pi)
    rows = torch.arange(n)
    silhouettes[rows, 4 + lobes] = height * phase.cos()
    silhouettes[rows, 4 + HARMONICS + lobes] = height * phase.sin()
    return silhouettes


def raggedness(silhouettes: Tensor) -> Tensor:
    """How far outlines are from a disc, ``(n,)``: the amplitudes of their harmonics, summed.

    The sum, not the sum of squares: a star of one harmonic is simpler than a splash of many small ones.
    """
    a, b = silhouettes[:, 4:].chunk(2, -1)
    return torch.hypot(a, b).sum(-1)


def _harmonics(cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every multiple of an angle, ``(n, HARMONICS, h * w)``, by rotation."""
    turn = torch.complex(cosine, sine).flatten(1)
    powers = torch.stack([turn] * HARMONICS, 1).cumprod(1)
    return powers.real, powers.imag
