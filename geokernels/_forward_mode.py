"""What a rule for tangents needs under every transform, and torch does not give it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._torch_internals import with_forward_mode


def primal(x: Tensor | None) -> Tensor | None:
    """A tensor without its tangent at the level at hand."""
    if x is None or not x.is_floating_point():
        return x
    return forward_ad.unpack_dual(x, level=0).primal


def rule(tangents: Callable) -> Callable:
    """The ``jvp`` of an autograd.Function from what takes its context, the tensors it keeps, and tangents.

    torch calls it with forward mode turned off and with tensors that still have tangents: those of the outer
    of two nested levels would be lost, and those of the inner one would count twice.
    """

    def jvp(ctx, *given: Tensor | None):
        with with_forward_mode(True):
            return tangents(ctx, tuple(primal(x) for x in ctx.saved_tensors), *given)

    return jvp


def applied(function: type[torch.autograd.Function], tangents: Callable) -> Callable:
    """``function.apply``, with a :func:`rule` for its tangents.

    torch.compile looks into no function that has such a rule, and into forward mode not beyond the forward.
    """
    following = type(function.__name__, (function,), {"jvp": staticmethod(rule(tangents))})

    def apply(*args):
        return (function if torch.compiler.is_compiling() else following).apply(*args)

    return apply
