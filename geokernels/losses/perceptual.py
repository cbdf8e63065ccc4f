"""Distances between pictures: by their features, and of a picture to smoothness."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import require_rank, require_shape

COARSEST = 8  # a pyramid of pictures ends below this many pixels a side


def feature_distance(features: Sequence[Tensor], others: Sequence[Tensor], *, eps: float = 1e-10) -> Tensor:
    r"""Squared distance between unit feature vectors, averaged over places and layers.

    $$d = \frac1L \sum_l \frac1{H_l W_l} \sum_{h,w} \big|\hat f_{l,hw} - \hat g_{l,hw}\big|^2, \qquad
      \hat f = f / |f|$$

    This is LPIPS without its learned channel weights; call it a feature distance, not LPIPS.

    Args:
        features: One map a layer, ``(B, C, H, W)``.
        others: Maps of the other pictures, layer by layer of the same shapes.
        eps: Added to squared lengths, so that a vector of zeros has a gradient of zero.

    Returns:
        Distances, ``(B,)``, between 0 and 4.

    Gradients:
        To both, any order.

    Raises:
        ValueError: If there are no layers, or their numbers or shapes disagree.
    """
    if not features or len(features) != len(others):
        raise ValueError(
            f"others must have one map for each of features, and there must be some, "
            f"got {len(others)} for {len(features)}"
        )
    layers = []
    for layer, (f, g) in enumerate(zip(features, others)):
        if f.dim() != 4 or f.shape != g.shape:
            raise ValueError(
                f"layer {layer} must have one shape (B, C, H, W) in both, "
                f"got {tuple(f.shape)} and {tuple(g.shape)}"
            )
        f, g = (x * (x.square().sum(1, keepdim=True) + eps).rsqrt() for x in (f, g))
        layers.append((f - g).square().sum(1).mean((1, 2)))
    return torch.stack(layers).mean(0)


def pyramid_distance(pictures: Tensor, others: Tensor) -> Tensor:
    """Distance of pictures by their details at every scale, without a model.

    Each picture is halved again and again; what each halving loses, the edges of that scale, is compared in
    absolute value, and so is what is left. An edge that has moved is thereby judged at the scale at which it
    still overlaps. Call it a pyramid distance, not LPIPS.

    Args:
        pictures: ``(B, C, H, W)``.
        others: Like ``pictures``.

    Returns:
        Distances, ``(B,)``, at least 0: the mean over the scales.

    Gradients:
        To both, first order; the sign at a difference of zero is 0.

    Raises:
        ValueError: If the shapes disagree.

    Example:
        >>> import torch
        >>> black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
        >>> pyramid_distance(black, black), pyramid_distance(black, white)
        (tensor([0.]), tensor([0.5000]))
    """
    require_rank("pictures", pictures, 4, "(B, C, H, W)")
    require_shape("others", others, tuple(pictures.shape), "(B, C, H, W)")
    rest, scales = pictures - others, []
    while min(rest.shape[-2:]) > COARSEST // 2 and min(rest.shape[-2:]) > 1:
        half = F.avg_pool2d(rest, 2, ceil_mode=True)
        detail = rest - F.interpolate(half, rest.shape[-2:], mode="nearest")
        scales.append(detail.abs().mean((1, 2, 3)))
        rest = half
    return torch.stack([*scales, rest.abs().mean((1, 2, 3))]).mean(0)


def total_variation(picture: Tensor) -> Tensor:
    """Mean absolute difference between neighbouring pixels, ``(..., H, W)`` to a scalar.

    A picture one pixel wide or high has no neighbours that way: they contribute 0.

    Args:
        picture: ``(..., H, W)``.

    Returns:
        A scalar, 0 for a picture of one colour.

    Gradients:
        First order; the sign at a difference of zero is 0.
    """
    across = (picture[..., :, 1:] - picture[..., :, :-1]).abs()
    down = (picture[..., 1:, :] - picture[..., :-1, :]).abs()
    return across.sum() / max(across.numel(), 1) + down.sum() / max(down.numel(), 1)
