"""Entropic optimal transport: plans, potentials and divergences."""

import torch
from torch import Tensor

from .._checks import (
    require_choice,
    require_float,
    require_not_empty,
    require_rank,
    require_values,
)
from .._typing import Cost, Points, Potential, Weights
from ..kernels.triton import PRECISIONS
from ..reference.problem import MAX_ITER, TOL, Problem
from .inputs import widened
from .transport_checks import (
    Lengths,
    checked_problem,
    inside,
    require_clouds,
    require_cost,
    within,
)
from .transport_result import Transport
from .transport_solvers import solve, solve_points


def sinkhorn_from_cost(
    cost: Cost,
    a: Weights | None = None,
    b: Weights | None = None,
    *,
    eps: float,
    lengths: Lengths | None = None,
    reach: float | None = None,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
    init: tuple[Potential, Potential] | None = None,
    anneal: tuple[float, float] | None = None,
    backend: str | None = None,
) -> Transport:
    r"""Entropic optimal transport between two weighted sets, from the cost of every pair.

    $$\min_{P \ge 0} \langle P, C\rangle + \epsilon\,\mathrm{KL}(P \,|\, a \otimes b)
      \quad\text{with } P 1 = a,\; P^\top 1 = b,$$

    where $\mathrm{KL}(P | Q) = \sum P \log (P / Q) - P + Q$. With ``reach`` $= \rho$ the marginals are not
    constraints but cost $\rho\,\mathrm{KL}(P 1 | a) + \rho\,\mathrm{KL}(P^\top 1 | b)$. Solved by Sinkhorn's
    alternating half-steps, each problem of a batch until its own marginal error is small.

    Args:
        cost: ``(..., N, M)``. +inf forbids a pair.
        a: Weights of the rows, ``(..., N)``, non-negative; None for ``1 / N`` each. A point of weight zero
            moves no mass, but has a potential.
        b: Weights of the columns, ``(..., M)``. Without ``reach`` they must have the sum of ``a``.
        eps: Regularisation, in the unit of ``cost``.
        lengths: For ragged batches: how many rows and how many columns of each problem count, two int64
            tensors ``(...)``. Entries beyond them are ignored.
        reach: Marginal penalty, in the unit of ``cost``; None for hard marginals.
        max_iter: The most iterations, each of two half-steps.
        tol: A problem stops once the L1 distance of its marginals from their targets is at most this.
        init: Potentials ``(f, g)`` to start from, such as those of a similar problem. No gradient.
        anneal: ``(start, ratio)``: begin with the regularisation ``start`` and multiply it by ``ratio``,
            which is below 1, after each iteration, down to ``eps``. Worth it where ``eps`` is much smaller
            than the costs; start at the largest of them. None for ``eps`` from the beginning.
        backend: ``"native"``, ``"triton"`` (float32, on a GPU) or ``"reference"`` to insist on one; None for
            the choice that ``geokernels doctor`` explains.

    Returns:
        A :class:`Transport`. Potentials and value are float32 for half-precision input.

    Gradients:
        To ``cost``, ``a`` and ``b``, of any order: of the value by the envelope theorem; of the potentials,
        the plan and its products by implicit differentiation. They are those of the converged problem, so
        give a small ``tol``. Without ``reach``, gradients to ``a`` and ``b`` have a meaning only along
        changes that keep the two masses equal; those of the value are the potentials.

    Raises:
        ValueError: If shapes or values do not fit, or a point has mass and only infinite costs.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Values are read for these messages on the CPU alone; elsewhere, and under ``torch.compile``, a problem
    without a solution has ``converged`` False.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> sinkhorn_from_cost(cost, eps=0.1).plan()
        tensor([[4.9998e-01, 2.2699e-05],
                [2.2699e-05, 4.9998e-01]])
    """
    require_rank("cost", cost, 2, "(..., N, M)")
    require_float("cost", cost)
    require_values("cost", cost)
    require_not_empty("cost", cost, "(..., N, M)")
    problem = checked_problem(
        cost,
        "cost",
        cost.shape[-2:],
        a=a,
        b=b,
        eps=eps,
        lengths=lengths,
        reach=reach,
        max_iter=max_iter,
        tol=tol,
        init=init,
        anneal=anneal,
    )
    return solve(widened(cost), problem, backend)


