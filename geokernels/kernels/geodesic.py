"""Geodesic cosine: shapes and derivative of the compiled operator."""

import torch
from torch import Tensor

from .._checks import values_can_be_read
from . import native
from .batching import lead_with_mapped_dimension
from .direct import below_autograd, first_order, wants_gradient
from .subspace import first_order_only

MOST_DIRECTIONS = 64  # beyond, blocked library solvers win


def refuse_native(x: Tensor, p: Tensor, q: Tensor) -> str | None:
    """Say why the compiled kernel cannot take rows ``x`` and bases ``p``, ``q``."""
    if reason := native.refuse(x):
        return reason
    most = max(p.shape[-1], q.shape[-1])
    if most > MOST_DIRECTIONS:
        return f"the compiled kernel takes bases of up to {MOST_DIRECTIONS} columns, not {most}"
    return None


def cosine(x: Tensor, y: Tensor, p: Tensor, q: Tensor, eps: float) -> Tensor:
    """Cosines ``(..., N)`` of float32 or float64 input whose batch shapes agree."""
    if values_can_be_read(x, y, p, q):
        if wants_gradient(x, y, p, q):
            return _Cosine.apply(x, y, p, q, eps)
        with below_autograd():
            return _run(*_dense(x, y, p, q), eps)[0]
    return torch.ops.geokernels.geodesic_cosine(*_dense(x, y, p, q), eps)[0]


def _dense(x: Tensor, y: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    return x.contiguous(), y.contiguous(), p.mT.contiguous(), q.mT.contiguous()


class _Cosine(torch.autograd.Function):
    """The cosine and its derivative, called directly."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, p: Tensor, q: Tensor, eps: float) -> Tensor:
        dense = _dense(x, y, p, q)
        with below_autograd():
            cosines, *ctx.frame = _run(*dense, eps)
        ctx.eps = eps
        ctx.save_for_backward(x, y, p, q)
        return cosines

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, y, p, q = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:4]
        with below_autograd():
            grads = _run_backward(grad.contiguous(), *_dense(x, y, p, q), *ctx.frame, ctx.eps, *wanted)
        to_x, to_y, to_p, to_q = (part if want else None for part, want in zip(grads, wanted, strict=True))
        found = to_x, to_y, None if to_p is None else to_p.mT, None if to_q is None else to_q.mT
        if torch.is_grad_enabled():
            found = (
                None if part is None else first_order("geodesic_cosine", part, x, y, p, q, grad)
                for part in found
            )
        return *found, None


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
    grads = torch.ops.geokernels.geodesic_cosine_backward(
        grad.contiguous(), *ctx.saved_tensors, ctx.eps, *wanted
    )
    return *(part if want else None for part, want in zip(grads, wanted, strict=True)), None


if not native.missing:
    _run = torch.ops.geokernels.geodesic_cosine.default
    _run_backward = torch.ops.geokernels.geodesic_cosine_backward.default

    @torch.library.register_fake("geokernels::geodesic_cosine")
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

    @torch.library.register_fake("geokernels::geodesic_cosine_backward")
    def _(grad, x, y, p, q, left, right, g, coordinates, eps, to_x, to_y, to_p, to_q):
        parts = ((x, to_x), (y, to_y), (p, to_p), (q, to_q))
        return tuple(torch.empty_like(part) if wanted else part.new_empty(0) for part, wanted in parts)

    torch.library.register_autograd("geokernels::geodesic_cosine", _backward, setup_context=_save)
    first_order_only("geodesic_cosine")
    lead_with_mapped_dimension("geodesic_cosine")
    lead_with_mapped_dimension("geodesic_cosine_backward")
