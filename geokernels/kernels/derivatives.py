"""How an operator gets its derivatives: backward and forward, at once and under every function transform.

Each derivative is a torch kernel of the operator, at the place in the dispatcher where torch has its own: a
call that asks for none goes past it, ``torch.compile`` traces it, and ``torch.func`` reaches it with the
tensors of one of its levels at a time. What torch keeps to itself is named here and in _forward_mode.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from .. import _first_order, _forward_mode
from . import native
from .batching import lead_with_mapped_dimension

_library = torch.library.Library("geokernels", "FRAGMENT")
DIFFERENTIATING = torch._C._functorch.TransformType.Grad, torch._C._functorch.TransformType.Jvp
_directly: dict[Callable, Callable] = {}


def calls_are_direct() -> bool:
    """Whether nobody follows a call through every layer: the tracer, torch.func, or tangents."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.maybe_current_level() is None
        and not _forward_mode.is_on()
    )


def are_wanted(*args) -> bool:
    """Whether a derivative to one of the arguments may be asked for, in either direction."""
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
        return True
    if torch.compiler.is_compiling():
        return False
    transforms = torch._C._functorch.get_interpreter_stack() or ()
    return _forward_mode.is_on() or any(level.key() in DIFFERENTIATING for level in transforms)


def run(operator: Callable, *args):
    """Call a compiled operator by the shortest way, and end it where a handler of a signal raises.

    A derivative that the dispatcher finds costs 10 to 30 microseconds a call more than the operator, as much
    as a small problem takes. Outside of ``torch.compile``, ``torch.func`` and forward-mode differentiation
    the operator is called below autograd, and its derivative, where one is asked for, by an
    ``autograd.Function``.
    """
    return native.interruptible(_run, operator, *args)


def _run(operator: Callable, *args):
    if not calls_are_direct():
        if torch.compiler.is_compiling():
            return operator(*args)
        # what a rule for tangents turns off inside of a call, torch.func's levels turn on again
        with torch.autocast("cuda" if args[0].is_cuda else "cpu", enabled=False):
            return operator(*args)
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
        return _directly.get(operator, operator)(*args)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*args)


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
    operator = getattr(torch.ops.geokernels, name).default

    def forward(ctx, *args):
        with torch._C._AutoDispatchBelowAutograd():
            found = operator(*args)
        save(ctx, args, found)
        return found

    _directly[operator] = _applied(name, forward=forward, backward=backward)
    _register(operator, backward, save, tangents)


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
    constant = torch.ops.geokernels.constant
    return formula(*(None if x is None else constant(x, operator) for x in tensors))


def _refusing(name: str, refuse: Callable[[], NoReturn]) -> None:
    def backward(ctx, *grads):
        refuse()

    def save(ctx, inputs, output) -> None:
        # an operator that returns integers has nothing to differentiate
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.mark_non_differentiable(*(part for part in outputs if not part.is_floating_point()))

    def tangents(ctx, saved, *given):
        refuse()

    _register(getattr(torch.ops.geokernels, name).default, backward, save, tangents)


def _applied(name: str, **functions: Callable) -> Callable:
    """``apply`` of a function with a derivative, without what ``autograd.Function`` puts around it.

    That looks out for torch.func, at whose levels these functions are not called but by its dispatcher.
    """
    static = {part: staticmethod(function) for part, function in functions.items()}
    return type(f"_{name}", (_SingleLevelFunction,), static).apply


def _register(operator: Callable, backward: Callable, save: Callable, tangents: Callable) -> None:
    """Make torch's kernel for the derivative of an operator."""

    def below(keyset, args: tuple):
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    def forward(ctx, keyset, modes: tuple[bool, bool] | None, *args):
        with _restored(modes):
            found = below(keyset, args)
        save(ctx, args, found)
        ctx.save_for_forward(*(ctx.to_save or ()))
        return found

    def with_context(ctx, *grads):
        given = ctx.needs_input_grad
        ctx.needs_input_grad = given[2:]
        try:
            found = backward(ctx, *grads)
        finally:
            ctx.needs_input_grad = given
        return None, None, *(found if isinstance(found, tuple) else (found,))

    def with_modes(ctx, saved: tuple, _keyset, _modes, *given):
        return tangents(ctx, saved, *given)

    functions = {"forward": forward, "backward": with_context, "jvp": _forward_mode.rule(with_modes)}
    apply = _applied(operator._opname, **functions)

    def kernel(keyset, *args):
        modes = None
        if torch._C._functorch.maybe_current_level() is not None:
            modes = torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled()
        backwards = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        if not (backwards or modes or _forward_mode.is_on()):
            return below(keyset, args)
        with enable_single_level_autograd_function():
            return apply(keyset, modes, *args)

    # by device: operators that Python defined have one for all devices, which tells of no tangents
    for device in ("CPU", "CUDA", "Meta"):
        _library.impl(operator._opname, kernel, f"Autograd{device}", with_keyset=True)


@contextmanager
def _restored(modes: tuple[bool, bool] | None) -> Iterator[None]:
    """Gradients and forward mode on or off as for the caller: autograd.Function turns both off.

    Levels of torch.func further down want them; below them all, None, nothing does.
    """
    if modes is None:
        yield
        return
    with torch.set_grad_enabled(modes[0]), forward_ad._set_fwd_grad_enabled(modes[1]):
        yield


_library.define("constant(Tensor x, str operator) -> Tensor")
_library.impl("constant", lambda x, operator: x.clone(), "CompositeExplicitAutograd")


@torch.library.register_fake("geokernels::constant")
def _(x, operator):
    return torch.empty_like(x)


def _save_operator(ctx, inputs, output) -> None:
    _, ctx.operator = inputs


def _refuse_backward(ctx, grad):
    _first_order.refuse(ctx.operator)


def _refuse_tangents(ctx, saved, *given):
    _first_order.refuse(ctx.operator)


_register(torch.ops.geokernels.constant.default, _refuse_backward, _save_operator, _refuse_tangents)
lead_with_mapped_dimension("constant")
