"""Where each pixel of one picture lies in another, and how far that is to be believed."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..._checks import require_finite, require_shades, require_shape
from ..._modes import own_modes
from ...models.clip import ClipEncoder
from ...models.dino import DinoKeys
from ..morph.picture import require_picture
from .dense import HALF, dense_maps
from .fixed import Fixed
from .matching import MatchingConfig, match_grids

__all__ = ["Maps", "MatchingConfig", "find_maps", "unfolded_share"]

LEAST_SIDE = 16  # pixels
PLAIN = MatchingConfig()

Progress = Callable[[str, int, int], None]  # what is done, how many steps of it are, of how many


class Maps(NamedTuple):
    """Two pictures laid on each other, pixel by pixel. Positions are (x, y), pixel centres at whole numbers.

    Attributes:
        to_b: Where every pixel of A lies in B, in B's pixels, ``(H, W, 2)`` float32.
        to_a: Where every pixel of B lies in A, in A's pixels, ``(Hb, Wb, 2)``.
        confidence_a: How far ``to_b`` is to be believed, ``(H, W)`` in [0, 1]; low where nothing in B is
            alike, or the way back leads elsewhere.
        confidence_b: The same of ``to_a``, ``(Hb, Wb)``.
    """

    to_b: Tensor
    to_a: Tensor
    confidence_a: Tensor
    confidence_b: Tensor


@own_modes
@torch.no_grad()
def find_maps(
    a: Tensor,
    b: Tensor,
    config: MatchingConfig = PLAIN,
    *,
    encoder: ClipEncoder | DinoKeys | None = None,
    fixed: Tensor | None = None,
    masks: tuple[Tensor, Tensor] | None = None,
    progress: Progress | None = None,
) -> Maps:
    """Find where the pixels of two pictures lie in each other.

    Points of both pictures, described by colours and oriented gradients at three scales, are matched by
    unbalanced transport, coarse to fine, and smoothed between; the maps are made dense along the edges of the
    pictures, and refined by optical flow where that makes the pictures more alike.

    Args:
        a: ``(3, H, W)`` float32 in [0, 1], at least 16 pixels a side.
        b: ``(3, Hb, Wb)`` likewise; its size and aspect ratio may be others.
        config: How points are matched.
        encoder: A CLIP (``load_clip``) or DINO (``load_dino``) whose patches describe the points instead of
            colours and gradients.
        fixed: Pairs of points that lie on each other, ``(F, 4)``: x and y in A, x and y in B, in pixels. The
            maps lead from each to its partner, and are drawn along smoothly around.
        masks: What of either picture may match what of the other: ``(H, W)`` and ``(Hb, Wb)`` in [0, 1].
            Inside finds partners inside alone, outside outside; no map is believed that leads across.
        progress: Called with what is being done, how many steps of it are, and of how many.

    Returns:
        Maps both ways, with their confidence; on the CPU.

    Raises:
        ValueError: If a picture is none or too small, a fixed point lies outside of its picture or is fixed
            to two places, or a mask is not of its picture's size, or all inside or all outside.
        TypeError: If the encoder is neither a CLIP nor a DINO.
        ImportError: If OpenCV is not installed.
    """
    for name, picture in (("a", a), ("b", b)):
        require_picture(picture, name)
        if min(picture.shape[1:]) < LEAST_SIDE:
            raise ValueError(
                f"{name} must be at least {LEAST_SIDE} pixels a side, "
                f"got {picture.shape[2]} x {picture.shape[1]}"
            )
    a, b = (picture.detach().cpu().float() for picture in (a, b))
    pairs = Fixed.of(fixed, a, b)
    tell = progress or (lambda stage, done, total: None)
    masks = None if masks is None else require_masks(masks, (a, b))
    how = {"fixed": pairs, "masks": masks, "progress": tell}
    coarse = match_grids(a, b, config, encoder=encoder, **how)
    return Maps(*dense_maps(a, b, coarse, config, **how))


def require_masks(masks: tuple[Tensor, Tensor], pictures: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Both masks, float32 on the CPU.

    Raises:
        ValueError: If they are not two, one is not of its picture's size or not in [0, 1], or has no inside
            or no outside; names it.
    """
    if len(masks) != 2:
        raise ValueError(f"masks must be two, one of each picture, got {len(masks)}")
    found = []
    for name, mask, picture in zip(("mask_a", "mask_b"), masks, pictures):
        require_shape(name, mask, tuple(picture.shape[1:]), "(H, W)")
        mask = mask.detach().cpu().float()
        require_finite(name, mask)
        require_shades(name, mask)
        inside = mask > HALF
        if inside.all() or not inside.any():
            raise ValueError(
                f"{name} must have an inside and an outside, got {inside.float().mean():.0%} inside"
            )
        found.append(mask)
    return found[0], found[1]


def unfolded_share(positions: Tensor) -> float:
    """The share of pixels about which a map ``(H, W, 2)`` keeps its orientation: a positive Jacobian.

    The others lie in folds.
    """
    across = positions[:-1, 1:] - positions[:-1, :-1]
    down = positions[1:, :-1] - positions[:-1, :-1]
    area = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
    return (area > 0).float().mean().item()
