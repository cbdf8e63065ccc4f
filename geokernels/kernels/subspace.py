"""Subspaces: shapes and derivative of the compiled operators."""

import torch
from torch import Tensor

from . import native
from .batching import lead_with_mapped_dimension

MOST_ROWS = 128  # beyond, blocked library solvers win


def refuse_native(x: Tensor) -> str | None:
    """Say why the compiled kernel cannot take rows ``x``."""
    if reason := native.refuse(x, devices=("cpu", "cuda")):
        return reason
    rows = x.shape[-2]
    return f"the compiled kernel takes up to {MOST_ROWS} rows, not {rows}" if rows > MOST_ROWS else None


def basis(x: Tensor, rank: int, rtol: float) -> tuple[Tensor, Tensor]:
    """Basis ``(..., D, rank)`` and values ``(..., rank)`` of float32 or float64 ``x``."""
    operator = torch.ops.geokernels.subspace_basis.default
    _left, directions, values = native.run(operator, x.contiguous(), rank, rtol)
    if rank < values.shape[-1]:
        directions, values = directions[..., :rank, :], values[..., :rank]
    return directions.mT, values


def _save(ctx, inputs, output) -> None:
    _x, ctx.rank, _rtol = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _backward(ctx, _grad_left, grad_directions: Tensor | None, grad_values: Tensor | None):
    left, directions, values = ctx.saved_tensors
    grad = native.run(
        torch.ops.geokernels.subspace_basis_backward.default,
        torch.zeros_like(directions) if grad_directions is None else grad_directions.contiguous(),
        None if grad_values is None else grad_values.contiguous(),
        left, directions, values, ctx.rank,
    )  # fmt: skip
    return grad, None, None


if not native.missing:

    @torch.library.register_fake("geokernels::subspace_basis")
    def _(x, rank, rtol):
        *batch, N, D = x.shape
        R = min(N, D)
        return x.new_empty(*batch, R, N), x.new_empty(*batch, R, D), x.new_empty(*batch, R)

    @torch.library.register_fake("geokernels::subspace_basis_backward")
    def _(grad_directions, grad_values, left, directions, values, rank):
        return left.new_empty(*left.shape[:-2], left.shape[-1], directions.shape[-1])

    native.differentiable("subspace_basis", _backward, _save)
    native.first_order_only("subspace_basis")
    lead_with_mapped_dimension("subspace_basis")
    lead_with_mapped_dimension("subspace_basis_backward")
