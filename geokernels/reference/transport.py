"""Entropic transport in the log domain, assignment by shortest augmenting paths, and displacement."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import _forward_mode
from .._typing import Cost, Points, Potential, Weights
from . import potentials, tangents
from .distances import distances
from .early_stop import Watch
from .problem import Problem, Solution


def pairwise_cost(x: Points, y: Points, cost: str = "sqeuclidean", p: float = 2.0) -> Cost:
    """Costs between the rows of ``x`` ``(..., N, D)`` and of ``y`` ``(..., M, D)``, ``(..., N, M)``."""
    with torch.autocast(x.device.type, enabled=False):
        if cost == "sqeuclidean":
            x, y = potentials.centred(x, y)
            squares = torch.linalg.vecdot(x, x)[..., :, None] + torch.linalg.vecdot(y, y)[..., None, :]
            return squares - 2 * (x @ y.mT)
        if cost == "euclidean":
            return distances(x, y)
        if cost == "lp":
            return distances(x, y, p) ** p
        if cost == "dot":
            return -(x @ y.mT)
        return 1 - potentials.directions(x) @ potentials.directions(y).mT


def solve(cost: Cost, problem: Problem) -> Solution:
    """Solve it by Sinkhorn's iteration; gradients reach costs and weights."""
    a, b, n, m, start = problem.tensors()
    a, b = potentials.weights_of(cost, cost.shape[-2:], a, b, n, m)
    return Solution(*_sinkhorn(cost, a, b, n, m, start, *problem.numbers()))


class _Sinkhorn(torch.autograd.Function):
    """The iteration, with the derivative of what it converges to."""

    generate_vmap_rule = True

    @staticmethod
    def forward(cost, a, b, n, m, start, eps, reach, max_iter, tol):
        f, g, error, iterations = _iterate(cost, a, b, start, eps, reach, max_iter, tol)
        value = _dual_value(cost, a, b, f, g, eps, reach)
        lost = potentials.unresolved(f, g, a, b, eps, torch.finfo(cost.dtype).eps)
        value, error = (part.masked_fill(lost, math.nan) for part in (value, error))
        f, g = (part.masked_fill(lost[..., None], math.nan) for part in (f, g))
        if n is not None:
            f = f.masked_fill(torch.arange(f.shape[-1], device=f.device) >= n[..., None], 0)
            g = g.masked_fill(torch.arange(g.shape[-1], device=g.device) >= m[..., None], 0)
        return value, f, g, error, iterations

    @staticmethod
    def setup_context(ctx, inputs, output):
        cost, a, b, _, _, _, ctx.eps, ctx.reach, _, _ = inputs
        _, f, g, error, iterations = output
        ctx.mark_non_differentiable(error, iterations)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(cost, a, b, f, g)
        ctx.save_for_forward(cost, a, b, f, g)

    @staticmethod
    def backward(ctx, grad_value, grad_f, grad_g, _grad_error, _grad_iterations):
        if grad_value is None and grad_f is None and grad_g is None:
            return (None,) * 10
        cost, a, b, f, g = ctx.saved_tensors
        E = potentials.density(cost, f, g, ctx.eps)
        parts = potentials.gradients(E, a, b, f, g, ctx.eps, ctx.reach, grad_value, grad_f, grad_g)
        return *parts, *(None,) * 7


def _tangents_of_sinkhorn(ctx, saved, d_cost, d_a, d_b, *_constant):
    cost, a, b, f, g = saved
    E = potentials.density(cost, f, g, ctx.eps)
    return *tangents.of_transport(E, a, b, f, g, ctx.eps, ctx.reach, d_cost, d_a, d_b), None, None


_sinkhorn = _forward_mode.applied(_Sinkhorn, _tangents_of_sinkhorn)


def _iterate(cost, a, b, start, eps, reach, max_iter, tol):
    """Alternate the two half-steps, each problem until its own marginal error is at most ``tol``.

    From then on its potentials stay, and what follows from them is computed anew to the same bits.
    """
    damping = 1.0 if reach == math.inf else reach / (reach + eps)

    def soft_minimum(potential: Potential, weight: Weights, dim: int) -> Potential:
        potential, weight = potential.unsqueeze(-3 - dim), weight.unsqueeze(-3 - dim)
        scores = (potential - cost) / eps + weight.log()
        # an infinite potential belongs to a point that reaches nobody
        return -eps * torch.logsumexp(scores.masked_fill(potential.isinf(), -math.inf), dim)

    g = torch.zeros_like(b) if start is None else start.masked_fill(start.isinf(), 0)
    f = torch.zeros_like(a)
    active = torch.ones(cost.shape[:-2], dtype=torch.bool, device=cost.device)
    iterations = active.long() * 0
    row_step, lift, watch = soft_minimum(g, b, -1), torch.zeros_like(a[..., :1]), Watch()
    for _ in range(max_iter):
        # what follows of g - lift
        f = torch.where(active[..., None], damping * (row_step + lift), f)
        g = torch.where(active[..., None], damping * soft_minimum(f, a, -2), g)
        row_step = soft_minimum(g, b, -1)
        error = _marginal_error(a, b, f, g, row_step, eps, reach)
        iterations = iterations + active
        active = active & (error > tol)
        if reach < math.inf:
            wanted = [torch.where(w > 0, w * torch.exp(-p / reach), 0).sum(-1) for w, p in ((a, f), (b, g))]
            lift = potentials.best_constant(*wanted, reach)[..., None]
        if watch.ended(active):
            break
    f = torch.where(a > 0, f, damping * row_step)  # a point without mass follows the others, to the end
    if reach == math.inf:
        inner = [torch.where(w > 0, w * p, 0).sum(-1, keepdim=True) for w, p in ((a, f), (b, g))]
        shift = (inner[1] - inner[0]) / (a.sum(-1, keepdim=True) + b.sum(-1, keepdim=True))
        f, g = f + shift, g - shift
    return f, g, error, iterations


