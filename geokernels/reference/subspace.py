"""Subspaces of features, as defined: bases, projection, principal angles."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _forward_mode
from .._first_order import first_order
from .._precision import full_precision
from .._typing import Basis, Rows
from . import tangents


class SubspaceBasis(NamedTuple):
    """Directions of largest spread, and how much there is along each.

    Attributes:
        basis: Orthonormal columns, ``(..., D, K)``; a direction without spread is a zero column.
        values: Singular values, ``(..., K)``, descending.
    """

    basis: Basis
    values: Tensor


def centred(x: Rows, center: str) -> Rows:
    """Subtract nothing, each row's own mean, or the mean row."""
    if center == "none":
        return x
    return x - x.mean({"rows": -1, "batch": -2}[center], keepdim=True)


ROUNDING = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}


def default_rtol(x: Rows) -> float:
    """Relative size below which a singular value of ``x`` is rounding noise."""
    return max(x.shape[-2:]) * ROUNDING[x.dtype]


def basis_gradient(
    grad_directions: Tensor, grad_values: Tensor, left: Tensor, directions: Tensor, values: Tensor, rank: int
) -> Tensor:
    r"""Gradient to ``x`` through its singular values and the span of its ``rank`` leading directions.

    With $x = \sum_i s_i u_i b_i^\top$, the kept directions move only against those outside their span:

    $$b_j^\top db_i = \frac{s_i u_i^\top dx\, b_j + s_j u_j^\top dx\, b_i}{s_i^2 - s_j^2}$$

    for kept $i$ and dropped $j$, and $u_i^\top dx\, / s_i$ in the complement of the rows. Motion among the
    kept directions is left out: no function of the span can see it, and only there do equal values divide
    by zero. A gap closed to rounding leaves the span itself undetermined: its two directions give 0.

    Args:
        grad_directions: Gradient to ``directions``, ``(..., R, D)``; used on the first ``rank``.
        grad_values: Gradient to ``values``, ``(..., R)``.
        left: Left singular vectors as rows, ``(..., R, N)``.
        directions: Right singular vectors as rows, ``(..., R, D)``, zero where dropped by tolerance.
        values: Singular values, ``(..., R)``.
        rank: How many directions are kept.
    """
    alive = (directions != 0).any(-1)
    kept = torch.arange(values.shape[-1], device=values.device) < rank
    grad = torch.where((kept & alive)[..., None], grad_directions, 0)
    inverse = torch.where(alive & kept, 1, 0) / torch.where(alive, values, 1)

    # seen[j, i]: how the gradient to direction i leans on direction j
    seen = directions @ grad.mT
    s_j, s_i = values[..., :, None], values[..., None, :]
    gap = (s_i - s_j) * (s_i + s_j)
    apart = ~kept[:, None] & kept & (gap > 8 * torch.finfo(values.dtype).eps * s_i**2)
    turn = torch.where(apart, seen, 0) / torch.where(apart, gap, 1)

    along = torch.diag_embed(grad_values) - seen.mT * inverse[..., :, None]
    along = along + s_j * (turn + turn.mT)
    return left.mT @ (inverse[..., None] * grad + along @ directions)


Decomposition = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.linalg.svd(x, full_matrices=False)


class _Directions(torch.autograd.Function):
    """Right and left singular vectors, as rows, and values; the gradient is :func:`basis_gradient`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rank: int, rtol: float, svd: Decomposition) -> tuple[Tensor, Tensor, Tensor]:
        left, values, directions = svd(x)
        low, high = directions.aminmax(dim=-1, keepdim=True)
        sign = torch.where(-low > high, -1, 1).to(x.dtype)
        directions = torch.where((values > rtol * values[..., :1])[..., None], directions * sign, 0)
        return directions, left.mT * sign, values

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
        directions, left, values = output
        ctx.mark_non_differentiable(left)
        ctx.save_for_backward(left, directions, values)
        ctx.save_for_forward(left, directions, values)
        ctx.rank = inputs[1]

    @staticmethod
    def backward(ctx, grad_directions: Tensor, _grad_left: Tensor, grad_values: Tensor):
        formula = partial(basis_gradient, rank=ctx.rank)
        grads = (grad_directions, grad_values)
        return first_order("subspace_basis", formula, *grads, *ctx.saved_tensors), None, None, None


def _tangents_of_directions(ctx, saved: tuple[Tensor, ...], moved: Tensor, *_settings):
    formula = partial(tangents.of_basis, rank=ctx.rank)
    directions, values = first_order("subspace_basis", formula, *saved, moved)
    return directions, None, values


_directions = _forward_mode.applied(_Directions, _tangents_of_directions)


def subspace_basis(
    x: Rows,
    rank: int | None = None,
    *,
    center: str = "none",
    rtol: float | None = None,
    svd: Decomposition = _svd,
) -> SubspaceBasis:
    """See :func:`geokernels.subspace_basis`, which this defines; ``svd`` decomposes the rows."""
    rank = min(x.shape[-2:]) if rank is None else rank
    rtol = default_rtol(x) if rtol is None else rtol
    directions, _left, values = _directions(centred(x, center), rank, rtol, svd)
    return SubspaceBasis(directions[..., :rank, :].mT, values[..., :rank])


@full_precision
def project(x: Rows, basis: Basis) -> Tensor:
    """See :func:`geokernels.project`, which this defines."""
    return x @ basis


def living(basis: Basis) -> Tensor:
    """Which columns are not zero, ``(..., K)``."""
    return (basis != 0).any(-2)


@full_precision
def principal_angles(p: Basis, q: Basis) -> Tensor:
    """See :func:`geokernels.principal_angles`, which this defines."""
    overlap = p.mT @ q
    # every zero column of q stands for a direction of its own, at a right angle to everything
    own = torch.diag_embed((~living(q)).to(q.dtype))
    cosines = torch.linalg.svdvals(overlap)
    sines = torch.linalg.svdvals(torch.cat([q - p @ overlap, own], -2)).flip(-1)
    count = min(p.shape[-1], q.shape[-1])
    return torch.atan2(sines[..., :count], cosines[..., :count])
