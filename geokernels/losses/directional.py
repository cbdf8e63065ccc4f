"""The change of the picture against the change of the text, as a straight-line angle."""

import torch
from torch import Tensor

from .._checks import require_like, require_rank, require_shape
from .._moderation import moderation
from .._typing import Rows

SHORTEST = 1e-6  # the default of eps: a change up to this length has no direction


def unit_rows(x: Rows, *, eps: float = SHORTEST) -> Rows:
    """Rows of length one; a row of length at most ``eps`` has no direction and becomes zero.

    Args:
        x: Rows, ``(..., D)``.
        eps: Length up to which a row has no direction.

    Returns:
        Like ``x``.

    Gradients:
        Through the division; exactly zero for rows without direction.
    """
    scale = moderation(x)
    x = x * scale
    square = x.square().sum(-1, keepdim=True)
    # NaN is not short: it is handed on
    short = square <= (eps * scale).square()
    # select before dividing, so that undirected rows back-propagate 0 and not NaN
    return torch.where(short, 0.0, x) / torch.where(short, 1.0, square).sqrt()


def require_embeddings(current: Rows, source: Rows, text_source: Rows, text_target: Rows) -> None:
    """Refuse embeddings that do not fit together; every loss on pictures and texts begins with this."""
    require_rank("current", current, 2, "(..., B, D)")
    require_shape("source", source, tuple(current.shape), "(..., B, D)")
    require_rank("text_source", text_source, 2, "(..., T, D)")
    require_shape("text_target", text_target, tuple(text_source.shape), "(..., T, D)")
    if text_source.shape[-1] != current.shape[-1]:
        raise ValueError(
            f"text_source must have the width of current, {current.shape[-1]}, got {text_source.shape[-1]}"
        )
    for name, x in [("source", source), ("text_source", text_source), ("text_target", text_target)]:
        require_like(name, x, "current", current)


def directional_loss(
    current: Rows, source: Rows, text_source: Rows, text_target: Rows, *, eps: float = SHORTEST
) -> Tensor:
    r"""One minus the cosine between the change of the picture and the change of the text.

    $$L = 1 - \frac1B \sum_i \cos\big(z_i - z_{0,i},\ \tfrac1T \sum_t (e^{target}_t - e^{source}_t)\big)$$

    Args:
        current: Features of the current picture's views, ``(..., B, D)``, usually unit rows.
        source: Features of the source picture under the same views, like ``current``.
        text_source: Features of the source prompt under T templates, ``(..., T, D)``.
        text_target: The same of the target prompt.
        eps: A change of length at most ``eps`` has no direction: it scores a cosine of 0.

    Returns:
        The loss, ``(...)``, between 0 and 2.

    Gradients:
        To all four inputs, any order; zero for rows without direction. At ``current == source``, where
        nothing has moved yet, there is therefore no gradient: start somewhere else.

    Raises:
        ValueError: If shapes disagree.
        TypeError: If dtypes or devices disagree.

    Example:
        >>> import torch
        >>> still, moved = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> round(directional_loss(moved, still, still, moved).item(), 4)
        0.0
    """
    require_embeddings(current, source, text_source, text_target)
    change = unit_rows(current - source, eps=eps)
    asked = unit_rows((text_target - text_source).mean(-2, keepdim=True), eps=eps)
    return 1 - (change * asked).sum(-1).mean(-1)


def reach_loss(
    current: Rows,
    source: Rows,
    text_source: Rows,
    text_target: Rows,
    *,
    share: float = 1.0,
    eps: float = SHORTEST,
) -> Tensor:
    r"""How much further the picture must go along the text's change; a loss of direction alone cannot tell.

    With $y$ the unit mean change of the text, the source lies at $z_{0,i} \cdot y$, usually below 0: it is
    nearer to its own prompt. The picture is asked to go as far beyond 0 as the source is short of it:

    $$L = \frac1B \sum_i \max\big(0,\ -s\, z_{0,i} \cdot y - z_i \cdot y\big)$$

    Args:
        current: Features of the current picture's views, ``(..., B, D)``, unit rows.
        source: Features of the source picture under the same views, like ``current``.
        text_source: Features of the source prompt under T templates, ``(..., T, D)``.
        text_target: The same of the target prompt.
        share: $s$, how much of that way is asked for; 1 is the mirror image of the source.
        eps: A change of the text of length at most ``eps`` has no direction and asks for nothing.

    Returns:
        The loss, ``(...)``, at least 0.

    Gradients:
        To all inputs, first order; zero for rows that are far enough.

    Raises:
        ValueError: If shapes disagree.
        TypeError: If dtypes or devices disagree.

    Example:
        >>> import torch
        >>> red, blue = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> reach_loss(red, red, red, blue), reach_loss(blue, red, red, blue)
        (tensor(1.4142), tensor(0.))
    """
    require_embeddings(current, source, text_source, text_target)
    asked = unit_rows((text_target - text_source).mean(-2, keepdim=True), eps=eps)
    short = -share * (source * asked).sum(-1) - (current * asked).sum(-1)
    return short.clamp(min=0).mean(-1)


def spherical_loss(current: Rows, text_target: Rows) -> Tensor:
    r"""Squared great-circle distance between pictures and a text, which knows of no source.

    With $y$ the unit mean of the target text, $L = \frac1B \sum_i 2 \arcsin^2 \big(|z_i - y| / 2\big)$.

    Args:
        current: Features of the pictures, ``(..., B, D)``, unit rows.
        text_target: Features of the target prompt under T templates, ``(..., T, D)``.

    Returns:
        The loss, ``(...)``, between 0 and $\pi^2 / 2$.

    Gradients:
        To both; 0 where picture and text agree.

    Raises:
        ValueError: If shapes disagree.
        TypeError: If dtypes or devices disagree.

    Example:
        >>> import torch
        >>> red, blue = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> spherical_loss(red, red), spherical_loss(red, blue)
        (tensor(0.), tensor(1.2337))
    """
    require_rank("current", current, 2, "(..., B, D)")
    require_rank("text_target", text_target, 2, "(..., T, D)")
    require_like("text_target", text_target, "current", current)
    goal = unit_rows(text_target.mean(-2, keepdim=True))
    square = (unit_rows(current) - goal).square().sum(-1) / 4
    # the arcsine's slope is infinite at 1, the root's at 0; opposite rows keep a finite gradient
    apart = square > 1e-12
    half = torch.where(apart, square, 0.25).clamp(max=1 - 1e-6).sqrt()
    return torch.where(apart, 2 * half.arcsin().square(), 0).mean(-1)