def _marginal_error(a, b, f, g, row_step, eps, reach):
    """L1 distance of the marginals from what they should be; columns are exact after their step, or empty."""
    share = torch.exp((f - row_step).masked_fill(row_step.isinf(), -math.inf) / eps)
    wanted = torch.ones_like(f) if reach == math.inf else torch.exp(-f / reach)
    wrong = torch.where(a > 0, a * (share - wanted).abs(), 0).sum(-1)
    if reach == math.inf:
        wrong = wrong + torch.where(g.isinf(), b, 0).sum(-1)
    return torch.where((a.sum(-1) > 0) & (b.sum(-1) > 0), wrong, math.nan)


def _dual_value(cost, a, b, f, g, eps, reach):
    """The dual objective, at potentials that the column step has just left."""

    def gain(weight, potential):
        lost = potential if reach == math.inf else -reach * torch.expm1(-potential / reach)
        return torch.where(weight > 0, weight * lost, 0).sum(-1)

    pairs = a[..., :, None] * b[..., None, :]
    product = a.sum(-1) * b.sum(-1)
    plan = (pairs * potentials.density(cost, f, g, eps)).sum((-2, -1))
    value = gain(a, f) + gain(b, g) + eps * (product - plan)
    f, g = f / eps, g / eps
    own = f + potentials.level_of(a, reach).to(f.dtype)[..., None]
    cost = cost / eps
    both, meets = own[..., :, None] + g[..., None, :], cost < math.inf
    # what these tend to, as differences, where a cost is infinite
    parts = (
        torch.where(meets, cost, 1),
        torch.where(meets, potentials.power_rest(both - cost), -both),
        torch.where(meets, potentials.power_rest(-cost), 0),
    )
    sums = (torch.where(pairs > 0, pairs * part, 0).sum((-2, -1)).double() for part in parts)
    return eps * potentials.value_of_pairs((value / eps).double(), a, b, f, g, reach / eps, *sums).to(f.dtype)


def assignment(cost: Cost) -> Tensor:
    """Defines :func:`geokernels.assignment`; -1 throughout where there is none."""
    N, M = cost.shape[-2:]
    problems = cost.detach().double().cpu().reshape(-1, N, M)
    with torch.device("cpu"):  # the search looks at every step, for which a GPU would be waited for
        chosen = [_assign(problem) for problem in problems]
        columns = torch.stack(chosen) if chosen else torch.empty(0, dtype=torch.int64)
    return columns.reshape(cost.shape[:-1]).to(cost.device)


def displacement(
    x: Points, y: Points, times: Tensor, *, assign: Callable[[Cost], Tensor] = assignment
) -> tuple[Points, Tensor]:
    """Defines :func:`geokernels.displacement` along the exact assignment.

    Args:
        x: ``(..., N, D)``.
        y: ``(..., M, D)``, N <= M.
        times: ``(..., T)``, one problem's beside it.
        assign: From float64 costs to the columns of rows, -1 throughout where there is no assignment.

    Returns:
        Points ``(..., T, N, D)``, and those of ``y`` that they go to, ``(..., N)``. NaN and -1 throughout a
        problem that has a cost, or a sum of a few, which is not finite.
    """
    cost = pairwise_cost(x.detach(), y.detach())
    possible = cost.isfinite().all(-1).all(-1)[..., None, None]
    chosen = assign(torch.where(possible, cost, math.inf).double())
    solved = (chosen >= 0).all(-1)[..., None, None, None]
    target = y.gather(-2, chosen.clamp(min=0)[..., None].expand(*chosen.shape, y.shape[-1]))
    moved = torch.lerp(x[..., None, :, :], target[..., None, :, :], times[..., None, None])
    return torch.where(solved, moved, math.nan), chosen


def _assign(cost: Tensor) -> Tensor:
    """Give the rows of one problem their columns, a row at a time, by the cheapest augmenting path."""
    N, M = cost.shape
    row_price, column_price = cost.new_zeros(N), cost.new_zeros(M)
    owner = torch.full((M,), -1)
    for row in range(N):
        distance, before = cost.new_full((M,), math.inf), torch.full((M,), -1)
        settled = torch.zeros(M, dtype=torch.bool)
        i, last, reached = row, -1, 0.0
        while i >= 0:
            step = reached + cost[i] - row_price[i] - column_price
            closer = ~settled & (step < distance)
            distance, before = torch.where(closer, step, distance), before.masked_fill(closer, last)
            last = int(distance.masked_fill(settled, math.inf).argmin())
            reached = float(distance[last])
            if settled[last] or reached == math.inf:
                return torch.full((N,), -1)
            settled[last] = True
            i = int(owner[last])
        settled[last] = False  # the free column that was found
        row_price[row] += reached
        row_price[owner[settled]] += reached - distance[settled]
        column_price[settled] -= reached - distance[settled]
        while last >= 0:
            owner[last] = row if before[last] < 0 else owner[before[last]]
            last = int(before[last])
    chosen = torch.full((N,), -1)
    taken = owner >= 0
    chosen[owner[taken]] = torch.arange(M)[taken]
    return chosen
