"""Scenes to pictures: signed distances, turned into anti-aliased coverage."""

from functools import cache

import torch
from torch import Tensor

from .scenes import PALETTE, Scenes
from .shapes import signed_distance

SHADE = 0.5  # brightness of stripes and dots relative to the object
NOISE = 0.012  # standard deviation of the grain
PERIOD = 0.62  # of stripes and dots, in object radii
DOT = 0.21  # radius of a dot, in object radii
CHUNK = 32  # pictures drawn at once, so that they stay in the cache


def render(scenes: Scenes, size: int = 64) -> Tensor:
    """Draw scenes as pictures.

    The object is composited over the background by its coverage, both are multiplied by linear lighting,
    and Gaussian grain is added. Every pixel is evaluated at its centre with a one-pixel-wide edge.

    Args:
        scenes: What to draw.
        size: Width and height in pixels.

    Returns:
        ``(n, 3, size, size)`` float32 in [0, 1]. The same scenes give the same pictures, to the bit.

    Raises:
        ValueError: If ``size`` is smaller than 16, where textures cannot be seen.
    """
    return _in_chunks(_render, scenes, size, 3)


def object_mask(scenes: Scenes, size: int = 64) -> Tensor:
    """Coverage of each pixel by the object, ``(n, 1, size, size)`` float32 in [0, 1]; see :func:`render`."""
    return _in_chunks(lambda part, size: _coverage(part, size)[0][:, None], scenes, size, 1)


def texture_distance(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distances to the dark stripes and to the dark dots, in object radii, in the object's frame."""

    def fold(t: Tensor) -> Tensor:  # distance to the nearest multiple of PERIOD
        return (t - PERIOD * (t / PERIOD).round()).abs()

    stripes = fold((u + v) * 0.5**0.5) - PERIOD / 4
    dots = (fold(u).square() + fold(v).square()).sqrt() - DOT
    return stripes, dots


def _in_chunks(draw, scenes: Scenes, size: int, channels: int) -> Tensor:
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, got {size}")
    parts = [draw(scenes[i : i + CHUNK], size) for i in range(0, len(scenes), CHUNK)]
    return torch.cat(parts) if parts else torch.empty(0, channels, size, size)


def _coverage(scenes: Scenes, size: int) -> tuple[Tensor, Tensor]:
    """Coverage by the object and by the dark part of its texture, each ``(n, size, size)``."""
    pixel = (torch.arange(size) + 0.5) / size
    radius = scenes.radius[:, None, None]
    x = (pixel[None, None, :] - scenes.centre[:, 0, None, None]) / radius
    y = (pixel[None, :, None] - scenes.centre[:, 1, None, None]) / radius
    cos, sin = scenes.angle.cos()[:, None, None], scenes.angle.sin()[:, None, None]
    u, v = cos * x + sin * y, cos * y - sin * x

    def cover(distance: Tensor) -> Tensor:
        return (0.5 - distance * radius * size).clamp(0, 1)

    stripes, dots = texture_distance(u, v)
    texture = scenes.texture[:, None, None]
    dark = torch.where(texture == 1, cover(stripes), torch.where(texture == 2, cover(dots), 0.0))
    return cover(signed_distance(scenes.shape, u, v)), dark


def _render(scenes: Scenes, size: int) -> Tensor:
    inside, dark = _coverage(scenes, size)
    paint = (PALETTE[scenes.colour] + scenes.object_jitter)[..., None, None]
    ground = (PALETTE[scenes.background] + scenes.background_jitter)[..., None, None]
    paint = paint * (1 - (1 - SHADE) * dark)[:, None]
    picture = ground + inside[:, None] * (paint - ground)

    across = ((torch.arange(size) + 0.5) / size - 0.5) * 2
    light = 1 + scenes.light[:, 0, None, None] * across + scenes.light[:, 1, None, None] * across[:, None]
    return (picture * light[:, None] + NOISE * _grain(scenes.grain, size)).clamp_(0, 1)


def _grain(window: Tensor, size: int) -> Tensor:
    """Cut windows, ``(n, 3, size, size)``, from one periodic field of unit Gaussian noise."""
    field = _noise_field()
    step = torch.arange(size)
    rows = (window[:, 1, None] + step) % field.shape[0]
    columns = (window[:, 0, None] + step) % field.shape[1]
    return field[rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@cache
def _noise_field() -> Tensor:
    return torch.randn(256, 256, 3, generator=torch.Generator().manual_seed(0))
