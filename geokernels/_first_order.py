"""Gradients that cannot be differentiated again, and say so."""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from . import _forward_mode


def refuse(operator: str) -> NoReturn:
    """Say that the gradient of ``operator`` has no derivative."""
    raise NotImplementedError(f"{operator} has first derivatives only")


class _FirstOrder(torch.autograd.Function):
    """See :func:`first_order`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operator: str, formula: Callable, *tensors: Tensor | None):
        """Evaluate the formula."""
        return formula(*tensors)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output) -> None:
        """Keep the operator's name for the refusal."""
        ctx.operator = inputs[0]

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        """Refuse."""
        refuse(ctx.operator)


def _refuse_tangents(ctx, saved: tuple, *tangents: Tensor | None):
    refuse(ctx.operator)


_apply = _forward_mode.applied(_FirstOrder, _refuse_tangents)


def first_order(operator: str, formula: Callable, *tensors: Tensor | None):
    """``formula(*tensors)`` for use inside a backward or a jvp of ``operator``; a second derivative raises.

    ``once_differentiable`` would treat what the backward saved as constant, silently, when only the incoming
    gradient is. Pass the tensors the gradient depends on: those on the graph carry the refusal.
    """
    return _apply(operator, formula, *tensors)
