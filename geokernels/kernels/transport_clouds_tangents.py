r"""Transport between large clouds in forward mode, for every implementation of its passes over the pairs.

What a change of the points does to costs is a sum over features. Where the cost is a product it stays one,
and the sums over pairs are passes like any other; distances and powers are looked at in blocks of rows, by
PyTorch. ``passes`` and ``of_cost`` are those of transport_clouds_derivatives.py.
"""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from .._precision import full_precision
from ..reference import distances, potentials
from . import derivatives
from .adjoint import inverse
from .costs import PairCost
from .transport_clouds_derivatives import (
    differentiate,
    multiply,
    operator,
    pairwise,
    present,
)

BLOCK = 1 << 20  # pairs that are looked at together


def blocks_of_rows(x: Tensor, M: int) -> Iterator[slice]:
    """Rows of ``x``, as many at a time as their pairs with ``M`` points allow."""
    step = max(1, BLOCK // max(1, M * math.prod(x.shape[:-2])))
    return (slice(i, i + step) for i in range(0, x.shape[-2], step))


def _costs(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor, kind: int, p: float) -> tuple[Tensor, Tensor]:
    """Costs ``(..., N, M)`` of a distance or a power, and their tangents, 0 between points that coincide."""
    p = 2.0 if kind == PairCost.ROOT else p
    apart_by = distances.plain(x, y, p)
    moved = distances.tangent(x, y, apart_by, p, dx, dy)
    return (apart_by, moved) if kind == PairCost.ROOT else (apart_by**p, p * apart_by ** (p - 1) * moved)


@full_precision
def _by_blocks(x, y, f, g, left, right, v, dx, dy, *, kind: int, p: float) -> Tensor:
    blocks = []
    for rows in blocks_of_rows(x, y.shape[-2]):
        cost, moved = _costs(x[..., rows, :], y, dx[..., rows, :], dy, kind, p)
        E = potentials.density(cost, f[..., rows], g, 1.0) * moved
        if left is not None:
            E = E * (left[..., rows, :] @ right.mT)
        blocks.append(E @ v)
    return torch.cat(blocks, -2)


def changed(passes: str, x, y, f, g, left, right, v, dx, dy, *of_cost) -> Tensor:
    r"""What ``multiply`` loses, ``(..., N, E)``: $\sum_j E_{ij} \langle l_i, r_j\rangle\, \delta C_{ij} v_j$.

    ``dx`` or ``dy`` may be None, of a cloud that stands still.
    """
    kind, p, *_ = of_cost
    if kind not in (PairCost.DOT, PairCost.SQUARE):
        dx, dy = torch.zeros_like(x) if dx is None else dx, torch.zeros_like(y) if dy is None else dy
        by_blocks = partial(_by_blocks, kind=kind, p=p)
        return derivatives.first_order(distances.OF, by_blocks, x, y, f, g, left, right, v, dx, dy)
    total = 0
    for here, there in ((dx, y), (x, dy)):
        if here is None or there is None:
            continue
        # -<here_i, there_j>
        factors = (here, there) if left is None else (pairwise(left, here), pairwise(right, there))
        total = total - multiply(passes, x, y, f, g, *factors, v, *of_cost)
    if kind == PairCost.SQUARE and dx is not None:
        own = (x * dx).sum(-1, keepdim=True)
        total = total + own * multiply(passes, x, y, f, g, left, right, v, *of_cost)
    if kind == PairCost.SQUARE and dy is not None:
        own = (y * dy).sum(-1, keepdim=True)
        total = total + multiply(passes, x, y, f, g, left, right, own * v, *of_cost)
    return total


def _met(passes: str, x, y, f, g, weight, dx, dy, *of_cost) -> Tensor:
    r"""The same for one column, $\sum_j E_{ij} w_j\, \delta C_{ij}$, ``(..., N)``, with fewer products."""
    kind = of_cost[0]
    column, total = weight[..., None], torch.zeros_like(f)
    if kind not in (PairCost.DOT, PairCost.SQUARE):
        return changed(passes, x, y, f, g, None, None, column, dx, dy, *of_cost)[..., 0]
    if dx is not None:
        slope = differentiate(passes, x, y, f, g, torch.ones_like(f)[..., None], column, *of_cost)
        total = total + (slope * dx).sum(-1)
    if dy is not None:
        own = (y * dy).sum(-1, keepdim=True) if kind == PairCost.SQUARE else torch.zeros_like(column)
        sums = multiply(passes, x, y, f, g, None, None, column * torch.cat([own, dy], -1), *of_cost)
        total = total + sums[..., 0] - (x * sums[..., 1:]).sum(-1)
    return total


def product_tangents(passes: str, ctx, saved, dx, dy, df, dg, d_left, d_right, dv, *_of_cost):
    """Of ``multiply_clouds``, which is linear in the density and in each factor."""
    x, y, f, g, left, right, v, out = saved
    at, of_cost = (passes, x, y, f, g), ctx.of_cost
    total = torch.zeros_like(out)
    if df is not None:
        total = total + df[..., None] * out
    if dg is not None:
        total = total + multiply(*at, left, right, dg[..., None] * v, *of_cost)
    if d_left is not None:
        total = total + multiply(*at, d_left, right, v, *of_cost)
    if d_right is not None:
        total = total + multiply(*at, left, d_right, v, *of_cost)
    if dv is not None:
        total = total + multiply(*at, left, right, dv, *of_cost)
    if dx is not None or dy is not None:
        total = total - changed(*at, left, right, v, dx, dy, *of_cost)
    return total


def solution_tangents(passes: str, ctx, saved, dx, dy, da, db, *_constant):
    r"""Of ``sinkhorn_clouds``: value, f and g.

    The system of :func:`geokernels.reference.tangents.of_transport`, which is that of the adjoint: with
    $p = a \rho\, \delta f$ and $q = b \kappa\, \delta g$ the two are one.
    """
    x, y, a, b, n, m, f, g = saved
    a, b = potentials.weights_of(x, (x.shape[-2], y.shape[-2]), a, b, n, m)
    da, db = torch.zeros_like(a) if da is None else da, torch.zeros_like(b) if db is None else db
    pairs, of_cost, reach = (x, y, present(f, n), present(g, m)), ctx.of_cost, ctx.reach
    turned = y, x, *reversed(pairs[2:])
    rise = _met(passes, *pairs, b, dx, dy, *of_cost)
    fall = _met(passes, *turned, a, dy, dx, *of_cost)
    to_a = potentials.value_to_weight(f, b, 1.0, reach)
    to_b = potentials.value_to_weight(g, a, 1.0, reach)
    d_value = (a * rise + to_a * da).sum(-1) + (to_b * db).sum(-1)

    columns = multiply(passes, *pairs, None, None, torch.stack([b, db], -1), *of_cost)
    rows = multiply(passes, *turned, None, None, torch.stack([a, da], -1), *of_cost)
    rise, fall = rise - columns[..., 1], fall - rows[..., 1]
    kind, p, *own = of_cost
    solve = operator(passes, "solve_adjoint_clouds")
    _, _, by_columns, by_rows = solve(*pairs, a, b, a * rise, b * fall, kind, p, reach, *own)
    d = 1 + 1 / reach
    d_f = inverse(columns[..., 0]) * (rise - by_columns) / d
    d_g = inverse(rows[..., 0]) * (fall - by_rows) / d
    if reach == math.inf:
        shift = potentials.gauge_shift(a, b, f, g, d_f, d_g, da, db)
        d_f, d_g = d_f + shift, d_g - shift
    # what lies beyond the lengths is constant
    moved = (torch.where(at == -math.inf, 0, part) for at, part in zip(pairs[2:], (d_f, d_g)))
    return d_value, *moved, None, None
