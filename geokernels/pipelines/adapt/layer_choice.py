"""Adaptive layer freezing: which layers of a network a text moves most."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...models.stylegan2 import Generator

PARTS = ("modulation", "layers")  # what of a chosen layer is trained
TEXTS = ("templates", "text")  # by what of the target layers are chosen: averaged over templates, or bare


def usual_count(size: int) -> int:
    r"""How many layers StyleGAN-NADA trains at a time, for pictures of ``size`` pixels a side."""
    return int(2 * (2 * math.log2(size) - 2) / 3)


def code_movements(
    model: Generator, w: Tensor, loss: Callable[[Tensor, slice], Tensor], *, chunk: int
) -> Tensor:
    r"""How far one step of gradient descent on ``loss`` moves each row of W+, up to the step's length.

    The step is $-\eta\, \partial L / \partial w$, so that the gradient's absolute value orders the rows as
    the step does: the layers of the rows that move most are those that learn. A picture's gradient does not
    depend on the others: taking ``chunk`` pictures at a time changes the memory and nothing else.

    Args:
        model: The network.
        w: Codes, ``(B, D)``.
        loss: W+ codes ``(b, rows, D)``, and where they stand among the ``B``, to losses ``(b,)``.
        chunk: Pictures at a time.

    Returns:
        Sums over pictures and numbers of a code, ``(rows,)``.
    """
    moved = torch.zeros(model.config.codes, device=w.device, dtype=torch.float32)
    for first in range(0, len(w), chunk):
        part = slice(first, first + chunk)
        codes = w[part, None].repeat(1, model.config.codes, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(codes, part).sum(), codes)
        moved += gradient.abs().sum((0, 2))
    return moved


def moved_most(movements: Tensor, count: int) -> list[int]:
    """The ``count`` rows that :func:`code_movements` says move most, in order; the last without values."""
    if movements.is_meta:
        return list(range(len(movements) - count, len(movements)))
    return sorted(movements.topk(count).indices.tolist())


def trained_parameters(model: Generator, rows: list[int] | range, part: str) -> list[torch.nn.Parameter]:
    """The parameters of the layers that ``rows`` style: all of them, or those that read the code."""
    layers = [model.layer(row) for row in rows]
    chosen = [layer.conv.modulation for layer in layers] if part == "modulation" else layers
    return [parameter for module in chosen for parameter in module.parameters()]
