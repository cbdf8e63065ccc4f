"""Calls of compiled operators, and their derivatives, without the detours of the registered ones.

An operator whose derivative is registered from Python costs 10 to 30 microseconds a call more than itself, as
much as a small problem takes. Tensors that are nothing but tensors, outside of ``torch.compile`` and
``torch.func``, may go straight: the operator below autograd, the derivative by an ``autograd.Function``.
"""

import torch
from torch import Tensor

# the layer of the dispatcher where a registered derivative calls its operator, too
below_autograd = torch._C._AutoDispatchBelowAutograd


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx, operator: str, grad: Tensor, *sources: Tensor) -> Tensor:
        ctx.operator = operator
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx, grad: Tensor):
        raise NotImplementedError(f"{ctx.operator} has first derivatives only")


def first_order(operator: str, grad: Tensor, *sources: Tensor) -> Tensor:
    """``grad``, a first derivative, such that differentiating it again says that this cannot be.

    Args:
        operator: Its name, for the message.
        grad: What a backward returns.
        sources: Tensors it was computed from; those on the graph carry the refusal.
    """
    return _FirstOrder.apply(operator, grad, *sources) if torch.is_grad_enabled() else grad


def wants_gradient(*tensors: Tensor) -> bool:
    """Whether autograd has to know of a call with these tensors."""
    if torch.is_grad_enabled():
        for x in tensors:
            if x.requires_grad:
                return True
    return False
