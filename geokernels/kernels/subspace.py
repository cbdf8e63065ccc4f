"""Subspaces: shapes and derivative of the compiled operators."""

from functools import partial

import torch
from torch import Tensor

from .._precision import full_precision
from .._typing import Basis
from ..reference import tangents
from . import derivatives, native, sizes
from ._ops import full_name, ops
from .batching import lead_with_mapped_dimension


def refuse_native(x: Tensor) -> str | None:
    """Say why the compiled kernel cannot take rows ``x``."""
    if reason := native.refuse(x, devices=("cpu", "cuda")):
        return reason
    rows, most = x.shape[-2], sizes.native(x).rows
    if sizes.exceed(most, rows):
        return f"the compiled kernel takes up to {most} rows, not {sizes.told(rows)}"
    return None


def basis(x: Tensor, rank: int, rtol: float) -> tuple[Tensor, Tensor]:
    """Basis ``(..., D, rank)`` and values ``(..., rank)`` of float32 or float64 ``x``."""
    operator = ops.subspace_basis.default
    _left, directions, values = derivatives.run(operator, x.contiguous(), rank, rtol)
    if rank < values.shape[-1]:
        directions, values = directions[..., :rank, :], values[..., :rank]
    return directions.mT, values


def refuse_angles(p: Basis, q: Basis) -> str | None:
    """Say why the compiled kernels cannot measure the angles between ``p`` and ``q``."""
    if reason := native.refuse(p, devices=("cpu", "cuda")):
        return reason
    if derivatives.are_wanted(p, q):
        return "the compiled angles have no derivative"
    columns, most = q.shape[-1], sizes.native(q).rows
    if sizes.exceed(most, columns):
        return f"the compiled kernel takes a second basis of up to {most} columns, not {sizes.told(columns)}"
    return None


def angles(p: Basis, q: Basis) -> Tensor:
    """Principal angles ``(..., min(K, L))`` of float32 or float64 bases whose batch shapes agree."""
    operator = ops.principal_angles.default
    return derivatives.run(operator, p.mT.contiguous(), q.mT.contiguous())


@full_precision
def _angles_by_parts(p: Tensor, q: Tensor) -> Tensor:
    """The same of bases as rows, on the CPU: products by the library, both decompositions by our kernel."""
    overlap = q @ p.mT
    # a zero row stands for a direction of its own, at a right angle to everything
    own = torch.diag_embed((q == 0).all(-1).to(q.dtype))
    unseen = torch.cat([q - overlap @ p, own], -1)
    decompose = ops.subspace_basis
    cosines, sines = (decompose(rows, min(rows.shape[-2:]), 0.0)[2] for rows in (overlap, unseen))
    count = min(p.shape[-2], q.shape[-2])
    return torch.atan2(sines.flip(-1)[..., :count], cosines[..., :count])


def _save(ctx, inputs, output) -> None:
    _x, ctx.rank, _rtol = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _backward(ctx, _grad_left, grad_directions: Tensor | None, grad_values: Tensor | None):
    left, directions, values = ctx.saved_tensors
    grad = derivatives.run(
        ops.subspace_basis_backward.default,
        torch.zeros_like(directions) if grad_directions is None else grad_directions.contiguous(),
        None if grad_values is None else grad_values.contiguous(),
        left, directions, values, ctx.rank,
    )  # fmt: skip
    return grad, None, None


def _basis_tangents(ctx, saved, dx, _rank, _rtol):
    formula = partial(tangents.of_basis, rank=ctx.rank)
    return None, *derivatives.first_order("subspace_basis", formula, *saved, dx)


if not native.missing:

    @torch.library.register_fake(full_name("subspace_basis"))
    def _(x, rank, rtol):
        *batch, N, D = x.shape
        R = min(N, D)
        return x.new_empty(*batch, R, N), x.new_empty(*batch, R, D), x.new_empty(*batch, R)

    @torch.library.register_fake(full_name("subspace_basis_backward"))
    def _(grad_directions, grad_values, left, directions, values, rank):
        return left.new_empty(*left.shape[:-2], left.shape[-1], directions.shape[-1])

    @torch.library.register_fake(full_name("principal_angles"))
    def _(p, q):
        return p.new_empty(*p.shape[:-2], min(p.shape[-2], q.shape[-2]))

    torch.library.register_kernel(full_name("principal_angles"), "cpu")(_angles_by_parts)
    derivatives.without_derivative("principal_angles")
    lead_with_mapped_dimension("principal_angles")
    derivatives.differentiable("subspace_basis", _backward, _save, _basis_tangents)
    derivatives.first_order_only("subspace_basis")
    lead_with_mapped_dimension("subspace_basis")
    lead_with_mapped_dimension("subspace_basis_backward")
