"""Which solver a checked transport problem goes to, and what is said when there is no solution."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import reference
from .._checks import values_can_be_read
from .._typing import Cost, Points, Potential, Weights
from ..kernels import dispatch, native, triton
from ..kernels import transport as kernels
from ..kernels import transport_clouds as clouds
from ..reference.potentials import DensePairs, uniform
from .inputs import widened
from .transport_checks import (
    Lengths,
    checked_start,
    explain_forbidden,
    explain_overflow,
    explain_solution,
    explain_weights,
    inside_both,
    require_lengths,
    within,
)
from .transport_result import Transport

Start = tuple[Potential, Potential]
STEPS = 'torch.export would write out all max_iter of its steps; name backend="reference" to have them'


def solve(
    cost: Cost,
    a: Weights | None,
    b: Weights | None,
    lengths: Lengths | None,
    init: Start | None,
    settings: dict,
    backend: str | None,
    op: str,
    explain: Callable[[Cost], str | None],
) -> Transport:
    """Send a problem whose costs are at hand to its solver, and look at what came back."""
    N, M = cost.shape[-2:]
    n = m = None
    if lengths is not None:
        n, m = lengths
        require_lengths(lengths, cost.shape[:-2], N, M, cost)
        a, b = _weights_within(lengths, a, b, cost, cost.mT)
        cost = torch.where(inside_both(lengths, cost), cost, math.inf)
    start = None if init is None else checked_start(init, cost, "cost", N, M)
    written_out = STEPS if backend is None and cost.is_cpu and torch.compiler.is_exporting() else None
    refusals = {"native": kernels.refuse(cost), "triton": triton.refuse_costs(cost), "reference": written_out}
    chosen = dispatch.choose(op, refusals, backend, cost)
    pairs = kernels.Pairs if chosen == "native" else DensePairs
    solver = {"native": kernels, "reference": reference}.get(chosen) or _triton_solver()

    def run(start: Potential | None, **numbers) -> tuple[Tensor, ...]:
        return solver.solve(cost, a, b, n, m, start, **numbers)

    found = _annealed(run, start, **settings)
    if _needs_a_reason(found, settings):
        reason = explain(cost) or explain_weights(a, b, settings) or explain_forbidden(cost, a, b, settings)
        _refuse(reason or explain_solution(found, settings))
    return Transport(*found, pairs(cost, settings["eps"]), a, b, settings["tol"])


def solve_points(
    x: Points,
    y: Points,
    a: Weights | None,
    b: Weights | None,
    lengths: Lengths | None,
    init: Start | None,
    settings: dict,
    backend: str | None,
    cost: str,
    p: float,
    precision: str | None,
) -> Transport:
    """The same from points: streamed where there are many, their costs made by the kernel where it can."""

    def explain(costs: Cost) -> str | None:
        return explain_overflow(costs, lengths, cost)

    large = clouds.are_large(x, y)
    if large or precision or ((x.is_cpu or x.is_cuda) and cost in kernels.GRAM):
        exact = f"it has no products in {precision}" if precision else None
        by_kernel = native.refuse(x, devices=("cpu",) if large else ("cpu", "cuda"))
        refusals = {"native": exact or by_kernel, "triton": triton.refuse(x), "reference": exact}
        chosen = dispatch.choose("sinkhorn", refusals, backend, x)
        if chosen != "reference":
            run = _solve_gram if chosen == "native" and not large else _stream
            passes = _triton_passes(precision) if chosen == "triton" else (clouds.NATIVE, ())
            # the GPU's kernel reads half precision itself, but for directions, which are made before it
            if not (run is _solve_gram and x.is_cuda and cost != "cosine"):
                x, y = widened(x), widened(y)
            return run(x, y, a, b, lengths, init, settings, cost, p, explain, passes)
    x, y = widened(x), widened(y)
    costs = reference.pairwise_cost(x, y, cost, p)
    return solve(costs, a, b, lengths, init, settings, backend, "sinkhorn", explain)


def _triton_solver():
    # triton loads on use
    from ..kernels.triton import transport

    return transport


def _triton_passes(precision: str | None) -> tuple[str, tuple[int]]:
    """Triton's passes over large clouds, and the argument that they have beyond those of others."""
    # triton loads on use
    from ..kernels.triton.transport_clouds import TRITON

    return TRITON, (triton.PRECISIONS.index(precision or "fp32"),)


