"""The dual value of a problem whose rows are spread over ranks, and the constant its potentials are free in.

Potentials are whole on every rank here, and what rank 0 has found is what all take.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .._typing import Points, Potential, Weights
from ..kernels.costs import PairCost
from ..kernels.transport_clouds_tangents import blocks_of_rows
from ..reference import potentials
from ..reference.transport import pairwise_cost
from .pairs import SpreadPairs

# what the operators' costs are, by name and factor
COSTS = {
    PairCost.DOT: ("dot", 1.0),
    PairCost.SQUARE: ("sqeuclidean", 0.5),
    PairCost.ROOT: ("euclidean", 1.0),
    PairCost.POWER: ("lp", 1.0),
}


class Finished(NamedTuple):
    """What a solver returns, in units of eps.

    Attributes:
        value: ``()``.
        f: Potential of the rows here, ``(N,)``.
        g: Potential of the columns here, ``(M,)``.
        lost: By how much the roundings of the last constant can change the plan's mass.
    """

    value: Tensor
    f: Potential
    g: Potential
    lost: float


def finish(
    pairs: SpreadPairs, x: Points, y: Points, f: Potential, g: Potential, a: Weights, b: Weights, reach: float
) -> Finished:
    """What potentials amount to that the column step has just left; all but ``pairs`` are this rank's."""
    ranks = pairs.ranks
    (all_f, all_a), (all_g, all_b) = (
        ranks.whole(count, p, w) for count, p, w in zip(pairs.counts, (f, g), (a, b))
    )
    sides = all_a.double(), all_b.double(), all_f.double(), all_g.double()
    masses = all_a.double().sum(), all_b.double().sum()
    gains = [_gain(w, p, reach) for w, p in ((sides[0], sides[2]), (sides[1], sides[3]))]
    product = masses[0] * masses[1]
    # the columns' sums are what they should be after their step
    value = gains[0] + gains[1] + product - masses[1] + gains[1] / reach
    value, product = ranks.first(torch.stack([value, product]))
    if abs(float(value)) < float(product):
        level = potentials.level_of(all_a, reach)
        sums = ranks.total(_sums_of_pairs(pairs, x, y, f, g, a, b, level))
        value = potentials.value_of_pairs(value, *sides, reach, *sums)
    shift = torch.zeros_like(value)
    if reach == math.inf:
        shift = (gains[1] - gains[0]) / (masses[0] + masses[1])
    value, shift = ranks.first(torch.stack([value, shift]))
    exact = sides[2] + shift, sides[3] - shift
    moved = [part.to(f.dtype) for part in exact]
    off = [(w * (p.double() - e).abs()).sum() for w, p, e in zip(sides, moved, exact)]
    lost = 2 * float(ranks.first(off[0] + off[1]))
    resolution = torch.finfo(f.dtype).eps
    unresolved = potentials.unresolved(*moved, all_a, all_b, 1.0, resolution)
    value = value.to(f.dtype).masked_fill(unresolved, math.nan)
    moved = [part.masked_fill(unresolved, math.nan) for part in moved]
    mine = [part.split(list(count))[ranks.rank] for part, count in zip(moved, pairs.counts)]
    return Finished(value, *(part.contiguous() for part in mine), lost)


def _gain(weight: Tensor, potential: Tensor, reach: float) -> Tensor:
    gained = potential if reach == math.inf else -reach * torch.expm1(-potential / reach)
    return torch.where(weight > 0, weight * gained, 0).sum()


def _sums_of_pairs(pairs: SpreadPairs, x, y, f, g, a, b, level: Tensor) -> Tensor:
    """The rows' share of what :func:`potentials.value_of_pairs` sums over the pairs, float64 ``(3,)``."""
    name, factor = COSTS[pairs.kind]
    total = x.new_zeros(3, dtype=torch.float64)
    for points, potential, weight in pairs.meet(False, y, g, b):
        for rows in blocks_of_rows(x, points.shape[0]):
            cost = factor * pairwise_cost(x[rows], points, name, pairs.p)
            both = (f[rows] + level.to(f.dtype))[:, None] + potential
            mass = a[rows, None] * weight
            parts = cost, potentials.power_rest(both - cost), potentials.power_rest(-cost)
            total = total + torch.stack(
                [torch.where(mass > 0, mass * part, 0).double().sum() for part in parts]
            )
    return total
