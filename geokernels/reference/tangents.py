r"""How results move with what they are made of: forward-mode derivatives, for definitions and kernels alike.

Each is the transpose of a gradient that stands elsewhere, at kinks and at what is undetermined too, and made
of differentiable operations. A tangent that is None is zero.
"""

import math

import torch
from torch import Tensor

from .._precision import full_precision
from .._typing import Basis, Cost, Potential, Rows, Scores, Weights
from . import path, potentials


@full_precision
def of_basis(left: Tensor, directions: Tensor, values: Tensor, dx: Rows, rank: int) -> tuple[Tensor, Tensor]:
    r"""The tangents of ``directions`` and ``values``: :func:`reference.subspace.basis_gradient` transposed.

    $$ds_i = u_i^\top dx\, b_i, \qquad
      db_i = \sum_j \frac{s_i u_i^\top dx\, b_j + s_j u_j^\top dx\, b_i}{s_i^2 - s_j^2}\, b_j
      + \frac{1}{s_i} (u_i^\top dx)_\perp$$

    for kept $i$ over dropped $j$; motion among the kept directions is left out.

    Args:
        left: Left singular vectors as rows, ``(..., R, N)``.
        directions: Right singular vectors as rows, ``(..., R, D)``, zero where dropped by tolerance.
        values: Singular values, ``(..., R)``.
        dx: ``(..., N, D)``.
        rank: How many directions are kept.
    """
    alive = (directions != 0).any(-1)
    kept = torch.arange(values.shape[-1], device=values.device) < rank
    inverse = (torch.where(alive & kept, 1, 0) / torch.where(alive, values, 1))[..., :, None]
    rows = left @ dx
    along = rows @ directions.mT
    s_i, s_j = values[..., :, None], values[..., None, :]
    gap = (s_i - s_j) * (s_i + s_j)
    apart = kept[:, None] & ~kept & (gap > 8 * torch.finfo(values.dtype).eps * s_i**2)
    turn = torch.where(apart, s_i * along + s_j * along.mT, 0) / torch.where(apart, gap, 1)
    moved = inverse * (rows - along @ directions) + turn @ directions
    return torch.where((alive & kept)[..., None], moved, 0), along.diagonal(dim1=-2, dim2=-1)


