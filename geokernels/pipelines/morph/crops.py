"""Windows of one picture: where they lie, mirrored or not, and how the picture is scaled and tinted first."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..guidance.photo_views import Tint, draw_tint


class Crop(NamedTuple):
    """A window of a picture, whether it is mirrored, and how it is scaled and tinted first."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool
    sides: tuple[int, int] | None = None  # of the whole picture when the window is taken; None for its own
    tint: Tint | None = None

    def take(self, x: Tensor) -> Tensor:
        """The window of ``x`` (..., H, W), without its tint."""
        x = x if self.sides is None else resized(x, self.sides)
        window = x[..., self.top : self.top + self.height, self.left : self.left + self.width]
        return window.flip(-1) if self.mirrored else window

    def show(self, picture: Tensor) -> Tensor:
        """The window of ``picture`` (1, 3, H, W), as it is edited."""
        window = self.take(picture)
        return window if self.tint is None else self.tint.on(window)


def resized(x: Tensor, sides: tuple[int, int]) -> Tensor:
    """``x`` (B, C, H, W) at ``sides``, smoothed where it shrinks; itself where it has them."""
    if x.shape[-2:] == torch.Size(sides):
        return x
    return F.interpolate(x, sides, mode="bilinear", antialias=True, align_corners=False)


def draw_crops(
    count: int,
    size: tuple[int, int],
    *,
    share: tuple[float, float],
    mirrored: float,
    generator: torch.Generator,
) -> list[Crop]:
    """Draw windows of pictures of ``size`` (H, W); the first is the whole picture.

    Args:
        count: How many, the whole picture included.
        size: Any, down to one pixel: windows are shares of it, at least a pixel wide and high.
        share: Range of a window's share of height and width, within (0, 1].
        mirrored: Share of windows that are mirrored.
        generator: Source of random numbers, on the CPU.
    """
    H, W = size
    crops = [Crop(0, 0, H, W, False)]
    for chance in torch.rand((count - 1, 4), generator=generator, dtype=torch.float32).tolist():
        part = share[0] + (share[1] - share[0]) * chance[0]
        height, width = max(1, round(part * H)), max(1, round(part * W))
        top, left = round(chance[1] * (H - height)), round(chance[2] * (W - width))
        crops.append(Crop(top, left, height, width, chance[3] < mirrored))
    return crops


def draw_crop(
    size: tuple[int, int],
    *,
    zoom: tuple[float, float],
    share: tuple[float, float],
    mirrored: float,
    tinted: float,
    generator: torch.Generator,
) -> Crop:
    """Draw one window as Text2LIVE's release does: of the picture scaled, perhaps mirrored and tinted.

    Args:
        size: Height and width of the picture.
        zoom: Range of the factor by which it is scaled first.
        share: Range of the window's share of its sides then, within (0, 1].
        mirrored: How often it is mirrored.
        tinted: How often it is tinted.
        generator: Source of random numbers, on the CPU.
    """
    chance = torch.rand(6, generator=generator, dtype=torch.float32).tolist()
    tint = draw_tint(generator)
    scale, part = (low + (high - low) * c for (low, high), c in zip((zoom, share), chance))
    H, W = (max(1, int(scale * side)) for side in size)
    height, width = max(1, int(part * H)), max(1, int(part * W))
    top, left = int(chance[2] * (H - height + 1)), int(chance[3] * (W - width + 1))
    tint = tint if chance[5] < tinted else None
    return Crop(top, left, height, width, chance[4] < mirrored, (H, W), tint)
