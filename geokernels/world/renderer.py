"""Scenes to pictures: signed distances, turned into anti-aliased coverage."""

from functools import cache

import torch
from torch import Tensor

from .._modes import own_modes
from .scenes import PALETTE, Scenes
from .shapes import signed_distance

SHADE = 0.5  # brightness of stripes and dots relative to the object
NOISE = 0.012  # standard deviation of the grain
PERIOD = 0.62  # of stripes and dots, in object radii
DOT = 0.21  # radius of a dot, in object radii
LARGEST = 2**14  # width and height in pixels
CHUNK = 32  # pictures drawn at once, so that they stay in the cache


@own_modes
def render(scenes: Scenes, size: int = 64, *, mask: Tensor | None = None) -> Tensor:
    """Draw scenes as pictures.

    The object is composited over the background by its coverage, both are multiplied by linear lighting,
    and Gaussian grain is added. Every pixel is evaluated at its centre with a one-pixel-wide edge.

    Args:
        scenes: What to draw.
        size: Width and height in pixels.
        mask: Coverage of each pixel by another outline than the scenes' own, ``(n, 1, size, size)``.

    Returns:
        ``(n, 3, size, size)`` float32 in [0, 1]. The same scenes give the same pictures, to the bit.

    Raises:
        ValueError: If ``size`` is smaller than 16, where textures cannot be seen, or larger than 16384.
    """
    _require_size(size)
    if mask is None:
        mask = object_mask(scenes, size)
    parts = zip(_chunks(scenes), mask.split(CHUNK))
    pictures = [_paint(part, covered, size) for part, covered in parts]
    return torch.cat(pictures) if pictures else torch.empty(0, 3, size, size, dtype=torch.float32)


@own_modes
def object_mask(scenes: Scenes, size: int = 64) -> Tensor:
    """Coverage of each pixel by the object, ``(n, 1, size, size)`` float32 in [0, 1]; see :func:`render`.

    Args:
        scenes: What is shown.
        size: Width and height in pixels.

    Returns:
        The masks.
    """
    _require_size(size)
    masks = [
        coverage(part, signed_distance(part.shape, *object_frame(part, size))) for part in _chunks(scenes)
    ]
    return torch.cat(masks) if masks else torch.empty(0, 1, size, size, dtype=torch.float32)


@own_modes
def object_frame(scenes: Scenes, size: int = 64) -> tuple[Tensor, Tensor]:
    """Each pixel's coordinates in the object's own frame, in object radii, two of ``(n, size, size)``.

    Args:
        scenes: What is shown.
        size: Width and height in pixels.

    Returns:
        The two coordinates, along and across the object.
    """
    pixel = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    radius = scenes.radius[:, None, None]
    x = (pixel[None, None, :] - scenes.centre[:, 0, None, None]) / radius
    y = (pixel[None, :, None] - scenes.centre[:, 1, None, None]) / radius
    cos, sin = scenes.angle.cos()[:, None, None], scenes.angle.sin()[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def coverage(scenes: Scenes, distance: Tensor) -> Tensor:
    """How much of each pixel lies inside an outline, ``(n, 1, size, size)``.

    Args:
        scenes: Whose frames the distances are measured in.
        distance: Signed distance to the outline at each pixel, in object radii, ``(n, size, size)``.
    """
    pixels = scenes.radius[:, None, None] * distance.shape[-1]
    return (0.5 - distance * pixels).clamp(0, 1)[:, None]


@own_modes
def object_paint(scenes: Scenes, size: int = 64) -> Tensor:
    """The object's colour and texture, unlit, as if it covered everything, ``(n, 3, size, size)``."""
    stripes, dots = texture_distance(*object_frame(scenes, size))
    texture = scenes.texture[:, None, None, None]
    striped, dotted = coverage(scenes, stripes), coverage(scenes, dots)
    dark = torch.where(texture == 1, striped, torch.where(texture == 2, dotted, 0.0))
    paint = (PALETTE[scenes.colour] + scenes.object_jitter)[..., None, None]
    return paint * (1 - (1 - SHADE) * dark)


def texture_distance(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distances to the dark stripes and to the dark dots, in object radii, in the object's frame."""

    def fold(t: Tensor) -> Tensor:  # distance to the nearest multiple of PERIOD
        return (t - PERIOD * (t / PERIOD).round()).abs()

    stripes = fold((u + v) * 0.5**0.5) - PERIOD / 4
    dots = (fold(u).square() + fold(v).square()).sqrt() - DOT
    return stripes, dots


def _require_size(size: int) -> None:
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, got {size}")
    if size > LARGEST:
        raise ValueError(f"size must be at most {LARGEST} pixels, got {size}")


def _chunks(scenes: Scenes) -> list[Scenes]:
    return [scenes[i : i + CHUNK] for i in range(0, len(scenes), CHUNK)]


def _paint(scenes: Scenes, mask: Tensor, size: int) -> Tensor:
    ground = (PALETTE[scenes.background] + scenes.background_jitter)[..., None, None]
    picture = ground + mask * (object_paint(scenes, size) - ground)

    across = ((torch.arange(size, dtype=torch.float32) + 0.5) / size - 0.5) * 2
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
    return torch.randn(256, 256, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
