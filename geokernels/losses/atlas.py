"""The losses of layered atlases: two pictures, seen through maps that bend little, explain every frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import require_shape
from .._precision import full_precision

LEAST_AREA = 1e-2  # of a mapped pixel, in pixels, below which it counts as that small


@full_precision
def colour_gradient_loss(step: Tensor, true_step: Tensor) -> Tensor:
    r"""Do colours change from pixel to pixel as they should? $\frac1N \sum_n |d_n - d^0_n|^2$.

    Args:
        step: Differences between neighbouring pixels, ``(N, 3)``.
        true_step: The same of the frame, like ``step``.

    Returns:
        The loss, a scalar.

    Gradients:
        To both, any order.

    Raises:
        ValueError: If shapes disagree.
    """
    require_shape("true_step", true_step, tuple(step.shape), "like step")
    return (step - true_step).square().sum(-1).mean()


@full_precision
def rigidity_loss(across: Tensor, down: Tensor) -> Tensor:
    r"""How much a map stretches and shears, the symmetric Dirichlet energy: 0 where it only turns and shifts.

    With the Jacobian $J$ of the two derivatives and $G = J^\top J$,

    $$L = \frac1N \sum_n |G_n|_F + |G_n^{-1}|_F - 2\sqrt2, \qquad |G^{-1}|_F = |G|_F / \det G$$

    Args:
        across: Derivatives of the map to the right, ``(N, 2)``, 1 long where it keeps distances.
        down: The same downwards, like ``across``.

    Returns:
        The loss, a scalar, at least 0. A determinant below ``1e-4`` counts as that, so that a map that folds
        is expensive and its loss finite.

    Gradients:
        To both, first order.

    Raises:
        ValueError: If shapes disagree.
    """
    require_shape("down", down, tuple(across.shape), "like across")
    a, b, c = (across * across).sum(-1), (across * down).sum(-1), (down * down).sum(-1)
    size = (a * a + 2 * b * b + c * c).clamp(min=1e-12).sqrt()
    area = (a * c - b * b).clamp(min=LEAST_AREA**2)
    return (size + size / area).mean() - 2 * 2**0.5


@full_precision
def flow_loss(here: Tensor, there: Tensor, weight: Tensor) -> Tensor:
    r"""Does a point stay where it is in the atlas while it moves? $\frac1N \sum_n w_n |u_n - u'_n|$.

    Args:
        here: Where points are mapped in their frame, ``(N, D)``: coordinates, or opacities with ``D = 1``.
        there: The same in the next frame, where the flow takes them.
        weight: How sure it is that the layer is what moved, ``(N,)``.

    Returns:
        The loss, a scalar.

    Gradients:
        To ``here`` and ``there``, 0 where they are equal; to ``weight``. First order.

    Raises:
        ValueError: If shapes disagree.
    """
    require_shape("there", there, tuple(here.shape), "like here")
    squared = (here - there).square().sum(-1)
    apart = squared > 1e-12
    # select before the root, whose slope at 0 is infinite
    return (weight * torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)).mean()


@full_precision
def hidden_colour_loss(colour: Tensor, opacity: Tensor) -> Tensor:
    r"""The foreground's colour where it does not cover: $\frac1N \sum_n |(1 - \alpha_n) c_n|^2$.

    Without it the foreground keeps a copy of the background, and an edit of one would show in the other.

    Args:
        colour: ``(N, 3)``.
        opacity: ``(N, 1)``.

    Returns:
        The loss, a scalar.

    Gradients:
        To both, any order.

    Raises:
        ValueError: If shapes disagree.
    """
    require_shape("opacity", opacity, (*colour.shape[:-1], 1), "(N, 1)")
    return ((1 - opacity) * colour).square().sum(-1).mean()


@full_precision
def mask_loss(opacity: Tensor, masks: Tensor) -> Tensor:
    r"""Does the foreground cover what masks say? The cross-entropy of the two.

    $$L = -\frac1N \sum_n m_n \log \alpha_n + (1 - m_n) \log(1 - \alpha_n)$$

    Its slope does not vanish where the opacity is wrong and sure of it, as that of a square does.

    Args:
        opacity: In [0, 1], ``(N, 1)``.
        masks: Like ``opacity``.

    Returns:
        The loss, a scalar.

    Gradients:
        To ``opacity``, first order.

    Raises:
        ValueError: If shapes disagree.
    """
    require_shape("masks", masks, tuple(opacity.shape), "like opacity")
    return F.binary_cross_entropy(opacity, masks)
