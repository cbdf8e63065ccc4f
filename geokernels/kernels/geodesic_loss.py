"""The losses of geodesic morphing at once: shapes and derivative of the compiled operator."""

import torch
from torch import Tensor

from .._checks import values_can_be_read
from .._first_order import first_order
from .._torch_internals import any_requires_grad
from .._typing import Basis, Rows
from ..reference.geodesic import SHORTEST
from . import derivatives, native, sizes
from ._ops import full_name, ops
from .batching import lead_with_mapped_dimension


def refuse(
    current: Rows,
    source: Rows | None,
    other: Rows,
    other_source: Rows | None,
    basis: Basis | None,
    ranks: tuple[int, int],
) -> str | None:
    """Say why :func:`loss` cannot take this.

    The two sides are known to have one dtype and device, and each the shape of its source.
    """
    if native.missing:
        return native.missing
    if not derivatives.calls_are_direct(current):
        return "the fused kernel has no rules for torch.compile, torch.func and forward-mode derivatives"
    if not values_can_be_read(current):
        return "the fused kernel takes plain tensors in CPU memory"
    if torch.is_grad_enabled() and any_requires_grad(source, other, other_source, basis):
        return "the fused kernel has gradients to the current rows alone"
    if current.dtype not in (torch.float32, torch.float64):
        return f"no fused kernel for {current.dtype}"
    if current.shape[:-2] != other.shape[:-2] or not current.numel():
        return "the fused kernel takes rows of one batch shape on both sides, and at least one"
    return _refuse_sizes(current, other, basis, ranks)


def _refuse_sizes(current: Rows, other: Rows, basis: Basis | None, ranks: tuple[int, int]) -> str | None:
    *batch, N, D = current.shape
    T, most = other.shape[-2], sizes.native(current)
    K, L = ranks
    if basis is not None and (basis.shape != (*batch, D, L) or basis.dtype != current.dtype or not T):
        return "the fused kernel takes a basis of the batch shape, features and dtype of the current rows"
    if not 1 <= K <= min(N, D) or (basis is None and not 1 <= L <= min(T, D)):
        return f"ranks must lie between 1 and the number of rows and features, got {K} and {L}"
    rows = N if basis is not None else max(N, T)
    if sizes.exceed(most.rows, rows):
        return f"the fused kernel takes up to {most.rows} rows, not {rows}"
    if max(K, L) > most.directions:
        return f"the fused kernel takes bases of up to {most.directions} columns, not {max(K, L)}"
    return None


def loss(
    current: Rows,
    source: Rows | None,
    other: Rows,
    other_source: Rows | None,
    basis: Basis | None,
    ranks: tuple[int, int],
    *,
    shortest: float = 0.0,
    follow: bool = True,
) -> Tensor:
    """One minus the mean geodesic cosine, ``(...)``; csrc/cpu/geodesic_loss_kernel.h says of what.

    Args:
        current: ``(..., N, D)``, float32 or float64; gradients reach it alone.
        source: Like ``current``, or None.
        other: ``(..., T, D)``.
        other_source: Like ``other``; both sources or none.
        basis: ``(..., D, L)`` of the other side, or None to make it of its ``ranks[1]`` leading directions.
        ranks: Directions of the current rows and of the other side.
        shortest: A change up to this length has no direction.
        follow: Whether the gradient also goes through the basis of the current rows.
    """
    inputs = (current, source, other, other_source, None if basis is None else basis.mT)
    dense = (None if x is None else x.contiguous() for x in inputs)
    with_gradient = torch.is_grad_enabled() and current.requires_grad
    operator = ops.geodesic_loss.default
    return derivatives.run(operator, *dense, *ranks, shortest, SHORTEST, follow, with_gradient)[0]


def _save(ctx, inputs, output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    # or zeros would be made for it
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], output[1])


def _scaled(grad: Tensor, gradient: Tensor, _current: Tensor) -> Tensor:
    return (grad[..., None, None] if grad.dim() else grad) * gradient


def _backward(ctx, grad: Tensor | None, _grad_gradient):
    if grad is None:
        return (None,) * 11
    current, gradient = ctx.saved_tensors
    if torch.is_grad_enabled():
        return first_order("geodesic_loss", _scaled, grad, gradient, current), *(None,) * 10
    return _scaled(grad, gradient, current), *(None,) * 10


def _loss_tangents(ctx, saved, moved: Tensor | None, *others):
    current, gradient = saved
    if gradient.shape != current.shape or any(isinstance(part, Tensor) for part in others):
        raise NotImplementedError("geodesic_loss has tangents along current alone, with its gradient at hand")
    return derivatives.first_order("geodesic_loss", _along, gradient, moved), None


def _along(gradient: Tensor, moved: Tensor) -> Tensor:
    return (gradient * moved).sum((-2, -1))


if not native.missing:

    @torch.library.register_fake(full_name("geodesic_loss"))
    def _(current, source, other, other_source, q, rank, other_rank, shortest, eps, follow, with_gradient):
        gradient = torch.empty_like(current) if with_gradient else current.new_empty(0)
        return current.new_empty(current.shape[:-2]), gradient

    derivatives.differentiable("geodesic_loss", _backward, _save, _loss_tangents)
    lead_with_mapped_dimension("geodesic_loss")
