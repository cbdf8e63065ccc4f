"""Soft correspondence of two feature clouds, as defined."""

import torch
from torch import Tensor

from .._typing import Points, Scores
from . import potentials
from .problem import Problem
from .transport import pairwise_cost, solve


def match_points(
    x: Points, y: Points, at_x: Points, at_y: Points, problem: Problem, position_weight: float, sigma: Tensor
) -> tuple[Points, Scores, Scores]:
    """Defines :func:`geokernels.match_points`: its map, its confidence and its cycle error.

    Args:
        x: Features ``(..., N, D)``.
        y: Features ``(..., M, D)``.
        at_x: Positions ``(..., N, P)``.
        at_y: Positions ``(..., M, P)``.
        problem: The transport, ``cost`` being that between features.
        position_weight: What a squared distance of positions adds to the cost.
        sigma: Distance by which a round trip may miss, ``(...)`` or a number.
    """
    cost = pairwise_cost(x, y, problem.cost) + position_weight * pairwise_cost(at_x, at_y)
    solution = solve(cost, problem)
    density = potentials.density(cost, solution.f, solution.g, problem.eps)
    a, b = potentials.weights_of(cost, cost.shape[-2:], problem.a, problem.b)
    plan = a[..., :, None] * b[..., None, :] * density
    found = _average(plan, at_y)
    squared = (_average(plan, _average(plan.mT, at_x)) - at_x).square().sum(-1)
    mass = torch.where(a > 0, plan.sum(-1) / a.masked_fill(a == 0, 1), 0).clamp(max=1)
    return found, mass * torch.exp(-squared / (2 * sigma**2)), root(squared)


def root(squared: Tensor) -> Tensor:
    """Square roots; the gradient at 0 is 0."""
    # select before the root, so that zeros back-propagate 0 and not 0 * inf
    return torch.where(squared > 0, squared.masked_fill(squared == 0, 1).sqrt(), 0)


def _average(shares: Tensor, values: Points) -> Points:
    """Rows of ``values`` averaged by the rows of ``shares``; 0 where those are."""
    total = shares.sum(-1, keepdim=True)
    return torch.where(total > 0, shares @ values / total.masked_fill(total == 0, 1), 0)
