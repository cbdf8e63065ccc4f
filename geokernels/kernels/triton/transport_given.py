"""Sinkhorn between sets of any size whose costs are given: the sweeps of large clouds, which read them."""

import math

import torch
from torch import Tensor

from ...reference.potentials import weights_of
from .. import transport
from .._ops import full_name
from ..costs import PairCost
from .registration import device_of, opaque
from .transport_clouds import Side, solve_sides
from .transport_clouds_tiles import LOG2_E, Cloud


@opaque(full_name("triton_sinkhorn_given"), mutates_args=())
def sinkhorn_given(
    cost: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    n: Tensor | None,
    m: Tensor | None,
    start: Tensor | None,
    eps: float,
    reach: float,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``geokernels::sinkhorn``, of any number of points."""
    N, M = cost.shape[-2:]
    weights = weights_of(cost, (N, M), a, b, n, m)
    batch, cost = cost.shape[:-2], cost.reshape(-1, N, M).contiguous()
    # neither NaN nor -inf
    sound = (cost > -math.inf).flatten(1).all(-1)
    sides = []
    for weight, count in zip(weights, (n, m)):
        weight = weight.reshape(len(cost), -1).contiguous()
        cloud = Cloud(cost, cost, torch.zeros_like(weight))
        sides.append(Side(cloud, weight, None if count is None else count.reshape(-1), sound))
    if start is not None:
        start = start.reshape(-1, M) / eps
    with device_of(cost):
        value, f, g, error, iterations = solve_sides(
            *sides, start, 0, PairCost.GIVEN, LOG2_E / eps, reach / eps, 1.0, 0.5, max_iter, tol, "fp32"
        )
    parts = eps * value, eps * f, eps * g, error, iterations
    return tuple(part.reshape((*batch, *part.shape[1:])) for part in parts)


transport.register_solver("triton_sinkhorn_given")
