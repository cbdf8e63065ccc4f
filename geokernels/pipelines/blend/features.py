"""What points look like: colours and oriented gradients at three scales, or patches of a model."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.clip import ClipEncoder
from ...models.dino import DinoKeys
from .grids import Size, plane

# Ours, chosen on warped photographs; that histograms lie on a ring about the point is DAISY's arrangement
# (E. Tola, V. Lepetit and P. Fua, 2010).
SPACING = 4  # pixels from point to point, of the size at which a picture is described
SCALES = (2.0, 4.0, 8.0)  # blur in those pixels; the ring lies at twice as many
BINS = 8  # of directions of gradients, and places on the ring
COLOUR = 0.5  # weight of colours beside gradients
FAINT = 0.3  # of the usual strength of gradients: what is below counts less
KEPT = 48  # principal axes of both pictures together
LUMA = (
    (0.299, 0.587, 0.114),
    (0.5, -0.5, 0.0),
    (0.25, 0.25, -0.5),
)  # and two contrasts of colour


def describe(
    a: Tensor, b: Tensor, size_a: Size, size_b: Size, encoder: ClipEncoder | DinoKeys | None = None
) -> tuple[Tensor, Tensor]:
    """Features of the points of two pictures, about their common mean and along common axes.

    Args:
        a: ``(3, H, W)`` in [0, 1].
        b: ``(3, Hb, Wb)`` likewise.
        size_a: How many points there are, down and across; they lie in the middles of equal cells.
        size_b: The same for ``b``.
        encoder: A CLIP or DINO whose patches are taken; None for colours and gradients.

    Returns:
        Rows ``(N, D)`` and ``(M, D)``, point by point along lines of the grids.

    Raises:
        TypeError: If the encoder is neither a CLIP nor a DINO.
    """
    rows = [
        _gradients_and_colours(picture, size) if encoder is None else _patches(picture, size, encoder)
        for picture, size in ((a, size_a), (b, size_b))
    ]
    both = torch.cat(rows)
    mean = both.mean(0)
    spread = (both - mean).T @ (both - mean) / len(both)
    axes = torch.linalg.eigh(spread).eigenvectors[:, -KEPT:]
    first, second = ((part - mean) @ axes for part in rows)
    return first, second


def _gradients_and_colours(picture: Tensor, size: Size) -> Tensor:
    """Per point and scale: directions of gradients at the point and on a ring, and the colours there."""
    H, W = (SPACING * side for side in size)
    shown = F.interpolate(picture[None], (H, W), mode="bilinear", antialias=True, align_corners=False)
    planes = torch.einsum("kc,bchw->bkhw", picture.new_tensor(LUMA), shown)
    # light and tint are the whole picture's, and differ between two pictures of one thing
    planes = planes - planes.mean((2, 3), keepdim=True)
    planes = planes / (planes[:, :1].std() + 0.02)
    pooled = torch.cat([_directions(_blurred(planes, 1.0)), planes], 1)
    parts = []
    for scale in SCALES:
        around = _around(_blurred(pooled, scale), size, 2 * scale)
        gradients, colours = around[..., :BINS].flatten(1), around[..., BINS:].flatten(1)
        energy = gradients.square().sum(1, keepdim=True)
        parts.append(gradients / (energy + FAINT**2 * energy.median() + 1e-12).sqrt())
        parts.append(colours * (COLOUR / math.sqrt(colours.shape[1])))
    return torch.cat(parts, 1)


def _directions(planes: Tensor) -> Tensor:
    """How much the planes ``(1, C, H, W)`` rise in each of the directions, ``(1, BINS, H, W)``."""
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    angle = torch.arange(BINS, dtype=planes.dtype) * (2 * math.pi / BINS)
    cos, sin = angle.cos().view(1, BINS, 1, 1, 1), angle.sin().view(1, BINS, 1, 1, 1)
    return (cos * right[:, None] + sin * down[:, None]).relu().sum(2)


def _blurred(planes: Tensor, sigma: float) -> Tensor:
    """Every plane of ``(1, C, H, W)`` under a Gaussian; beyond the border it is as at the border."""
    H, W = planes.shape[2:]
    return _gaussian(H, sigma) @ planes @ _gaussian(W, sigma).T


def _gaussian(side: int, sigma: float) -> Tensor:
    """Weights of all places of a line at each of them, ``(side, side)``: quick as a product."""
    at = torch.arange(side, dtype=torch.float32)
    beyond = torch.arange(-math.ceil(3 * sigma), side + math.ceil(3 * sigma), dtype=torch.float32)
    weight = torch.exp(-(at[:, None] - beyond).square() / (2 * sigma**2))
    place = beyond.clamp(0, side - 1).long().expand(side, -1)
    summed = torch.zeros(side, side, dtype=torch.float32).scatter_add_(1, place, weight)
    return summed / summed.sum(1, keepdim=True)


def _around(planes: Tensor, size: Size, radius: float) -> Tensor:
    """Planes ``(1, C, H, W)`` at every point and on the ring about it, ``(N, 1 + BINS, C)``."""
    H, W = planes.shape[2:]
    angle = torch.arange(BINS, dtype=planes.dtype) * (2 * math.pi / BINS)
    ring = torch.stack([angle.cos(), angle.sin()], 1) * radius
    offsets = torch.cat([torch.zeros_like(ring[:1]), ring]) * planes.new_tensor([2 / W, 2 / H])
    places = plane(size).reshape(-1, 1, 2) + offsets
    found = F.grid_sample(planes, places[None], padding_mode="reflection", align_corners=False)
    return found[0].permute(1, 2, 0)


def _patches(picture: Tensor, size: Size, encoder: ClipEncoder | DinoKeys) -> Tensor:
    """A model's features of the patches, between patches bilinearly."""
    if isinstance(encoder, DinoKeys):
        rows = encoder(picture[None])[:, 1:]
    elif hasattr(encoder, "encode_image_and_tokens"):
        # the whole picture, of which the encoder itself would cut off what makes it longer than wide
        side = (encoder.image_size, encoder.image_size)
        square = F.interpolate(picture[None], side, mode="bilinear", antialias=True, align_corners=False)
        rows = encoder.encode_image_and_tokens(square.clamp(0, 1))[1]
    else:
        raise TypeError(f"encoder must be a CLIP or a DINO, got {type(encoder).__name__}")
    side = math.isqrt(rows.shape[1])
    patches = rows.mT.unflatten(2, (side, side))
    return F.interpolate(patches, size, mode="bilinear", align_corners=False)[0].flatten(1).T
