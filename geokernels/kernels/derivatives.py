"""How an operator gets its derivatives: backward and forward, at once and under every function transform."""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from .. import _first_order
from .. import _torch_internals as internals
from . import native
from ._ops import NAMESPACE, full_name, ops
from .batching import lead_with_mapped_dimension

if internals.has_dispatcher:
    from . import autograd_kernels as autograd
else:
    from . import autograd_functions as autograd

_library = torch.library.Library(NAMESPACE, "FRAGMENT")


def calls_are_direct(*args) -> bool:
    """Whether nobody follows a call through every layer: the tracer, torch.func, or tangents."""
    return not (
        torch.compiler.is_compiling()
        or internals.transform_is_on(*args)
        or internals.forward_mode_is_on(*args)
    )


def are_wanted(*args) -> bool:
    """Whether a derivative to one of the arguments may be asked for, in either direction."""
    if torch.is_grad_enabled() and internals.any_requires_grad(*args):
        return True
    if torch.compiler.is_compiling():
        return False
    return internals.forward_mode_is_on(*args) or internals.differentiating_transform_is_on(*args)


def run(operator: Callable, *args):
    """Call a compiled operator by the shortest way, and end it where a handler of a signal raises."""
    return native.interruptible(autograd.run, operator, *args)


def differentiable(name: str, backward: Callable, save: Callable, tangents: Callable) -> None:
    """Give ``geokernels::name`` its derivative.

    Args:
        name: The operator.
        backward: From the context and the gradients to the outputs to those to the inputs.
        save: From the context, inputs and outputs to what the context keeps, like ``setup_context`` of
            :func:`torch.library.register_autograd`.
        tangents: From the context, the tensors it keeps and the tangents of the inputs, each a tensor or
            None, to those of the outputs; of differentiable operations.
    """
    autograd.call_directly(name, backward, save)
    autograd.register(name, backward, save, tangents)


def first_order_only(operator: str, of: str | None = None) -> None:
    """Let a derivative of the gradient of ``of``, ``operator`` itself, say that there is none."""
    _refusing(f"{operator}_backward", lambda: _first_order.refuse(of or operator))


def without_derivative(operator: str, reason: str | None = None) -> None:
    """Let a derivative of ``geokernels::operator`` say that there is none."""

    def refuse() -> NoReturn:
        raise NotImplementedError(reason or f"{operator} has no derivative")

    _refusing(operator, refuse)


def first_order(operator: str, formula: Callable, *tensors: Tensor | None):
    """``formula(*tensors)`` among tangents of ``operator``, where a second derivative raises.

    What :func:`geokernels._first_order.first_order` is where torch.func's levels are all at hand.
    """
    constant = ops.constant.default
    return formula(*(None if x is None else autograd.run(constant, x, operator) for x in tensors))


def _refusing(name: str, refuse: Callable[[], NoReturn]) -> None:
    def backward(ctx, *grads):
        refuse()

    def save(ctx, inputs, output) -> None:
        # an operator that returns integers has nothing to differentiate
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.mark_non_differentiable(*(part for part in outputs if not part.is_floating_point()))

    def tangents(ctx, saved, *given):
        refuse()

    autograd.register(name, backward, save, tangents)


_library.define("constant(Tensor x, str operator) -> Tensor")
_library.impl("constant", lambda x, operator: x.clone(), "CompositeExplicitAutograd")


@torch.library.register_fake(full_name("constant"))
def _(x, operator):
    return torch.empty_like(x)


def _save_operator(ctx, inputs, output) -> None:
    _, ctx.operator = inputs


def _refuse_backward(ctx, grad):
    _first_order.refuse(ctx.operator)


def _refuse_tangents(ctx, saved, *given):
    _first_order.refuse(ctx.operator)


autograd.register("constant", _refuse_backward, _save_operator, _refuse_tangents)
lead_with_mapped_dimension("constant")
