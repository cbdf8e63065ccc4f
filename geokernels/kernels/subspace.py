"""Subspaces: shapes and derivative of the compiled operators."""

import torch
from torch import Tensor

from .._checks import values_can_be_read
from . import native
from .batching import lead_with_mapped_dimension
from .direct import below_autograd, first_order, wants_gradient

MOST_ROWS = 128  # beyond, blocked library solvers win


def refuse_native(x: Tensor) -> str | None:
    """Say why the compiled kernel cannot take rows ``x``."""
    if reason := native.refuse(x):
        return reason
    rows = x.shape[-2]
    return f"the compiled kernel takes up to {MOST_ROWS} rows, not {rows}" if rows > MOST_ROWS else None


def basis(x: Tensor, rank: int, rtol: float) -> tuple[Tensor, Tensor]:
    """Basis ``(..., D, rank)`` and values ``(..., rank)`` of float32 or float64 ``x``."""
    x = x.contiguous()
    if not values_can_be_read(x):
        _left, directions, values = torch.ops.geokernels.subspace_basis(x, rank, rtol)
        return _leading(directions, values, rank)
    if wants_gradient(x):
        return _Basis.apply(x, rank, rtol)
    with below_autograd():
        _left, directions, values = _run(x, rank, rtol)
    return _leading(directions, values, rank)


def _leading(directions: Tensor, values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    if rank < values.shape[-1]:
        directions, values = directions[..., :rank, :], values[..., :rank]
    return directions.mT, values


class _Basis(torch.autograd.Function):
    """The basis and its derivative, called directly."""

    @staticmethod
    def forward(ctx, x: Tensor, rank: int, rtol: float) -> tuple[Tensor, Tensor]:
        with below_autograd():
            left, directions, values = _run(x, rank, rtol)
        ctx.rank = rank
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, left, directions, values)
        return _leading(directions, values, rank)

    @staticmethod
    def backward(ctx, grad_basis: Tensor | None, grad_values: Tensor | None):
        x, left, directions, values = ctx.saved_tensors
        more = values.shape[-1] - ctx.rank
        grad_directions = torch.zeros_like(directions) if grad_basis is None else grad_basis.mT
        if more and grad_basis is not None:
            grad_directions = torch.nn.functional.pad(grad_directions, (0, 0, 0, more))
        if more and grad_values is not None:
            grad_values = torch.nn.functional.pad(grad_values, (0, more))
        if grad_values is not None:
            grad_values = grad_values.contiguous()
        with below_autograd():
            grad = _run_backward(
                grad_directions.contiguous(), grad_values, left, directions, values, ctx.rank
            )
        return first_order("subspace_basis", grad, x, grad_directions), None, None


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
        None if grad_values is None else grad_values.contiguous(),
        left, directions, values, ctx.rank,
    )  # fmt: skip
    return grad, None, None


if not native.missing:
    _run = torch.ops.geokernels.subspace_basis.default
    _run_backward = torch.ops.geokernels.subspace_basis_backward.default

    @torch.library.register_fake("geokernels::subspace_basis")
    def _(x, rank, rtol):
        *batch, N, D = x.shape
        R = min(N, D)
        return x.new_empty(*batch, R, N), x.new_empty(*batch, R, D), x.new_empty(*batch, R)

    @torch.library.register_fake("geokernels::subspace_basis_backward")
    def _(grad_directions, grad_values, left, directions, values, rank):
        return left.new_empty(*left.shape[:-2], left.shape[-1], directions.shape[-1])

    torch.library.register_autograd("geokernels::subspace_basis", _backward, setup_context=_save)
    first_order_only("subspace_basis")
    lead_with_mapped_dimension("subspace_basis")
    lead_with_mapped_dimension("subspace_basis_backward")
