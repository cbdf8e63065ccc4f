"""Random views of a picture that can be shared: the same crops, noise and blur for every picture shown."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR = ((1.0, 2.0, 1.0), (2.0, 4.0, 2.0), (1.0, 2.0, 1.0))


class Views(NamedTuple):
    """Parameters of ``B`` views; :func:`look` applies them.

    ``maps`` are affine maps from the view's coordinates to the picture's, both in [-1, 1].
    """

    maps: Tensor  # (B, 2, 3)
    noise: Tensor  # (B, 3, S, S)
    blurred: Tensor  # (B, 1, 1, 1) bool


def draw_views(
    count: int,
    size: int,
    *,
    scale: tuple[float, float],
    shift: float,
    jitter: float,
    noise: float,
    blurred: float,
    generator: torch.Generator,
) -> Views:
    """Draw the parameters of ``count`` views of ``size`` by ``size`` pixels, on the CPU.

    Args:
        count: How many views.
        size: Their width and height in pixels.
        scale: Range of the share of the picture's width and height that a view shows; above 1 it looks
            over the edge, where border pixels continue.
        shift: Largest displacement, in picture widths and heights.
        jitter: Largest rotation (radians) and shear.
        noise: Largest standard deviation of a view's noise; each view draws its own.
        blurred: Share of views that are blurred.
        generator: Source of random numbers. The same state gives the same views, and at another ``size`` the
            same crops and blur.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((count, *shape), generator=generator, dtype=torch.float32)

    zoom, angle, shear = uniform(*scale, 1), uniform(-jitter, jitter, 1), uniform(-jitter, jitter, 1)
    first = torch.cat([angle.cos(), shear - angle.sin()], -1)
    second = torch.cat([angle.sin(), angle.cos()], -1)
    turn = zoom[..., None] * torch.stack([first, second], -2)
    # shift is in widths; coordinates run over [-1, 1], two units a width
    maps = torch.cat([turn, uniform(-2 * shift, 2 * shift, 2, 1)], -1)
    soft, strength = uniform(0, 1, 1, 1, 1) < blurred, uniform(0, noise, 1, 1, 1)
    # last, so that views of every size share the rest
    grain = torch.randn((count, 3, size, size), generator=generator, dtype=torch.float32)
    return Views(maps, strength * grain, soft)


def look(picture: Tensor, views: Views) -> Tensor:
    """Show ``picture`` under ``views``.

    Args:
        picture: ``(1, 3, H, W)`` of any size and proportions; a view squeezes it to a square.
        views: From :func:`draw_views`, on the picture's device.

    Returns:
        ``(B, 3, S, S)``, not clamped.

    Gradients:
        To ``picture``.
    """
    B, _, S, _ = views.noise.shape
    H, W = picture.shape[-2:]
    if max(H, W) > 1.5 * S:  # sampling alone would skip pixels
        fit = (min(H, S * 5 // 4), min(W, S * 5 // 4))
        picture = F.interpolate(picture, fit, mode="bilinear", antialias=True, align_corners=False)
    grid = F.affine_grid(views.maps, [B, 3, S, S], align_corners=False)
    seen = F.grid_sample(picture.expand(B, -1, -1, -1), grid, padding_mode="border", align_corners=False)
    kernel = torch.tensor(BLUR, dtype=seen.dtype, device=seen.device).div(16).expand(3, 1, 3, 3)
    soft = F.conv2d(F.pad(seen, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    return torch.where(views.blurred, soft, seen) + views.noise
