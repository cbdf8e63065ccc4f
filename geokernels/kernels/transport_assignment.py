"""Assignment and displacement: shapes, derivatives and batching of the compiled operators."""

import torch
from torch import Tensor

from .. import _torch_internals as internals
from .. import reference
from .._checks import FLOATS, values_can_be_read
from .._precision import full_precision
from .._typing import Cost, Points
from . import derivatives, native
from ._ops import full_name, ops
from .batching import lead_with_mapped_dimension


def refuse(x: Cost | Points) -> str | None:
    """Say why the compiled assignment cannot take ``x``, costs or points."""
    return native.refuse(x, devices=("cpu", "cuda"))


def assignment(cost: Cost) -> Tensor:
    """Columns of the cheapest one-to-one assignment, ``(..., N)``; -1 where there is none."""
    wide = cost if cost.is_cpu and cost.dtype is torch.float32 else cost.double()
    return derivatives.run(ops.assignment.default, wide)


def runs_directly(cost: object) -> bool:
    """Whether :func:`assign_directly` takes ``cost``, and nobody listens to the dispatcher."""
    return (
        type(cost) is Tensor
        and not native.missing
        and cost.dim() >= 2
        and 0 < cost.shape[-2] <= cost.shape[-1]
        and cost.dtype in FLOATS
        and cost.layout == torch.strided
        and values_can_be_read(cost)
        and internals.can_be_passed_by
        and not internals.somebody_listens()
    )


def assign_directly(cost: Cost) -> tuple[Tensor, int]:
    """The same past the dispatcher, whose layers take as long as a small problem.

    Returns:
        Columns, and 0 where all is well; -1 where a problem has no assignment, and -2 where a cost is NaN or
        -inf.
    """
    if cost.dtype is not torch.float64:
        cost = cost.float()
    if not cost.is_contiguous() or cost.is_neg():
        cost = cost.resolve_neg().contiguous()
    *lead, N, M = cost.shape
    chosen = cost.new_empty((*lead, N), dtype=torch.int64)
    outcome = native.interruptible(
        native.assign,
        cost.data_ptr(),
        cost.dtype is torch.float64,
        chosen.numel() // N,
        N,
        M,
        chosen.data_ptr(),
    )
    return chosen, outcome


def displacement(x: Points, y: Points, times: Tensor) -> tuple[Points, Tensor]:
    """See :func:`geokernels.reference.displacement`; gradients reach all three."""
    operator = ops.displacement.default
    return derivatives.run(operator, x.contiguous(), y.contiguous(), times.contiguous())


def _save_displacement(ctx, inputs, output) -> None:
    _, chosen = output
    ctx.mark_non_differentiable(chosen)
    ctx.save_for_backward(*inputs, chosen)


def _displacement_backward(ctx, grad: Tensor, _grad_chosen):
    x, y, times, chosen = ctx.saved_tensors
    share = times[..., None, None]
    to_x = to_y = to_times = None
    if ctx.needs_input_grad[0]:
        to_x = ((1 - share) * grad).sum(-3)
    # where nothing was chosen, all that came out is NaN
    index = chosen.clamp(min=0)[..., None].expand(*chosen.shape, y.shape[-1])
    if ctx.needs_input_grad[1]:
        to_y = torch.zeros_like(y).scatter(-2, index, (share * grad).sum(-3))
    if ctx.needs_input_grad[2]:
        to_times = (grad * (y.gather(-2, index) - x)[..., None, :, :]).sum((-2, -1))
    return to_x, to_y, to_times


def _displacement_tangents(ctx, saved, dx, dy, d_times):
    x, y, times, chosen = saved
    # where nothing was chosen, all that came out is NaN
    index = chosen.clamp(min=0)[..., None].expand(*chosen.shape, y.shape[-1])
    dx = torch.zeros_like(x) if dx is None else dx
    d_target = torch.zeros_like(x) if dy is None else dy.gather(-2, index)
    moved = torch.lerp(dx[..., None, :, :], d_target[..., None, :, :], times[..., None, None])
    if d_times is not None:
        moved = moved + d_times[..., None, None] * (y.gather(-2, index) - x)[..., None, :, :]
    return moved, None


@full_precision
def _displacement_in_parts(x: Points, y: Points, times: Tensor) -> tuple[Points, Tensor]:
    """The definition with the compiled assignment: costs of a batch fit where there is a GPU."""
    return reference.displacement(x, y, times, assign=ops.assignment.default)


if not native.missing:
    torch.library.register_kernel(full_name("displacement"), "cuda")(_displacement_in_parts)

    @torch.library.register_fake(full_name("assignment"))
    def _(cost):
        return cost.new_empty(cost.shape[:-1], dtype=torch.int64)

    @torch.library.register_fake(full_name("displacement"))
    def _(x, y, times):
        moved = x.new_empty((*times.shape, *x.shape[-2:]))
        return moved, x.new_empty(x.shape[:-1], dtype=torch.int64)

    derivatives.differentiable(
        "displacement", _displacement_backward, _save_displacement, _displacement_tangents
    )
    for _name in ("assignment", "displacement"):
        lead_with_mapped_dimension(_name)
