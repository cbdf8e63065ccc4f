"""Gradients that cannot be differentiated again, and say so."""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor


def refuse(operator: str) -> NoReturn:
    """Say that the gradient of ``operator`` has no derivative."""
    raise NotImplementedError(f"{operator} has first derivatives only")


class FirstOrder(torch.autograd.Function):
    """``formula(*tensors)`` for use inside a backward or a jvp; a second derivative raises.

    ``once_differentiable`` would treat what the backward saved as constant, silently, when only the incoming
    gradient is. Pass the tensors the gradient depends on: those on the graph carry the refusal.
    """

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

    @staticmethod
    def jvp(ctx, *tangents: Tensor | None):
        """Refuse."""
        refuse(ctx.operator)
