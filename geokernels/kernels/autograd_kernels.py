"""Derivatives at the place in the dispatcher where torch has its own.

A call that asks for none goes past them, ``torch.compile`` traces them, and ``torch.func`` reaches them with
the tensors of one of its levels at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .. import _forward_mode
from .. import _torch_internals as internals
from ._ops import NAMESPACE, ops

_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_directly: dict[Callable, Callable] = {}


def run(operator: Callable, *args):
    """Call an operator by the shortest way.

    A derivative that the dispatcher finds costs 10 to 30 microseconds a call more than the operator, as much
    as a small problem takes. Outside of ``torch.compile``, ``torch.func`` and forward-mode differentiation
    the operator is called below autograd, and its derivative, where one is asked for, by an
    ``autograd.Function``.
    """
    if torch.compiler.is_compiling():
        return operator(*args)
    if internals.transform_is_on() or internals.forward_mode_is_on():
        # what a rule for tangents turns off inside of a call, torch.func's levels turn on again
        with torch.autocast("cuda" if args[0].is_cuda else "cpu", enabled=False):
            return operator(*args)
    if torch.is_grad_enabled() and internals.any_requires_grad(*args):
        return _directly.get(operator, operator)(*args)
    with internals.below_autograd():
        return operator(*args)


def call_directly(name: str, backward: Callable, save: Callable) -> None:
    """Let :func:`run` call ``geokernels::name`` and its gradient without the dispatcher."""
    operator = getattr(ops, name).default

    def forward(ctx, *args):
        with internals.below_autograd():
            outputs = operator(*args)
        save(ctx, args, outputs)
        return outputs

    _directly[operator] = _applied(name, forward=forward, backward=backward)


def _applied(name: str, **functions: Callable) -> Callable:
    """``apply`` of a function with a derivative, without what ``autograd.Function`` puts around it.

    That looks out for torch.func, at whose levels these functions are not called but by its dispatcher.
    """
    static = {part: staticmethod(function) for part, function in functions.items()}
    return type(f"_{name}", (internals.SingleLevelFunction,), static).apply


def register(name: str, backward: Callable, save: Callable, tangents: Callable) -> None:
    """Make torch's kernel for the derivative of ``geokernels::name``: :func:`.derivatives.differentiable`."""
    operator = getattr(ops, name).default

    def below(keyset, args: tuple):
        with internals.below_autograd():
            return operator.redispatch(keyset & internals.after_autograd, *args)

    def forward(ctx, keyset, modes: tuple[bool, bool] | None, *args):
        with _restored(modes):
            outputs = below(keyset, args)
        save(ctx, args, outputs)
        ctx.save_for_forward(*(ctx.to_save or ()))
        return outputs

    def with_context(ctx, *grads):
        given = ctx.needs_input_grad
        ctx.needs_input_grad = given[2:]
        try:
            to_inputs = backward(ctx, *grads)
        finally:
            ctx.needs_input_grad = given
        return None, None, *(to_inputs if isinstance(to_inputs, tuple) else (to_inputs,))

    def with_modes(ctx, saved: tuple, _keyset, _modes, *given):
        return tangents(ctx, saved, *given)

    apply = _applied(name, forward=forward, backward=with_context, jvp=_forward_mode.rule(with_modes))

    def kernel(keyset, *args):
        modes = None
        if internals.transform_is_on():
            modes = torch.is_grad_enabled(), internals.forward_mode_is_enabled()
        backwards = torch.is_grad_enabled() and internals.any_requires_grad(*args)
        if not (backwards or modes or internals.forward_mode_is_on()):
            return below(keyset, args)
        with internals.single_level():
            return apply(keyset, modes, *args)

    # by device: operators that Python defined have one for all devices, which tells of no tangents
    for device in ("CPU", "CUDA", "Meta"):
        _library.impl(name, kernel, f"Autograd{device}", with_keyset=True)


@contextmanager
def _restored(modes: tuple[bool, bool] | None) -> Iterator[None]:
    """Gradients and forward mode on or off as for the caller: autograd.Function turns both off.

    Levels of torch.func further down want them; below them all, None, nothing does.
    """
    if modes is None:
        yield
        return
    with torch.set_grad_enabled(modes[0]), internals.with_forward_mode(modes[1]):
        yield
