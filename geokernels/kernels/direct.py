"""Plain tensors in CPU memory, past the dispatcher: looking an operator up takes as long as a small problem.

Same kernels, same bits; csrc/cpu/direct.h says what is taken. Whatever is declined, and second derivatives,
go by the dispatcher (derivatives.py), which torch.compile, torch.func, modes and the profiler listen to.
"""

import torch
from torch import Tensor

from .. import _torch_internals as internals
from .._typing import Basis, Cost, Rows, Scores
from ..reference.problem import Problem, Solution
from . import derivatives, native, sizes
from ._ops import ops

_exchange = getattr(Tensor, "__dlpack_c_exchange_api__", None)
_there = not native.missing and _exchange is not None and internals.can_be_passed_by
if _there:
    _listened = internals.listeners, internals.forward_ad, torch.is_grad_enabled
    native._C.use_exchange(Tensor, torch.nn.Parameter, _exchange, *_listened)


def _possible() -> bool:
    """Whether nobody listens to the dispatcher; who traces without dynamo has modes that do."""
    return _there and not torch.compiler.is_dynamo_compiling() and native._C.nobody_listens()


def _is_wanted(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and internals.any_requires_grad(*tensors)


class _Basis(internals.SingleLevelFunction or torch.autograd.Function):
    """The derivative of a basis and its values that are made already."""

    @staticmethod
    def forward(ctx, made: tuple[Tensor, Tensor, Tensor], rank: int, x: Rows):
        basis, values, left = made
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(left, basis, values)
        ctx.rank = rank
        return basis, values

    @staticmethod
    def backward(ctx, grad_basis: Tensor | None, grad_values: Tensor | None):
        left, basis, values = ctx.saved_tensors
        given = grad_basis, grad_values, left, basis, values, ctx.rank
        grad = None if torch.is_grad_enabled() else native._C.basis_backward(*given)
        if grad is None:
            grad = derivatives.run(
                ops.subspace_basis_backward.default,
                torch.zeros_like(basis.mT) if grad_basis is None else grad_basis.mT.contiguous(),
                None if grad_values is None else grad_values.contiguous(),
                left, basis.mT, values, ctx.rank,
            )  # fmt: skip
        return None, None, grad


def basis(x: Rows, rank: int | None, rtol: float | None) -> tuple[Basis, Tensor] | None:
    """Basis ``(..., D, rank)`` and values ``(..., rank)``, or None where the dispatcher is to be asked."""
    if not _possible():
        return None
    if (made := native._C.basis(x, rank, rtol, sizes.ON_CPU_IN_FLOAT64.rows)) is None:
        return None
    directions, values, left = made
    if left is not None:
        directions, values = _Basis.apply(made, rank or values.shape[-1], x)
    if rank is not None and rank < values.shape[-1]:
        return directions[..., :rank], values[..., :rank]
    return directions, values


def sinkhorn(cost: Cost, problem: Problem) -> Solution | None:
    """The solution where no derivative is wanted, or None where the dispatcher is to be asked."""
    plain = problem.a is None and problem.b is None and problem.lengths is None and problem.init is None
    if not plain or not _possible() or _is_wanted(cost):
        return None
    made = native._C.sinkhorn(cost, *problem.numbers())
    return None if made is None else Solution(*made)


class _Cosine(internals.SingleLevelFunction or torch.autograd.Function):
    """The derivative of cosines that are made already."""

    @staticmethod
    def forward(ctx, made: tuple[Tensor, object], eps: float, x: Rows, y: Rows, p: Basis, q: Basis):
        cosines, ctx.frame = made
        ctx.save_for_backward(x, y, p, q)
        ctx.eps = eps
        return cosines

    @staticmethod
    def backward(ctx, grad: Tensor):
        grads = native._C.cosine_backward(ctx, grad)
        return (None, None, *_cosine_gradients(ctx, grad)) if grads is None else grads


def _cosine_gradients(ctx, grad: Tensor) -> list[Tensor | None]:
    """The same by the dispatcher, which has a frame of its own."""
    x, y, p, q = ctx.saved_tensors
    given, wanted = (x, y, p.mT, q.mT), ctx.needs_input_grad[2:]
    with torch.no_grad():
        _cosine, *frame = ops.geodesic_cosine(*given, ctx.eps)
    operator = ops.geodesic_cosine_backward.default
    grads = derivatives.run(operator, grad.contiguous(), *given, *frame, ctx.eps, *wanted)
    to_rows, to_bases = grads[:2], (part if part.dim() < 2 else part.mT for part in grads[2:])
    return [part if want else None for part, want in zip((*to_rows, *to_bases), wanted, strict=True)]


def cosine(x: Rows, y: Rows, p: Basis, q: Basis, eps: float) -> Scores | None:
    """Cosines ``(..., N)``, or None where the dispatcher is to be asked."""
    if not _possible():
        return None
    made = native._C.cosine(x, y, p, q, eps, sizes.ON_CPU.directions, sizes.ON_CPU_IN_FLOAT64.directions)
    if made is None or made[1] is None:
        return None if made is None else made[0]
    return _Cosine.apply(made, eps, x, y, p, q)
