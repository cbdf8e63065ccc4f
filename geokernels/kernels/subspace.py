"""Subspaces: shapes and derivative of the compiled operators."""

import torch
from torch import Tensor

from . import native
from .batching import fold_mapped_dimension

MOST_ROWS = 128  # beyond, blocked library solvers win


def refuse_native(x: Tensor) -> str | None:
    """Say why the compiled kernel cannot take rows ``x``."""
    if reason := native.refuse(x):
        return reason
    rows = x.shape[-2]
    return f"the compiled kernel takes up to {MOST_ROWS} rows, not {rows}" if rows > MOST_ROWS else None


def basis(x: Tensor, rank: int, rtol: float) -> tuple[Tensor, Tensor]:
    """Directions as rows ``(..., rank, D)`` and values ``(..., rank)`` of float32 or float64 ``x``."""
    batch = x.shape[:-2]
    _left, directions, values = native.run(
        torch.ops.geokernels.subspace_basis.default, flattened(x), rank, rtol
    )
    if rank < values.shape[-1]:
        directions, values = directions[:, :rank], values[:, :rank]
    if len(batch) != 1:
        directions, values = directions.view(*batch, *directions.shape[1:]), values.view(*batch, rank)
    return directions, values


def flattened(x: Tensor) -> Tensor:
    """``x`` as a dense ``(B, rows, columns)``; the same tensor where it is one."""
    return (x if x.dim() == 3 else x.reshape(-1, *x.shape[-2:])).contiguous()


def first_order_only(operator: str):
    """Give a gradient operator a derivative that says there is none."""

    def refuse(ctx, *grads):
        raise NotImplementedError(f"{operator} has first derivatives only")

    torch.library.register_autograd(f"geokernels::{operator}_backward", refuse)


def _save(ctx, inputs, output) -> None:
    _x, ctx.rank, _rtol = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _backward(ctx, _grad_left, grad_directions: Tensor | None, grad_values: Tensor | None):
    left, directions, values = ctx.saved_tensors
    grad = torch.ops.geokernels.subspace_basis_backward(
        torch.zeros_like(directions) if grad_directions is None else grad_directions.contiguous(),
        torch.zeros_like(values) if grad_values is None else grad_values.contiguous(),
        left, directions, values, ctx.rank,
    )  # fmt: skip
    return grad, None, None


if not native.missing:

    @torch.library.register_fake("geokernels::subspace_basis")
    def _(x, rank, rtol):
        B, N, D = x.shape
        R = min(N, D)
        return x.new_empty(B, R, N), x.new_empty(B, R, D), x.new_empty(B, R)

    @torch.library.register_fake("geokernels::subspace_basis_backward")
    def _(grad_directions, grad_values, left, directions, values, rank):
        return left.new_empty(left.shape[0], left.shape[2], directions.shape[2])

    torch.library.register_autograd("geokernels::subspace_basis", _backward, setup_context=_save)
    first_order_only("subspace_basis")
    fold_mapped_dimension("subspace_basis")
    fold_mapped_dimension("subspace_basis_backward")
