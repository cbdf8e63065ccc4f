"""Gradients that cannot be differentiated again, and say so."""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor


def refuse(operator: str) -> NoReturn:
    """Say that the gradient of ``operator`` has no derivative."""
    raise NotImplementedError(f"{operator} has first derivatives only")


class FirstOrder(torch.autograd.Function):
    """``formula(*tensors)`` for use inside a backward; a second derivative raises.

    ``once_differentiable`` would treat what the backward saved as constant, silently, when only the incoming
    gradient is. Pass the tensors the gradient depends on: those on the graph carry the refusal.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(operator: str, formula: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Evaluate the formula."""
        return formula(*tensors)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        """Keep the operator's name for the refusal."""
        ctx.operator = inputs[0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Refuse."""
        refuse(ctx.operator)
