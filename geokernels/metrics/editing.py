"""What edits are measured by, as PIE-Bench measures them; features come from whichever models there are."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .._modes import own_modes
from .conventions import Conventions


class OutsideScore(NamedTuple):
    """How like its source a picture stayed where it should not change.

    Attributes:
        psnr: In dB; infinite where the two agree exactly.
        ssim: Structural similarity, 1 where the two agree.
        mse: Mean squared error.
    """

    psnr: float
    ssim: float
    mse: float


def clip_score(image: Tensor, text: Tensor) -> Tensor:
    """CLIP score, as torchmetrics defines it: 100 times the cosine, at least 0.

    Args:
        image: Unit features of pictures, ``(B, D)``.
        text: Unit features of what they shall show, ``(B, D)``.

    Returns:
        ``(B,)``.
    """
    return 100 * (image * text).sum(-1).clamp(min=0)


def directional_similarity(before: Tensor, after: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Cosine of the change of the picture and the change of the text; 0 where one of them does not change.

    Args:
        before: Unit features of the source pictures, ``(B, D)``.
        after: Of the edits, ``(B, D)``.
        source: Of the source texts, ``(B, D)``.
        target: Of the target texts, ``(B, D)``.

    Returns:
        ``(B,)`` in [-1, 1].
    """
    return torch.cosine_similarity(after - before, target - source, dim=-1, eps=1e-8)


def blank(pictures: Tensor, where: Tensor) -> Tensor:
    """Pictures ``(..., 3, H, W)`` in black ``where`` ``(..., 1, H, W)`` bool is true.

    Args:
        pictures: ``(..., 3, H, W)``.
        where: ``(..., 1, H, W)`` bool.

    Returns:
        Like ``pictures``.
    """
    return torch.where(where, 0.0, pictures)


def filled(picture: Tensor, source: Tensor, inside: Tensor, fill: str) -> Tensor:
    """A picture that shows ``fill`` inside of a mask: black, grey, or what ``source`` does.

    Args:
        picture: ``(..., 3, H, W)`` in [0, 1].
        source: Like ``picture``.
        inside: ``(..., 1, H, W)`` bool.
        fill: Of :class:`Conventions`.

    Returns:
        Like ``picture``.
    """
    if fill == "black":
        return blank(picture, inside)
    return torch.where(inside, source if fill == "source" else 0.5, picture)


@own_modes
def outside_score(
    picture: Tensor, source: Tensor, inside: Tensor, conventions: Conventions | None = None
) -> OutsideScore | None:
    """Compare two pictures outside a mask, by torchmetrics.

    Args:
        picture: ``(3, H, W)`` in [0, 1].
        source: Like ``picture``.
        inside: ``(1, H, W)`` bool.
        conventions: What is filled in inside, and what is counted; None for the published ones: both are made
            black inside and then compared whole, so that numbers can be set beside published ones.
            :func:`outside_psnr` counts the pixels outside alone.

    Returns:
        None if nothing is outside, and such edits are skipped.

    Raises:
        ImportError: If torchmetrics is not installed.
    """
    how = conventions or Conventions()
    nothing = bool(inside.all())
    if nothing and how.whole_masks == "skipped":
        return None
    image = _torchmetrics()
    a, b = (filled(given, source, inside, how.fill)[None] for given in (picture, source))
    window = {} if how.ssim == "gaussian" else {"gaussian_kernel": False, "kernel_size": 7}
    likeness = image.structural_similarity_index_measure(
        a, b, data_range=1.0, return_full_image=True, **window
    )[1]
    # where nothing is outside, what is counted is what was filled in
    counts = ~inside if how.counted == "outside" and not nothing else torch.ones_like(inside)
    counts = counts.expand_as(picture)
    a, b, likeness = a[0][counts], b[0][counts], likeness.reshape(picture.shape)[counts]
    mse = float((a - b).double().square().mean())
    psnr = float(image.peak_signal_noise_ratio(a, b, data_range=1.0)) if mse else math.inf
    return OutsideScore(psnr, float(likeness.mean()), mse)


def _torchmetrics():
    try:
        import torchmetrics.functional.image as image
    except ImportError as error:
        raise ImportError('evaluation needs torchmetrics: pip install "geokernels[diffusion]"') from error
    return image
