"""Geodesic cosine: shapes and derivative of the compiled operator."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..reference import tangents
from . import derivatives, native, sizes
from ._ops import full_name, ops
from .batching import lead_with_mapped_dimension


def refuse_native(x: Tensor, p: Tensor, q: Tensor) -> str | None:
    """Say why the compiled kernel cannot take rows ``x`` and bases ``p``, ``q``."""
    if reason := native.refuse(x, devices=("cpu", "cuda")):
        return reason
    most = sizes.native(x).directions
    if sizes.exceed(most, p.shape[-1], q.shape[-1]):
        columns = sizes.told(max(p.shape[-1], q.shape[-1]))
        return f"the compiled kernel takes bases of up to {most} columns, not {columns}"
    return None


def cosine(x: Tensor, y: Tensor, p: Tensor, q: Tensor, eps: float) -> Tensor:
    """Cosines ``(..., N)`` of float32 or float64 input whose batch shapes agree."""
    dense = x.contiguous(), y.contiguous(), p.mT.contiguous(), q.mT.contiguous()
    return derivatives.run(ops.geodesic_cosine.default, *dense, eps)[0]


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.eps = inputs
    _cosine, *frame = output
    ctx.mark_non_differentiable(*frame)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *frame)


def _backward(ctx, grad: Tensor | None, *_frame: None):
    if grad is None:
        return (None,) * 5
    wanted = ctx.needs_input_grad[:4]
    operator = ops.geodesic_cosine_backward.default
    grads = derivatives.run(operator, grad.contiguous(), *ctx.saved_tensors, ctx.eps, *wanted)
    return *(part if want else None for part, want in zip(grads, wanted, strict=True)), None


def _filled(p: Tensor, rank: int) -> Tensor:
    """A basis ``(..., K, D)``, as rows, as columns with zeros up to ``rank`` of them."""
    return pad(p.mT, (0, rank - p.shape[-2]))


def _cosine_tangents(ctx, saved, dx, dy, dp, dq, _eps):
    x, y, p, q, left, right, g, _coordinates = saved
    bases = (None if part is None else _filled(part, g.shape[-1]) for part in (p, q, dp, dq))
    formula = partial(tangents.of_cosine, eps=ctx.eps)
    moved = derivatives.first_order("geodesic_cosine", formula, left.mT, right.mT, g, x, y, *bases, dx, dy)
    return moved, None, None, None, None


if not native.missing:

    @torch.library.register_fake(full_name("geodesic_cosine"))
    def _(x, y, p, q, eps):
        *batch, N, _D = x.shape
        M = max(p.shape[-2], q.shape[-2])
        return (
            x.new_empty(*batch, N),
            x.new_empty(*batch, M, M),
            x.new_empty(*batch, M, M),
            x.new_empty(*batch, M),
            x.new_empty(*batch, 4, N, M),
        )

    @torch.library.register_fake(full_name("geodesic_cosine_backward"))
    def _(grad, x, y, p, q, left, right, g, coordinates, eps, to_x, to_y, to_p, to_q):
        parts = ((x, to_x), (y, to_y), (p, to_p), (q, to_q))
        return tuple(torch.empty_like(part) if wanted else part.new_empty(0) for part, wanted in parts)

    derivatives.differentiable("geodesic_cosine", _backward, _save, _cosine_tangents)
    derivatives.first_order_only("geodesic_cosine")
    lead_with_mapped_dimension("geodesic_cosine")
    lead_with_mapped_dimension("geodesic_cosine_backward")
