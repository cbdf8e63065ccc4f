"""Views as Text2LIVE's release draws them: in the picture's proportions, warped, and tinted a little.

Each shows the whole picture or a crop of it at CLIP's size, and is then mirrored, shifted and turned, seen
from aside, tinted or made grey, each by chance. What lies outside of the picture is filled.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COVER = (0.6, 1.0)  # of height and width that a crop shows; the first view shows all
MIRRORED, TURNED, ASIDE, TINTED, GREY = 0.5, 0.8, 0.5, 0.7, 0.15  # how often
DEGREES, SHIFT, DISTORTION = 15.0, 0.1, 0.4
LONGEST = 320 / 224  # sides of a view, for one of its shorter side
STRENGTH = 0.1  # of a tint: how far each of its four factors goes
GREYS = (0.2989, 0.587, 0.114)


class Tint(NamedTuple):
    """Factors of brightness, contrast and saturation, a shift of hue, and the order of the four."""

    factors: tuple[float, float, float, float]
    order: tuple[int, ...]

    def on(self, pictures: Tensor) -> Tensor:
        """``pictures`` (B, 3, H, W) with it, within [0, 1]."""
        from torchvision.transforms import functional

        ways = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
        for i in self.order:
            pictures = getattr(functional, ways[i])(pictures, self.factors[i])
        return pictures


class PhotoView(NamedTuple):
    """One view, in shares of whatever picture it will show; :func:`look_at_photo` applies it."""

    crop: tuple[float, float, float] | None  # share of the sides; where it lies, from 0 to 1
    mirrored: bool
    turn: tuple[float, float, float] | None  # degrees; shares of the sides by which it is moved
    corners: tuple[float, ...] | None  # how far each goes inwards, across and down, from 0 to 1
    tint: Tint | None
    grey: bool


def draw_tint(generator: torch.Generator) -> Tint:
    """Draw one."""
    chance = (2 * torch.rand(4, generator=generator, dtype=torch.float32) - 1) * STRENGTH
    light, contrast, saturation, hue = chance.tolist()
    order = torch.randperm(4, generator=generator, dtype=torch.int64).tolist()
    return Tint((1 + light, 1 + contrast, 1 + saturation, hue), tuple(order))


def draw_photo_views(count: int, generator: torch.Generator) -> list[PhotoView]:
    """Draw ``count`` views, the first of them uncropped; the same state of ``generator`` gives the same."""
    views = []
    for i in range(count):
        chance = torch.rand(19, generator=generator, dtype=torch.float32).tolist()
        tint = draw_tint(generator)
        cover = COVER[0] + (COVER[1] - COVER[0]) * chance[0]
        angle, *moved = (2 * c - 1 for c in chance[3:6])
        views.append(
            PhotoView(
                crop=(cover, *chance[1:3]) if i else None,
                mirrored=chance[6] < MIRRORED,
                turn=(DEGREES * angle, SHIFT * moved[0], SHIFT * moved[1]) if chance[7] < TURNED else None,
                corners=tuple(chance[11:19]) if chance[8] < ASIDE else None,
                tint=tint if chance[9] < TINTED else None,
                grey=chance[10] < GREY,
            )
        )
    return views


def look_at_photo(picture: Tensor, views: Sequence[PhotoView], side: int, *, fill: float) -> Tensor:
    """Show ``picture`` under ``views``.

    Args:
        picture: ``(1, 3, H, W)`` in [0, 1].
        views: From :func:`draw_photo_views`.
        side: Shorter side of what is shown; the longer one is at most ``LONGEST`` of it.
        fill: Shade of what lies outside of the picture.

    Returns:
        ``(V, 3, h, w)``.

    Gradients:
        To ``picture``.
    """
    size = fitted(picture.shape[-2:], side, int(side * LONGEST))
    return torch.cat([_look(picture, view, size, fill) for view in views])


def fitted(sides: tuple[int, int], short: int, longest: int) -> tuple[int, int]:
    """Height and width in the proportions of ``sides``, the shorter ``short`` if the longer permits."""
    low, high = min(sides), max(sides)
    long = int(short * high / low)
    if long > longest:
        short, long = int(longest * short / long), longest
    short = max(1, short)
    return (short, long) if sides[0] <= sides[1] else (long, short)


def resampled(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """``picture`` at ``size``, bilinear between pixels, as the release resizes tensors: without smoothing."""
    if picture.shape[-2:] == torch.Size(size):
        return picture
    return F.interpolate(picture, size, mode="bilinear", align_corners=False)


def _look(picture: Tensor, view: PhotoView, size: tuple[int, int], fill: float) -> Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as warps

    how = {"interpolation": InterpolationMode.BILINEAR, "fill": [fill] * 3}
    h, w = size
    seen = resampled(picture if view.crop is None else _window(picture, *view.crop), size)
    seen = seen.flip(-1) if view.mirrored else seen
    if view.turn is not None:
        angle, across, down = view.turn
        moved = [round(across * w), round(down * h)]
        seen = warps.affine(seen, angle, moved, 1.0, [0.0, 0.0], **how)
    if view.corners is not None:
        edges = [[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]]
        seen = warps.perspective(seen, edges, _inwards(edges, view.corners, size), **how)
    seen = seen if view.tint is None else view.tint.on(seen)
    if view.grey:
        weights = torch.tensor(GREYS, dtype=seen.dtype, device=seen.device).view(3, 1, 1)
        seen = (weights * seen).sum(1, keepdim=True).expand_as(seen)
    return seen


def _window(picture: Tensor, share: float, down: float, across: float) -> Tensor:
    H, W = picture.shape[-2:]
    h, w = max(1, int(share * H)), max(1, int(share * W))
    top, left = int(down * (H - h + 1)), int(across * (W - w + 1))
    return picture[..., top : top + h, left : left + w]


def _inwards(edges: list[list[int]], shares: tuple[float, ...], size: tuple[int, int]) -> list[list[int]]:
    """Corners moved inwards by shares of at most ``DISTORTION`` of half a side."""
    most = [int(DISTORTION * (side // 2)) for side in (size[1], size[0])]
    moved = []
    for corner, pair in zip(edges, zip(shares[::2], shares[1::2])):
        steps = [int(share * (limit + 1)) for share, limit in zip(pair, most)]
        moved.append([at + step if at == 0 else at - step for at, step in zip(corner, steps)])
    return moved