def of_weighting(twist: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""How the matrix $F$ of the geodesic cosine moves with the overlap, in the frame of its decomposition.

    With $\pm_j = (u_j, \pm v_j)$ it moves by $\sum_{ij} S_{ij} +_i +_j^\top + D_{ij} -_i -_j^\top
    + T_{ij} (+_i -_j^\top + -_j +_i^\top)$.

    Args:
        twist: $U^\top dC\, V$ of the overlap $C = U \mathrm{diag}(g) V^\top$, ``(..., K, K)``.
        g: Cosines of the principal angles, ``(..., K)``.

    Returns:
        ``S``, ``D`` and ``T``.
    """
    slope, mixed = path.divided_differences(g), path.mixed_differences(g)
    both = (twist + twist.mT) / 2
    return slope.sum * both, slope.difference * both, mixed * (twist.mT - twist) / 2


@full_precision
def of_cosine(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    x: Rows,
    y: Rows,
    p: Basis,
    q: Basis,
    dp: Basis | None,
    dq: Basis | None,
    dx: Rows | None,
    dy: Rows | None,
    *,
    eps: float,
) -> Scores:
    """The tangent of the geodesic cosine, ``(..., N)``.

    Args:
        u: Left singular vectors of the overlap, ``(..., M, M)``, as columns.
        v: Right singular vectors, likewise.
        g: Cosines of the principal angles, ``(..., M)``.
        x: Rows ``(..., N, D)``.
        y: Rows ``(..., N, D)``.
        p: Basis ``(..., D, M)``, filled with zero columns.
        q: Basis ``(..., D, M)``, likewise.
        dp: Tangent of ``p``; what it has in zero columns does not count.
        dq: Tangent of ``q``, likewise.
        dx: Tangent of ``x``.
        dy: Tangent of ``y``.
        eps: A row of squared length up to this has no direction.
    """
    w = path.weights(g)
    of_sum, of_difference = w.sum[..., None, :], w.difference[..., None, :]

    def spread(along: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
        along, across = along @ u, across @ v
        return along + across, along - across

    def inner(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Scores:
        return (of_sum * left[0] * right[0] + of_difference * left[1] * right[1]).sum(-1)

    dp = torch.zeros_like(p) if dp is None else torch.where((p != 0).any(-2, keepdim=True), dp, 0)
    dq = torch.zeros_like(q) if dq is None else torch.where((q != 0).any(-2, keepdim=True), dq, 0)
    same, opposite, crossed = of_weighting(u.mT @ (dp.mT @ q + p.mT @ dq) @ v, g)

    def turned(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Scores:
        plus = left[0] @ same + left[1] @ crossed.mT
        minus = left[1] @ opposite + left[0] @ crossed
        return (plus * right[0] + minus * right[1]).sum(-1)

    at, motion = [], []
    for rows, d_rows in ((x, dx), (y, dy)):
        at.append(spread(rows @ p, rows @ q))
        d_rows = torch.zeros_like(rows) if d_rows is None else d_rows
        motion.append(spread(d_rows @ p + rows @ dp, d_rows @ q + rows @ dq))
    (of_x, of_y), (d_x, d_y) = at, motion
    xx, xy, yy = inner(of_x, of_x), inner(of_x, of_y), inner(of_y, of_y)
    d_xx, d_yy = 2 * inner(d_x, of_x) + turned(of_x, of_x), 2 * inner(d_y, of_y) + turned(of_y, of_y)
    d_xy = inner(d_x, of_y) + inner(of_x, d_y) + turned(of_x, of_y)
    directed = (xx > eps) & (yy > eps)
    # select before dividing, so that rows without direction stand still and are not 0 / 0
    xx, yy = torch.where(directed, xx, 1), torch.where(directed, yy, 1)
    rise = d_xy - xy * (d_xx / xx + d_yy / yy) / 2
    return torch.where(directed, rise, 0) / (xx.sqrt() * yy.sqrt())


@full_precision
def of_transport(
    E: Tensor,
    a: Weights,
    b: Weights,
    f: Potential,
    g: Potential,
    eps: float,
    reach: float,
    d_cost: Cost | None,
    d_a: Weights | None,
    d_b: Weights | None,
) -> tuple[Tensor, Potential, Potential]:
    """The tangents of value, ``f`` and ``g``: :func:`geokernels.reference.potentials.gradients` transposed.

    Takes what that does, and the tangents of cost and weights.
    """
    d_cost = torch.zeros_like(E) if d_cost is None else torch.where(E > 0, d_cost, 0)
    d_a = torch.zeros_like(a) if d_a is None else d_a
    d_b = torch.zeros_like(b) if d_b is None else d_b
    to_cost, to_a, to_b = potentials.through_value(E, a, b, f, g, eps, reach)
    d_value = (to_cost * d_cost).sum((-2, -1)) + (to_a * d_a).sum(-1) + (to_b * d_b).sum(-1)
    wide = (part.double() for part in (E, a, b, f, g))
    moved = _of_potentials(
        *wide, eps, reach, d_cost.double(), d_a.double(), d_b.double(), potentials.ridge_of(E)
    )
    return d_value, *(part.to(f.dtype) for part in moved)


def _of_potentials(E, a, b, f, g, eps, reach, d_cost, d_a, d_b, ridge) -> tuple[Potential, Potential]:
    r"""Tangents of f and g: the linear system of the two half-steps, as it stands.

    $d\,\delta f + A\,\delta g = r$ and $B^\top \delta f + d\,\delta g = s$, of
    :func:`geokernels.reference.potentials.through_potentials`.
    """
    by_a, A = potentials.shares(E, b, -1)
    by_b, B = potentials.shares(E, a, -2)
    d = 1 + eps / reach
    r = (A * d_cost).sum(-1, keepdim=True) - eps * by_a @ d_b[..., None]
    s = (B * d_cost).sum(-2)[..., None] - eps * by_b.mT @ d_a[..., None]
    system = potentials.system(A, B, b, d, reach, ridge)
    g_moved = torch.linalg.solve(system.mT, s - B.mT @ r / d)
    f_moved, g_moved = ((r - A @ g_moved) / d)[..., 0], g_moved[..., 0]
    if reach == math.inf:
        shift = potentials.gauge_shift(a, b, f, g, f_moved, g_moved, d_a, d_b)
        f_moved, g_moved = f_moved + shift, g_moved - shift
    # a point without any partner has a constant potential
    return torch.where((E > 0).any(-1), f_moved, 0), torch.where((E > 0).any(-2), g_moved, 0)
