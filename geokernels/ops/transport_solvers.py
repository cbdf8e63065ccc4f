"""Which solver a checked transport problem goes to, and what is said when there is no solution."""

import math
from collections.abc import Callable

import torch

from .. import reference
from .._checks import values_can_be_read
from .._torch_internals import is_exporting
from .._typing import Cost, Points
from ..kernels import costs, dispatch, native, triton
from ..kernels import transport as kernels
from ..kernels import transport_clouds as clouds
from ..reference import Problem, Solution
from ..reference.potentials import DensePairs
from .inputs import widened
from .transport_checks import (
    explain_cost,
    explain_forbidden,
    explain_overflow,
    explain_solution,
    explain_weights,
    inside_both,
    require_finite_clouds,
)
from .transport_result import Transport

WRITTEN_OUT = 'torch.export would write out all max_iter of its steps; name backend="reference" to have them'


def solve(cost: Cost, problem: Problem, backend: str | None) -> Transport:
    """Send a problem whose costs are given to its solver, and look at what came back."""
    return _solve(cost, problem, backend, "sinkhorn_from_cost", explain_cost)


def solve_points(
    x: Points, y: Points, problem: Problem, backend: str | None, precision: str | None
) -> Transport:
    """The same from points: streamed where there are many, their costs made by the kernel where it can."""
    large = clouds.are_large(x, y)
    if large or precision or ((x.is_cpu or x.is_cuda) and problem.cost in costs.PRODUCTS):
        exact = f"it has no products in {precision}" if precision else None
        devices = ("cpu",) if large else ("cpu", "cuda")
        refusals = {
            "native": lambda: exact or native.refuse(x, devices=devices),
            "triton": lambda: triton.refuse(x),
            "reference": lambda: exact,
        }
        chosen = dispatch.choose("sinkhorn", refusals, backend, x, y)
        # their centre carries what is not finite to all costs: nothing is looked at unless no solution comes
        shows = chosen == "native" and not large and x.is_cpu and problem.cost == "sqeuclidean"
        if not shows:
            require_finite_clouds(x, y)
        if chosen == "triton":
            return _stream(widened(x), widened(y), problem, *_triton_passes(precision))
        if chosen == "native" and large:
            return _stream(widened(x), widened(y), problem)
        if chosen == "native":
            # the GPU's kernel reads half precision itself, but for directions, which are made before it
            as_they_are = x.is_cuda and problem.cost != "cosine"
            return _solve_products(*((x, y) if as_they_are else (widened(x), widened(y))), problem)
    else:
        require_finite_clouds(x, y)
    x, y = widened(x), widened(y)
    made = reference.pairwise_cost(x, y, problem.cost, problem.p)
    return _solve(
        made, problem, backend, "sinkhorn", lambda cost: explain_overflow(cost, problem, problem.lengths)
    )


def _solve(
    cost: Cost,
    problem: Problem,
    backend: str | None,
    op: str,
    explain: Callable[[Cost], str | None],
) -> Transport:
    """Send costs to their solver; ``explain`` says what is wrong with them."""
    if problem.lengths is not None:
        cost = torch.where(inside_both(problem.lengths, cost), cost, math.inf)
    exported = backend is None and cost.is_cpu and is_exporting()
    refusals = {
        "native": lambda: kernels.refuse(cost),
        "triton": lambda: triton.refuse(cost),
        "reference": lambda: WRITTEN_OUT if exported else None,
    }
    chosen = dispatch.choose(op, refusals, backend, cost, proved="sinkhorn_from_cost")
    solver = {"native": kernels, "reference": reference}.get(chosen) or _triton_solver()
    solution = _annealed(lambda problem: solver.solve(cost, problem), problem)
    if _needs_a_reason(solution, problem):
        reason = explain(cost) or explain_weights(problem) or explain_forbidden(cost, problem)
        _refuse(reason or explain_solution(solution, problem))
    pairs = kernels.Pairs if chosen == "native" else DensePairs
    return Transport(*solution, pairs(cost, problem.eps), problem)


def _triton_solver():
    # triton loads on use
    from ..kernels.triton import transport

    return transport


def _triton_passes(precision: str | None) -> tuple[str, tuple[int]]:
    """Triton's passes over large clouds, and the argument that they have beyond those of others."""
    # triton loads on use
    from ..kernels.triton.transport_clouds import TRITON

    return TRITON, (triton.PRECISIONS.index(precision or "fp32"),)


def _solve_products(x: Points, y: Points, problem: Problem) -> Transport:
    """Small clouds under a cost that is a product of their points."""
    cost = None

    def run(problem: Problem) -> Solution:
        nonlocal cost
        cost, solution = kernels.solve_points(x, y, problem)
        return solution

    solution = _annealed(run, problem)
    if _needs_a_reason(solution, problem):
        require_finite_clouds(x, y)
        reason = explain_overflow(cost, problem, problem.lengths) or explain_weights(problem)
        _refuse(reason or explain_solution(solution, problem))
    return Transport(*solution, kernels.Pairs(cost, problem.eps), problem)


def _stream(x: Points, y: Points, problem: Problem, *passes) -> Transport:
    """Large clouds, whose costs are never stored all at once."""
    pairs = clouds.Pairs.of(x, y, problem, *passes)
    solution = clouds.solve(pairs, problem)
    if _needs_a_reason(solution, problem):
        reason = explain_weights(problem) or explain_overflow(largest_costs(x, y, problem), problem)
        _refuse(reason or explain_solution(solution, problem))
    return Transport(*solution, pairs, problem)


def largest_costs(x: Points, y: Points, problem: Problem) -> Cost:
    """Costs between the corners of the box that holds both clouds: no pair's is further from 0."""
    corners = torch.stack(torch.aminmax(torch.cat([x, y], -2).detach(), dim=-2), -2)
    return reference.pairwise_cost(corners, corners, problem.cost, problem.p)


def _annealed(run: Callable[[Problem], Solution], problem: Problem) -> Solution:
    """Run a solver at ``eps``, from where pairs of half-steps at larger ones have led."""
    if problem.anneal is None:
        return run(problem)
    hot, cooling = problem.anneal
    start, done = problem.init, 0
    with torch.no_grad():
        while hot > 1 and done + 1 < problem.max_iter:
            start = run(problem._replace(init=start, eps=hot * problem.eps, max_iter=1, tol=0.0)).g
            hot, done = max(hot * cooling, 1.0), done + 1
    solution = run(problem._replace(init=start, max_iter=problem.max_iter - done))
    return solution._replace(iterations=solution.iterations + done)


def _needs_a_reason(solution: Solution, problem: Problem) -> bool:
    """Whether a problem ended above the tolerance, or not finite; False where values cannot be read."""
    # the inputs are looked at only to explain why not
    return values_can_be_read(solution.error) and not native.is_solved(solution, problem.tol)


def _refuse(reason: str | None) -> None:
    """Raise with the reason if there is no solution; one that is merely not converged has none."""
    if reason:
        raise ValueError(reason)
