"""Entropic transport between clouds whose rows are spread over the ranks of a group."""

import math
from typing import Any

import torch
from torch import Tensor

from .._typing import Points, Potential, Weights
from ..kernels import transport_clouds as kernels
from ..kernels import triton
from ..ops.transport_checks import explain_overflow, explain_solution
from ..ops.transport_solvers import largest_costs
from ..reference.problem import MAX_ITER, TOL, Solution
from . import derivatives, iteration
from .given import Given, agree, centre_of, corners_of
from .pairs import SpreadPairs
from .ranks import TIMEOUT, Ranks
from .result import ShardedTransport

MEMORY = 2**30  # bytes


def sinkhorn(
    x_rows: Points,
    y_rows: Points,
    a: Weights | None = None,
    b: Weights | None = None,
    *,
    eps: float,
    cost: str = "sqeuclidean",
    p: float = 2.0,
    reach: float | None = None,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
    init: tuple[Potential, Potential] | None = None,
    anneal: tuple[float, float] | None = None,
    backend: str | None = None,
    precision: str | None = None,
    memory: float = MEMORY,
    timeout: float = TIMEOUT,
    group: Any = None,
) -> ShardedTransport:
    r"""Entropic optimal transport between two clouds of which every rank has some rows.

    The problem of :func:`geokernels.sinkhorn` between all rows of all ranks, in the order of the ranks, with
    the meaning that its arguments have there. Every rank calls it, with its own rows and the same settings. A
    rank may have any number of rows, also none, of shape ``(0, D)``, and different ones of ``x`` and of
    ``y``.

    Each rank meets its rows with all points of the other cloud, tile by tile. These are held whole, or pass
    from rank to rank, the next on their way while some are met; potentials and vectors are gathered. Sums
    over ranks are made in the order of the ranks. Half-steps are plain, without over-relaxation and without a
    guess to start from.

    Args:
        x_rows: This rank's points, ``(N, D)``, float16, bfloat16, float32 or float64.
        y_rows: This rank's points of the other cloud, ``(M, D)``.
        a: Weights of ``x_rows``, ``(N,)``, on every rank or on none; None for one over the number of all
            rows.
        b: Weights of ``y_rows``, ``(M,)``, likewise.
        eps: Regularisation, in the unit of the cost.
        cost: ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"``, ``"dot"`` or ``"lp"``.
        p: Exponent of ``"lp"``, at least 1.
        reach: Marginal penalty, in the unit of the cost; None for hard marginals.
        max_iter: The most iterations, each of two half-steps.
        tol: L1 marginal error at which they stop, on every rank alike.
        init: Potentials ``(f, g)`` of this rank's rows to start from, on every rank or on none. No gradient.
        anneal: ``(start, ratio)`` by which the regularisation comes down to ``eps``, or None.
        backend: ``"native"`` on the CPU or ``"triton"`` on GPUs to insist on one; None for that of the
            device, on a GPU if ``geokernels tune`` has proved it there.
        precision: How ``"triton"`` rounds points and plan before it multiplies.
        memory: Bytes that all points of both clouds may take on each rank. If they take more they pass from
            rank to rank, which needs room for two blocks of the rank that has most. 0 lets them always pass.
        timeout: Seconds to wait for another rank: longer than a pass over the pairs of any of them takes.
        group: A group of ``torch.distributed`` with gloo for tensors in CPU memory or NCCL for those on GPUs;
            None for all processes.

    Returns:
        A :class:`ShardedTransport`. Value and potentials are those that one process finds, within rounding,
        once the error is small; the value, the error and the number of iterations have the same bits on every
        rank, and from run to run, where the ranks run the same software on processors of one kind. float32
        for half-precision input.

    Gradients:
        First order, to ``x_rows``, ``y_rows``, ``a`` and ``b``: of the value by the envelope theorem, of
        potentials and products by implicit differentiation. See :class:`ShardedTransport` for what a loss is.

    Raises:
        ValueError: On every rank, if shapes or values of one do not fit, or ranks disagree; it names the
            rank.
        TypeError: Likewise for dtypes and devices.
        BackendError: Likewise if ``backend`` cannot run this input.
        RankError: On every other rank, if one is gone or does not answer in time. The group is of no use
            then.

    The iteration is that of M. Cuturi, *Sinkhorn distances*, 2013, in the log domain; sums of plans that are
    never formed are those of J. Feydy, *Geometric data analysis, beyond convolutions*, 2020.

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]])
        >>> sinkhorn(x, y, eps=0.5).barycentric(y)
        tensor([[2.1192],
                [2.8808]])
        >>> dist.destroy_process_group()
    """
    ranks = Ranks(group, timeout)
    settings = {
        "eps": eps,
        "cost": cost,
        "p": p,
        "reach": reach,
        "max_iter": max_iter,
        "tol": tol,
        "init": init,
        "anneal": anneal,
        "backend": backend,
        "precision": precision,
        "memory": memory,
        "timeout": timeout,
        "group": group,
    }
    return _solved(ranks, agree(ranks, "sinkhorn", x_rows, y_rows, a, b, settings), memory)


