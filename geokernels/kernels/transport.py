"""Entropic transport and assignment: shapes, derivative and batching of the compiled operators."""

import torch
from torch import Tensor

from .. import _transport
from .._typing import Cost, Weights
from . import native

MOST_POINTS = 256


def refuse(cost: Cost) -> str | None:
    """Say why the compiled kernel cannot take ``cost``."""
    N, M = cost.shape[-2:]
    if N > MOST_POINTS or M > MOST_POINTS:
        return f"the compiled kernel takes at most {MOST_POINTS} points a side, got {N} and {M}"
    return native.refuse(cost, devices=("cpu", "cuda"))


def refuse_assignment(cost: Cost) -> str | None:
    """Say why the compiled assignment cannot take ``cost``."""
    return native.refuse(cost)


def solve(
    cost: Cost,
    a: Weights | None,
    b: Weights | None,
    n: Tensor | None,
    m: Tensor | None,
    start: Tensor | None,
    *,
    eps: float,
    reach: float,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Value, f, g, error, iterations; gradients reach ``cost``, ``a`` and ``b``."""
    return torch.ops.geokernels.sinkhorn(cost, a, b, n, m, start, eps, reach, max_iter, tol)


def assignment(cost: Cost) -> Tensor:
    """Columns of the cheapest one-to-one assignment, ``(..., N)``; -1 where there is none."""
    return torch.ops.geokernels.assignment(cost.double())


def _save(ctx, inputs, output) -> None:
    cost, a, b, n, m, _, ctx.eps, ctx.reach, _, _ = inputs
    _, f, g, error, iterations = output
    ctx.mark_non_differentiable(error, iterations)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(cost, a, b, n, m, f, g)


def _backward(ctx, grad_value, grad_f, grad_g, _grad_error, _grad_iterations):
    cost, a, b, n, m, f, g = ctx.saved_tensors
    if grad_value is None and grad_f is None and grad_g is None:
        return (None,) * 10
    whole_a = _transport.uniform(cost, n, -2) if a is None else a
    whole_b = _transport.uniform(cost, m, -1) if b is None else b
    to_cost, to_a, to_b = _transport.gradients(
        cost, whole_a, whole_b, f, g, ctx.eps, ctx.reach, grad_value, grad_f, grad_g
    )
    return to_cost, None if a is None else to_a, None if b is None else to_b, *(None,) * 7


def _batched(info, in_dims, *args):
    """Fold the mapped dimension into the batch; what is not mapped is repeated."""
    moved = []
    for x, dim in zip(args, in_dims):
        if isinstance(x, Tensor):
            x = x.movedim(dim, 0) if dim is not None else x.expand(info.batch_size, *x.shape)
        moved.append(x)
    return torch.ops.geokernels.sinkhorn(*moved), 0


if not native.missing:

    @torch.library.register_fake("geokernels::sinkhorn")
    def _(cost, a, b, n, m, start, eps, reach, max_iter, tol):
        one = cost.new_empty(cost.shape[:-2])
        f, g = cost.new_empty(cost.shape[:-1]), cost.new_empty((*cost.shape[:-2], cost.shape[-1]))
        return one, f, g, torch.empty_like(one), one.new_empty(one.shape, dtype=torch.int64)

    @torch.library.register_fake("geokernels::assignment")
    def _(cost):
        return cost.new_empty(cost.shape[:-1], dtype=torch.int64)

    @torch.library.register_vmap("geokernels::assignment")
    def _(info, in_dims, cost):
        return torch.ops.geokernels.assignment(cost.movedim(in_dims[0], 0)), 0

    torch.library.register_autograd("geokernels::sinkhorn", _backward, setup_context=_save)
    torch.library.register_vmap("geokernels::sinkhorn", _batched)
