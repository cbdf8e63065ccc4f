"""What a rule for tangents needs under every transform, and torch does not give it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad


def primal(x: Tensor | None) -> Tensor | None:
    """A tensor without its tangent at the level at hand."""
    if x is None or not x.is_floating_point():
        return x
    return torch._VF._unpack_dual(x, level=0)[0]


def rule(tangents: Callable) -> Callable:
    """The ``jvp`` of an autograd.Function from what takes its context, the tensors it keeps, and tangents.

    torch calls it with forward mode turned off and with tensors that still have tangents: those of the outer
    of two nested levels would be lost, and those of the inner one would count twice.
    """

    def jvp(ctx, *given: Tensor | None):
        with forward_ad._set_fwd_grad_enabled(True):
            return tangents(ctx, tuple(primal(x) for x in ctx.saved_tensors), *given)

    return jvp