def sinkhorn_divergence(
    x_rows: Points,
    y_rows: Points,
    a: Weights | None = None,
    b: Weights | None = None,
    *,
    eps: float,
    cost: str = "sqeuclidean",
    p: float = 2.0,
    reach: float | None = None,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
    anneal: tuple[float, float] | None = None,
    backend: str | None = None,
    precision: str | None = None,
    memory: float = MEMORY,
    timeout: float = TIMEOUT,
    group: Any = None,
) -> Tensor:
    r"""Sinkhorn divergence between two clouds of which every rank has some rows.

    :func:`geokernels.sinkhorn_divergence` between all rows of all ranks, from three problems of
    :func:`sinkhorn`, whose arguments these are.

    Returns:
        ``()``, the same bits on every rank; float32 for half-precision input.

    Gradients:
        First order, to ``x_rows``, ``y_rows``, ``a`` and ``b``. A loss of it counts once: every rank takes
        the same one.

    Raises:
        ValueError: As :func:`sinkhorn`.
        TypeError: Likewise.
        BackendError: Likewise.
        RankError: Likewise.

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> sinkhorn_divergence(x, x + 2, eps=0.1)
        tensor(4.0000)
        >>> dist.destroy_process_group()
    """
    ranks = Ranks(group, timeout)
    settings = {
        "eps": eps,
        "cost": cost,
        "p": p,
        "reach": reach,
        "max_iter": max_iter,
        "tol": tol,
        "init": None,
        "anneal": anneal,
        "backend": backend,
        "precision": precision,
        "memory": memory,
        "timeout": timeout,
        "group": group,
    }
    given = agree(ranks, "sinkhorn_divergence", x_rows, y_rows, a, b, settings)
    of_x = given._replace(y=given.x, b=given.a, counts=(given.counts[0],) * 2)
    of_y = given._replace(x=given.y, a=given.b, counts=(given.counts[1],) * 2)
    between, *own = (_solved(ranks, one, memory).value for one in (given, of_x, of_y))
    divergence = between - (own[0] + own[1]) / 2
    if reach is None or (a is None and b is None):
        return divergence
    masses = [derivatives.mass(ranks, w) for w in (given.a, given.b)]
    return divergence + eps / 2 * (masses[0] - masses[1]) ** 2


def _solved(ranks: Ranks, given: Given, memory: float) -> ShardedTransport:
    """Solve what the ranks have agreed on."""
    problem, eps = given.problem, given.problem.eps
    x, y = given.x, given.y
    with torch.autocast(x.device.type, enabled=False):
        if problem.cost == "sqeuclidean":
            centre = centre_of(ranks, given)
            x, y = x - centre, y - centre
        x, y, kind = kernels.in_units_of_eps(x, y, problem.cost, problem.p, eps)
        passes = _passes(given)
        pairs = SpreadPairs(ranks, given.counts, kind, problem.p, *passes).holding(x, y, memory)
        found = derivatives.solution(iteration.solve, pairs, problem, x, y, given.a, given.b)
        if not float(found.error) <= problem.tol or not math.isfinite(found.value.item()):
            _explain(ranks, given, found._replace(value=found.value.detach()))
        solution = found._replace(value=found.value * eps, f=found.f * eps, g=found.g * eps)
    result_pairs = derivatives.ResultPairs(pairs, x, y, eps)
    return ShardedTransport(*solution, result_pairs, problem._replace(a=given.a, b=given.b))


def _passes(given: Given) -> tuple[str, tuple]:
    """What the names of the passes' operators begin with, and arguments of their own."""
    if given.backend == "native":
        return kernels.NATIVE, ()
    # triton loads on use
    from ..kernels.triton.transport_clouds import TRITON

    return TRITON, (triton.PRECISIONS.index(given.precision or "fp32"),)


def _explain(ranks: Ranks, given: Given, found: Solution) -> None:
    """Raise with the reason, on every rank, if there is no solution; one that is not converged has none."""
    problem = given.problem
    whole = [ranks.whole(count, part.detach())[0] for count, part in zip(given.counts, (found.f, found.g))]
    reason = explain_overflow(largest_costs(*corners_of(ranks, given), problem), problem)
    reason = reason or explain_solution(found._replace(f=whole[0], g=whole[1]), problem)
    if reason:
        raise ValueError(reason)
