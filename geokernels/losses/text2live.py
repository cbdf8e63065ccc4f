"""The losses of layered editing: an edit is a colour and an opacity, judged by what CLIP sees of them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import require_float, require_rank, require_shape
from .._precision import full_precision
from .._typing import Rows
from .directional import directional_loss, spherical_loss, unit_rows

GREEN = (0.0, 177 / 255, 64 / 255)  # of the screen behind an edit that is looked at by itself
STEEPNESS = 5.0  # of the sigmoid that stands for a count of what is not 0


def lay_over(colour: Tensor, opacity: Tensor, ground: Tensor) -> Tensor:
    """Lay an edit over a picture: ``opacity * colour + (1 - opacity) * ground``.

    Where the opacity is 0 the result is ``ground`` to the bit.

    Args:
        colour: ``(..., 3, H, W)``.
        opacity: ``(..., 1, H, W)`` in [0, 1].
        ground: Like ``colour``.

    Returns:
        Like ``ground``.

    Gradients:
        To all three, any order.
    """
    return opacity * colour + (1 - opacity) * ground


def lay_over_screen(colour: Tensor, opacity: Tensor) -> Tensor:
    """Lay an edit over the green of a film studio; arguments and gradients are those of :func:`lay_over`."""
    green = torch.tensor(GREEN, dtype=colour.dtype, device=colour.device).view(3, 1, 1)
    return lay_over(colour, opacity, green.expand_as(colour))


def composition_loss(
    current: Rows,
    source: Rows,
    text_source: Rows,
    text_target: Rows,
    *,
    direction: Callable[[Rows, Rows, Rows, Rows], Tensor] = directional_loss,
) -> Tensor:
    """Does the edited picture show what the text asks, and has it changed as the texts differ?

    The sum of :func:`spherical_loss` and of a loss of direction.

    Args:
        current: Features of the edited picture's views, ``(..., B, D)``, unit rows.
        source: Features of the source picture under the same views, like ``current``.
        text_source: Features of the source prompt under T templates, ``(..., T, D)``.
        text_target: The same of the target prompt.
        direction: Of these four: ``directional_loss``, or ``geodesic_consistency_loss`` in its place.

    Returns:
        The loss, ``(...)``.

    Gradients:
        Those of the two losses.

    Raises:
        ValueError: If shapes disagree.
        TypeError: If dtypes or devices disagree.
    """
    return spherical_loss(current, text_target) + direction(current, source, text_source, text_target)


@full_precision
def self_similarity(tokens: Tensor) -> Tensor:
    """Cosines between all tokens of each picture: where things are alike, whatever they look like.

    Args:
        tokens: ``(..., N, C)``.

    Returns:
        ``(..., N, N)``; float32 for float16 and bfloat16. Tokens without direction have cosines of 0.

    Gradients:
        To ``tokens``, any order.

    Raises:
        ValueError: If ``tokens`` has fewer than two dimensions.
        TypeError: If it is not floating point.
    """
    require_rank("tokens", tokens, 2, "(..., N, C)")
    require_float("tokens", tokens)
    rows = unit_rows(_single(tokens))
    return rows @ rows.mT


@full_precision
def structure_loss(tokens: Tensor, source_similarity: Tensor) -> Tensor:
    r"""Has the layout changed? The mean squared difference between self-similarities.

    $$L = \frac1{B N^2} \sum_b \sum_{ij} \big(\cos(t_{bi}, t_{bj}) - \cos(t^0_{bi}, t^0_{bj})\big)^2$$

    Args:
        tokens: Of the edited picture's views, ``(..., N, C)``.
        source_similarity: :func:`self_similarity` of the source's tokens under the same views,
            ``(..., N, N)``; constant over a run, so that it can be kept.

    Returns:
        The loss, a scalar.

    Gradients:
        To both, any order.

    Raises:
        ValueError: If shapes disagree.
        TypeError: If ``tokens`` are not floating point.
    """
    similarity = self_similarity(tokens)
    require_shape("source_similarity", source_similarity, tuple(similarity.shape), "(..., N, N)")
    return (similarity - source_similarity).square().mean()


@full_precision
def sparsity_loss(opacity: Tensor, *, count: float = 0.01, amount: float = 0.01) -> Tensor:
    r"""How much is painted over: a smooth count of the pixels that are, and their mean opacity.

    $$L = \frac1n \sum_i \gamma_0 \big(2 \sigma(5 \alpha_i) - 1\big) + \gamma_1 |\alpha_i|$$

    Args:
        opacity: In [0, 1], any shape.
        count: $\gamma_0$.
        amount: $\gamma_1$.

    Returns:
        The loss, a scalar; 0 where nothing is painted.

    Gradients:
        To ``opacity``, first order; the absolute value's slope at 0 is 0.

    Raises:
        TypeError: If ``opacity`` is not floating point.
    """
    require_float("opacity", opacity)
    opacity = _single(opacity)
    return (count * (2 * (STEEPNESS * opacity).sigmoid() - 1) + amount * opacity.abs()).mean()


@full_precision
def bootstrap_loss(opacity: Tensor, relevancy: Tensor) -> Tensor:
    """Is what is painted what matters? The mean squared difference of opacity and relevancy.

    Meant for the first steps, with a weight that decays: it says where to begin, not where to end.

    Args:
        opacity: In [0, 1], any shape.
        relevancy: How much each pixel has to do with what the text asks, like ``opacity``.

    Returns:
        The loss, a scalar.

    Gradients:
        To both, any order.

    Raises:
        ValueError: If shapes disagree.
    """
    require_float("opacity", opacity)
    require_shape("relevancy", relevancy, tuple(opacity.shape), "like opacity")
    return F.mse_loss(_single(opacity), _single(relevancy))


def _single(x: Tensor) -> Tensor:
    """Half precision made single: differences of cosines vanish in it."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
