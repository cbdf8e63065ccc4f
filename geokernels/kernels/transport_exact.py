"""Exact transport: shapes, derivatives and batching of the compiled operator."""

import torch
from torch import Tensor

from .._typing import Cost, Weights
from ..reference.transport_exact import Basis
from . import derivatives, native
from ._ops import NAMESPACE, full_name, ops
from .batching import lead_with_mapped_dimension

_library = torch.library.Library(NAMESPACE, "FRAGMENT")


def refuse(cost: Cost) -> str | None:
    """Say why the compiled solver cannot take ``cost``, which is in CPU memory."""
    return native.refuse(cost)


def exact_transport(cost: Cost, a: Weights | None, b: Weights | None) -> Basis:
    """See :func:`geokernels.reference.exact_transport`."""
    return Basis(*derivatives.run(ops.exact_transport.default, cost, a, b))


def on_plan(values: Tensor, rows: Tensor, columns: Tensor, sizes: tuple[int, int]) -> Tensor:
    """What belongs to pairs ``(..., N + M - 1)`` as a matrix ``(..., N, M)``, 0 elsewhere."""
    N, M = sizes
    plan = values.new_zeros(*values.shape[:-1], N * M)
    return plan.scatter_add(-1, rows * M + columns, values).unflatten(-1, (N, M))


def _save(ctx, inputs, output) -> None:
    _value, *rest = output
    ctx.mark_non_differentiable(*rest)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *rest[:-1])


def _backward(ctx, grad: Tensor | None, *_others: None):
    if grad is None:
        return (None,) * 3
    wanted = ctx.needs_input_grad[:3]
    operator = ops.exact_transport_backward.default
    grads = derivatives.run(operator, grad, *ctx.saved_tensors, *wanted)
    return tuple(part if want else None for part, want in zip(grads, wanted, strict=True))


def _gradients(grad, cost, a, b, f, g, rows, columns, mass, to_cost, to_a, to_b):
    """The plan and the potentials, times what comes from above."""
    grad = grad[..., None]
    nothing = f.new_empty(0)
    sizes = f.shape[-1], g.shape[-1]
    return (
        on_plan(grad * mass, rows, columns, sizes) if to_cost else nothing,
        grad * f if to_a else nothing.clone(),
        grad * g if to_b else nothing.clone(),
    )


def _tangents(ctx, saved, d_cost, d_a, d_b):
    cost, a, b, f, g, rows, columns, mass = saved

    def moved(cost, a, b, d_cost, d_a, d_b) -> Tensor:
        total = torch.zeros_like(mass[..., 0])
        if d_cost is not None:
            total = total + (mass * d_cost.flatten(-2).gather(-1, rows * g.shape[-1] + columns)).sum(-1)
        for potential, change in ((f, d_a), (g, d_b)):
            if change is not None:
                total = total + (potential * change).sum(-1)
        return total

    return derivatives.first_order("exact_transport", moved, cost, a, b, d_cost, d_a, d_b), *(None,) * 6


_library.define(
    "exact_transport_backward(Tensor grad, Tensor cost, Tensor? a, Tensor? b, Tensor f, Tensor g, "
    "Tensor rows, Tensor columns, Tensor mass, bool to_cost, bool to_a, bool to_b) "
    "-> (Tensor, Tensor, Tensor)"
)
_library.impl("exact_transport_backward", _gradients, "CompositeExplicitAutograd")

if not native.missing:

    @torch.library.register_fake(full_name("exact_transport"))
    def _(cost, a, b):
        *batch, N, M = cost.shape
        pairs = (*batch, N + M - 1)
        return (
            cost.new_empty(batch),
            cost.new_empty(*batch, N),
            cost.new_empty(*batch, M),
            cost.new_empty(pairs, dtype=torch.int64),
            cost.new_empty(pairs, dtype=torch.int64),
            cost.new_empty(pairs),
            cost.new_empty(batch, dtype=torch.int64),
        )

    derivatives.differentiable("exact_transport", _backward, _save, _tangents)
    derivatives.first_order_only("exact_transport")
    lead_with_mapped_dimension("exact_transport")
    lead_with_mapped_dimension("exact_transport_backward")
