"""Derivatives by what torch documents, where a version of it lacks what autograd_kernels.py needs.

An operator is called through an ``autograd.Function``; ``torch.compile`` finds its gradient by
``torch.library.register_autograd``. A call takes some ten microseconds more, and operators that are called by
their own names, as Triton's are, have gradients but no tangents.
"""

from collections.abc import Callable

import torch

from .. import _forward_mode
from .. import _torch_internals as internals
from ._ops import full_name, ops
from .batching import leading_rule

_functions: dict[Callable, Callable] = {}


def run(operator: Callable, *args):
    """Call an operator, through its function where a derivative or a transform may want that."""
    if torch.compiler.is_compiling():
        # what torch.compile traces would leave them out
        if internals.has_tangents(*args):
            raise NotImplementedError("this version of PyTorch cannot compile tangents of compiled operators")
        return operator(*args)
    if internals.transform_is_on(*args) or internals.forward_mode_is_on(*args):
        wanted = torch.is_grad_enabled() or internals.has_tangents(*args)
        with torch.autocast("cuda" if args[0].is_cuda else "cpu", enabled=False):
            return (_functions.get(operator, operator) if wanted else operator)(*args)
    if torch.is_grad_enabled() and internals.any_requires_grad(*args):
        return _functions.get(operator, operator)(*args)
    return operator(*args)


def call_directly(name: str, backward: Callable, save: Callable) -> None:
    """Nothing: every call of :func:`run` is as direct as it can be."""


def register(name: str, backward: Callable, save: Callable, tangents: Callable) -> None:
    """Make the function of ``geokernels::name``; see :func:`.derivatives.differentiable`."""
    operator = getattr(ops, name).default

    def setup_context(ctx, inputs, output) -> None:
        save(ctx, inputs, output)
        ctx.save_for_forward(*(ctx.to_save or ()))

    parts = {
        "forward": lambda *args: operator(*args),
        "setup_context": setup_context,
        "backward": backward,
        "jvp": _forward_mode.rule(tangents),
        "vmap": leading_rule(lambda *args: run(operator, *args)),
    }
    static = {part: staticmethod(function) for part, function in parts.items()}
    _functions[operator] = type(f"_{name}", (torch.autograd.Function,), static).apply
    torch.library.register_autograd(full_name(name), backward, setup_context=save)