def sinkhorn(
    x: Points,
    y: Points,
    a: Weights | None = None,
    b: Weights | None = None,
    *,
    eps: float,
    cost: str = "sqeuclidean",
    p: float = 2.0,
    lengths: Lengths | None = None,
    reach: float | None = None,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
    init: tuple[Potential, Potential] | None = None,
    anneal: tuple[float, float] | None = None,
    backend: str | None = None,
    precision: str | None = None,
) -> Transport:
    r"""Entropic optimal transport between two weighted point clouds.

    :func:`sinkhorn_from_cost` on the pairwise costs of the rows of ``x`` and ``y``. On the CPU,
    clouds of more than 256 points are streamed: costs and plan are made tile by tile, so that memory grows
    with N + M.

    Args:
        x: Points ``(..., N, D)``.
        y: Points ``(..., M, D)``, with the batch shape of ``x``.
        a: Weights of ``x``, ``(..., N)``; None for ``1 / N`` each.
        b: Weights of ``y``, ``(..., M)``.
        eps: Regularisation, in the unit of the cost.
        cost: ``"sqeuclidean"`` $|x - y|^2$ (not halved), ``"euclidean"`` $|x - y|$, ``"cosine"``
            $1 - \cos(x, y)$ (a zero row is at right angles to all), ``"dot"`` $-\langle x, y\rangle$,
            ``"lp"`` $\sum_d |x_d - y_d|^p$.
        p: Exponent of ``"lp"``, at least 1.
        lengths: How many rows of ``x`` and of ``y`` count, two integer tensors ``(...)``.
        reach: Marginal penalty, in the unit of the cost; None for hard marginals.
        max_iter: The most iterations, each of two half-steps.
        tol: L1 marginal error at which a problem stops. Streamed clouds that converge slowly are then
            over-relaxed, which takes fewer half-steps; 0 asks for ``max_iter`` plain pairs.
        init: Potentials ``(f, g)`` to start from. No gradient. None for 0, or for those of normal
            distributions where clouds are streamed on the CPU and a sample shows that these are near.
        anneal: ``(start, ratio)`` by which the regularisation comes down to ``eps``, or None.
        backend: ``"native"``, ``"triton"`` (float32, on a GPU) or ``"reference"`` to insist on one; None for
            the choice that ``geokernels doctor`` explains.
        precision: How ``"triton"`` rounds points and plan before it multiplies: ``"fp32"`` (the default),
            ``"bf16x3"``, ``"tf32"`` or ``"bf16"``. Sums are float32 in any case. Other backends refuse it.

    Returns:
        A :class:`Transport`. Potentials and value are float32 for half-precision input.

    Gradients:
        To ``x``, ``y``, ``a`` and ``b``, as for :func:`sinkhorn_from_cost`. First order alone for the costs
        ``"euclidean"`` and ``"lp"``, whose gradient at coinciding points is 0.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]])
        >>> sinkhorn(x, y, eps=0.5).barycentric(y)
        tensor([[2.1192],
                [2.8808]])
    """
    x, y, problem = _checked_clouds(
        x,
        y,
        a=a,
        b=b,
        eps=eps,
        cost=cost,
        p=p,
        lengths=lengths,
        reach=reach,
        max_iter=max_iter,
        tol=tol,
        init=init,
        anneal=anneal,
        precision=precision,
    )
    return solve_points(x, y, problem, backend, precision)


def sinkhorn_divergence(
    x: Points,
    y: Points,
    a: Weights | None = None,
    b: Weights | None = None,
    *,
    eps: float,
    cost: str = "sqeuclidean",
    p: float = 2.0,
    lengths: Lengths | None = None,
    reach: float | None = None,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
    anneal: tuple[float, float] | None = None,
    backend: str | None = None,
    precision: str | None = None,
) -> Tensor:
    r"""Sinkhorn divergence: entropic transport without its bias, zero between equal clouds.

    $$S(x, y) = \mathrm{OT}(x, y) - \tfrac12 \mathrm{OT}(x, x) - \tfrac12 \mathrm{OT}(y, y)
      + \tfrac{\epsilon}{2} (|a| - |b|)^2$$

    with the values of :func:`sinkhorn`, whose arguments these are. The last term counts with ``reach`` alone.

    Returns:
        ``(...)``; float32 for half-precision input.

    Gradients:
        To ``x``, ``y``, ``a`` and ``b``, as for the value of :func:`sinkhorn`.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> sinkhorn_divergence(x, x + 2, eps=0.1)
        tensor(4.0000)
    """
    x, y, problem = _checked_clouds(
        x,
        y,
        a=a,
        b=b,
        eps=eps,
        cost=cost,
        p=p,
        lengths=lengths,
        reach=reach,
        max_iter=max_iter,
        tol=tol,
        init=None,
        anneal=anneal,
        precision=precision,
    )
    n, m = lengths or (None, None)

    def value(x: Points, y: Points, **of_sides) -> Tensor:
        return solve_points(x, y, problem._replace(**of_sides), backend, precision).value

    def own(u: Points, w: Weights | None, count: Tensor | None) -> Tensor:
        # between a cloud and itself kernels make half of the costs, and one product for both gradients
        return value(u, u, a=w, b=w, lengths=None if count is None else (count, count))

    divergence = value(x, y) - (own(x, problem.a, n) + own(y, problem.b, m)) / 2
    if reach is None or (a is None and b is None):
        return divergence
    masses = [1.0 if w is None else within(w.to(divergence.dtype), k).sum(-1) for w, k in ((a, n), (b, m))]
    return divergence + eps / 2 * (masses[0] - masses[1]) ** 2


def _checked_clouds(
    x: Points, y: Points, *, cost: str, p: float, lengths: Lengths | None, precision: str | None, **of_sides
) -> tuple[Points, Points, Problem]:
    """Two clouds with zeros for what does not count, and their problem; refuses what a solver cannot take."""
    require_clouds(x, y)
    require_cost(cost, p)
    if precision is not None:
        require_choice("precision", precision, PRECISIONS)
    problem = checked_problem(
        x,
        "x",
        (x.shape[-2], y.shape[-2]),
        lengths=lengths,
        cost=cost,
        p=p,
        **of_sides,
    )
    if lengths is not None:
        # what lies beyond the lengths may be NaN, and must not reach a gradient as 0 * NaN
        x = torch.where(inside(lengths[0], x.shape[-2])[..., None], x, 0)
        y = torch.where(inside(lengths[1], y.shape[-2])[..., None], y, 0)
    return x, y, problem