def _solve_gram(x, y, a, b, lengths, init, settings, cost, _p, explain, _passes) -> Transport:
    """Small clouds under a cost that is a product of their points."""
    n, m = (None, None) if lengths is None else lengths
    # points without features, in the precision of the computation
    of_x, of_y = widened(x[..., :0]), widened(y[..., :0])
    a, b = _weights_within(lengths, a, b, of_x, of_y)
    start = None if init is None else checked_start(init, of_x, "x", x.shape[-2], y.shape[-2])

    def run(start: Potential | None, **numbers) -> tuple[Tensor, ...]:
        return kernels.solve_points(x, y, a, b, n, m, start, cost=cost, **numbers)

    costs, *found = _annealed(run, start, **settings)
    if _needs_a_reason(found, settings):
        reason = explain(costs) or explain_weights(a, b, settings)
        _refuse(reason or explain_solution(found, settings))
    return Transport(*found, kernels.Pairs(costs, settings["eps"]), a, b, settings["tol"])


def _stream(x, y, a, b, lengths, init, settings, cost, p, explain, passes) -> Transport:
    """Large clouds, whose costs are never all at hand."""
    n, m = (None, None) if lengths is None else lengths
    a, b = _weights_within(lengths, a, b, x, y)
    start = None if init is None else checked_start(init, x, "x", x.shape[-2], y.shape[-2])
    pairs = clouds.Pairs.of(x, y, n, m, cost, p, settings["eps"], reference.pairwise_cost, *passes)
    found = clouds.solve(pairs, a, b, start, **settings)
    if _needs_a_reason(found, settings):
        reason = explain_weights(a, b, settings)
        reason = reason or explain_overflow(_largest_costs(x, y, cost, p), None, cost)
        _refuse(reason or explain_solution(found, settings))
    return Transport(*found, pairs, a, b, settings["tol"])


def _largest_costs(x: Points, y: Points, cost: str, p: float) -> Cost:
    """Costs between the corners of the box that holds both clouds: no pair's is further from 0."""
    corners = torch.stack(torch.aminmax(torch.cat([x, y], -2).detach(), dim=-2), -2)
    return reference.pairwise_cost(corners, corners, cost, p)


def _annealed(
    run: Callable, start: Potential | None, *, eps, anneal, max_iter, tol, reach
) -> tuple[Tensor, ...]:
    """Run a solver at ``eps``, from where pairs of half-steps at larger ones have led."""
    if anneal is None:
        return run(start, eps=eps, reach=reach, max_iter=max_iter, tol=tol)
    hot, cooling = anneal
    done = 0
    with torch.no_grad():
        while hot > 1 and done + 1 < max_iter:
            *_, start, _, _ = run(start, eps=hot * eps, reach=reach, max_iter=1, tol=0.0)
            hot, done = max(hot * cooling, 1.0), done + 1
    *found, iterations = run(start, eps=eps, reach=reach, max_iter=max_iter - done, tol=tol)
    return *found, iterations + done


def _weights_within(lengths, a, b, x, y) -> tuple[Weights | None, Weights | None]:
    """The weights of ragged problems, 0 beyond the lengths; ``x`` and ``y`` have a row for each point."""
    if lengths is None:
        return a, b
    n, m = lengths
    a = uniform(x, n, -2) if a is None else within(a, n)
    return a, uniform(y, m, -2) if b is None else within(b, m)


def _needs_a_reason(found: tuple[Tensor, ...], settings: dict) -> bool:
    """Whether a problem ended above the tolerance, or not finite; False where values cannot be read."""
    value, f, g, error, _ = found
    if not values_can_be_read(error) or not error.numel():
        return False
    # one number says that all went well; the inputs are looked at only to explain why not
    worst = error if error.numel() == 1 else error.max()
    return not worst.item() <= settings["tol"] or not all(map(native.is_finite, (value, f, g)))


def _refuse(reason: str | None) -> None:
    """Raise with the reason if there is no solution; one that is merely not converged has none."""
    if reason:
        raise ValueError(reason)
