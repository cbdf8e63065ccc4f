"""Sinkhorn between small weighted sets: the launch, and what is made of potentials once they are found."""

import math

import torch
import triton
from torch import Tensor

from ..._typing import Cost
from ...reference.potentials import LEAST_LIFT, level_of, unresolved, value_of_pairs, weights_of
from ...reference.problem import Problem, Solution
from .. import sizes, transport
from . import transport_given
from .registration import device_of, of_launch, operator, wrap_triton
from .transport_clouds_tiles import LOG2_E
from .transport_small import pairs_kernel, sinkhorn_kernel

ENTRIES = 2048  # of a block of rows
LAUNCH = 8, 128  # warps and registers, by what does not spill


def solve(cost: Cost, problem: Problem) -> Solution:
    """Solve it; gradients reach costs and weights."""
    large = sizes.exceed(sizes.TRITON.points, *cost.shape[-2:])
    solver = transport_given.sinkhorn_given if large else sinkhorn
    return Solution(*solver(cost, *problem.tensors(), *problem.numbers()))


def _gain(weight: Tensor, potential: Tensor, reach: float) -> Tensor:
    gained = potential if reach == math.inf else -reach * torch.expm1(-potential / reach)
    return torch.where(weight > 0, weight * gained, 0).sum(-1)


def _finish(a, b, f, g, reach) -> tuple[Tensor, Tensor, Tensor]:
    """Value and potentials in float64, in the units of f and g, after a column step."""
    f, g = f.double(), g.double()
    of_rows, of_columns = _gain(a, f, reach), _gain(b, g, reach)
    mass_a, mass_b = (w.double().sum(-1) for w in (a, b))
    # the columns' sums are what they should be
    value = of_rows + of_columns + LOG2_E * (mass_a * mass_b - mass_b)
    if reach < math.inf:
        return value + LOG2_E * of_columns / reach, f, g
    shift = ((of_columns - of_rows) / (mass_a + mass_b))[:, None]
    shift = torch.where(shift.isfinite(), shift, 0)
    return value, f + shift, g - shift


@operator("triton_sinkhorn")
def sinkhorn(
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
    """``geokernels::sinkhorn``."""
    a, b = weights_of(cost, cost.shape[-2:], a, b, n, m)
    batch, (N, M) = cost.shape[:-2], cost.shape[-2:]
    cost, a, b = cost.reshape(-1, N, M).contiguous(), a.reshape(-1, N), b.reshape(-1, M)
    a, b = a.contiguous(), b.contiguous()
    g = torch.zeros_like(b)
    if start is not None:
        g = torch.where(start.isfinite(), start * (LOG2_E / eps), 0).reshape(-1, M).contiguous()
    valid = torch.ones(a.shape[0], dtype=torch.bool, device=a.device)
    for weight in (a, b):
        valid = valid & ((weight >= 0) & weight.isfinite()).all(-1) & (weight.sum(-1) > 0)
    valid = valid & ~(cost.isnan() | cost.isneginf()).flatten(1).any(-1)
    f, raw = torch.zeros_like(a), torch.zeros_like(a)
    error = torch.full_like(a[:, 0], math.nan)
    iterations = torch.zeros_like(valid, dtype=torch.int32)
    count = torch.full_like(iterations, N) if n is None else n.reshape(-1).to(torch.int32)
    damping = 1.0 if reach == math.inf else reach / (reach + eps)
    width = max(triton.next_power_of_2(M), 16)
    rows = min(ENTRIES // width, max(triton.next_power_of_2(N), 16))
    with device_of(cost):
        wrap_triton(sinkhorn_kernel)[(a.shape[0],)](
            cost, a, b, f, raw, g, error, iterations, count, valid.to(torch.int32),
            LOG2_E / eps, damping, reach / eps, 2 * torch.finfo(a.dtype).eps / LOG2_E, tol, max_iter, N, M,
            reach == math.inf, LEAST_LIFT * torch.finfo(a.dtype).eps, rows, width, **of_launch(cost, *LAUNCH),
        )  # fmt: skip
    f = torch.where(a > 0, f, damping * raw)
    value, moved_f, moved_g = _finish(a, b, f, g, LOG2_E * reach / eps)
    value = value / LOG2_E
    near = valid & (value.abs() < a.double().sum(-1) * b.double().sum(-1))
    sums, level = a.new_full((3, a.shape[0]), math.inf), LOG2_E * level_of(a, reach)
    with device_of(cost):
        wrap_triton(pairs_kernel)[(a.shape[0],)](
            cost, a, b, f, g, sums, level.to(a.dtype), count, near.to(torch.int32),
            LOG2_E / eps, N, M, rows, width, **of_launch(cost, *LAUNCH),
        )  # fmt: skip
    sums = sums.double()
    value = value_of_pairs(value, a, b, f / LOG2_E, g / LOG2_E, reach / eps, sums[0] / LOG2_E, *sums[1:])
    f, g = moved_f, moved_g
    valid = valid & ~unresolved(f, g, a, b, LOG2_E, torch.finfo(a.dtype).eps)
    error = error.masked_fill(~valid, math.nan)
    unit, potentials = eps / LOG2_E, []
    for potential, count in ((f, n), (g, m)):
        potential = torch.where(valid[:, None], unit * potential, math.nan).to(a.dtype)
        if count is not None:
            beyond = torch.arange(potential.shape[-1], device=a.device) >= count.reshape(-1, 1)
            potential = potential.masked_fill(beyond, 0)
        potentials.append(potential.reshape((*batch, -1)))
    value = torch.where(valid, eps * value, math.nan).to(a.dtype)
    return value.reshape(batch), *potentials, error.reshape(batch), iterations.long().reshape(batch)


transport.register_solver("triton_sinkhorn")
