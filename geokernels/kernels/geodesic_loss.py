"""The losses of geodesic morphing at once: shapes and derivative of the compiled operator."""

import torch
from torch import Tensor

from .._checks import values_can_be_read
from .._first_order import first_order
from .._typing import Basis, Rows
from . import derivatives, native
from .batching import lead_with_mapped_dimension
from .geodesic import MOST_DIRECTIONS
from .subspace import MOST_ROWS

EPS = 1e-12  # the default of geodesic_cosine


def can_run(
    current: Rows,
    source: Rows | None,
    other: Rows,
    other_source: Rows | None,
    basis: Basis | None,
    ranks: tuple[int, int],
) -> bool:
    """Whether :func:`loss` takes this: plain tensors on the CPU, gradients to ``current`` alone.

    The two sides are known to have one dtype and device, and each the shape of its source.
    """
    if native.missing or not derivatives.calls_are_direct() or not values_can_be_read(current):
        return False
    if torch.is_grad_enabled() and torch._C._any_requires_grad(source, other, other_source, basis):
        return False
    *batch, N, D = current.shape
    *other_batch, T, _D = other.shape
    K, L = ranks
    if current.dtype not in (torch.float32, torch.float64) or batch != other_batch or not current.numel():
        return False
    if basis is None:
        fits = 1 <= L <= min(T, D) and T <= MOST_ROWS
    else:
        fits = basis.shape == (*batch, D, L) and basis.dtype == current.dtype and T > 0
    return fits and 1 <= K <= min(N, D) and N <= MOST_ROWS and K <= MOST_DIRECTIONS and L <= MOST_DIRECTIONS


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
    operator = torch.ops.geokernels.geodesic_loss.default
    return derivatives.run(operator, *dense, *ranks, shortest, EPS, follow, with_gradient)[0]


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

    @torch.library.register_fake("geokernels::geodesic_loss")
    def _(current, source, other, other_source, q, rank, other_rank, shortest, eps, follow, with_gradient):
        gradient = torch.empty_like(current) if with_gradient else current.new_empty(0)
        return current.new_empty(current.shape[:-2]), gradient

    derivatives.differentiable("geodesic_loss", _backward, _save, _loss_tangents)
    lead_with_mapped_dimension("geodesic_loss")
