"""Entropic optimal transport, exact assignment, and the paths between point clouds that they give."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import reference
from .._checks import (
    require_choice,
    require_float,
    require_not_empty,
    require_rank,
    values_can_be_read,
)
from .._transport import DensePairs, Transport, uniform
from .._typing import Cost, Points, Potential, Weights
from ..kernels import dispatch
from ..kernels import transport as kernels
from ..kernels import transport_clouds as clouds
from .transport_checks import (
    Lengths,
    checked_settings,
    checked_start,
    checked_weights,
    explain_cost,
    explain_forbidden,
    explain_points,
    explain_weights,
    inside,
    require_clouds,
    require_lengths,
    within,
)

COSTS = ("sqeuclidean", "euclidean", "cosine", "dot", "lp")


def _solve(
    cost: Cost,
    a: Weights | None,
    b: Weights | None,
    lengths: Lengths | None,
    init: tuple[Potential, Potential] | None,
    settings: dict,
    backend: str | None,
    op: str,
    explain: Callable[[Cost], str | None],
) -> Transport:
    """Send a checked problem to its solver, and look at what came back."""
    N, M = cost.shape[-2:]
    n = m = None
    if lengths is not None:
        n, m = lengths
        require_lengths(lengths, cost.shape[:-2], N, M, cost)
        a = uniform(cost, n, -2) if a is None else within(a, n)
        b = uniform(cost, m, -1) if b is None else within(b, m)
        counts = inside(n, N)[..., :, None] & inside(m, M)[..., None, :]
        cost = torch.where(counts, cost, math.inf)
    start = checked_start(init, cost, "cost", N, M)
    refusals = {"native": kernels.refuse(cost), "reference": None}
    if cost.device.type == "cuda":
        # not yet measured on a GPU, the compiled kernel runs there when it is named
        refusals = {"reference": None, **refusals}
    name = dispatch.choose(op, refusals, backend)
    solver = kernels if name == "native" else reference
    found = solver.solve(cost, a, b, n, m, start, **settings)
    _look_at(
        found,
        settings,
        lambda: explain(cost) or explain_weights(a, b, settings) or explain_forbidden(cost, a, b, settings),
    )
    return Transport(*found, DensePairs(cost, settings["eps"]), a, b, settings["tol"])


def _solve_clouds(
    x: Points,
    y: Points,
    a: Weights | None,
    b: Weights | None,
    lengths: Lengths | None,
    init: tuple[Potential, Potential] | None,
    settings: dict,
    cost: str,
    p: float,
) -> Transport:
    """The same for large clouds, whose costs are never all at hand."""
    n, m = (None, None) if lengths is None else lengths
    if lengths is not None:
        a = uniform(x, n, -2) if a is None else within(a, n)
        b = uniform(y, m, -2) if b is None else within(b, m)
    start = checked_start(init, x, "x", x.shape[-2], y.shape[-2])
    pairs = clouds.Pairs.of(x, y, n, m, cost, p, settings["eps"], reference.pairwise_cost)
    found = clouds.solve(pairs, a, b, start, **settings)

    def explain() -> str | None:
        reason = explain_points(x, y) or explain_weights(a, b, settings)
        overflows = bool(found[3].isnan().any())
        return reason or (
            f"the {cost} cost between x and y overflows {x.dtype}; scale them down" if overflows else None
        )

    _look_at(found, settings, explain)
    return Transport(*found, pairs, a, b, settings["tol"])


def _look_at(found: tuple[Tensor, ...], settings: dict, explain: Callable[[], str | None]) -> None:
    """Raise with the reason if there is no solution; one that is merely not converged is none."""
    error = found[3]
    # one number says that all went well; the inputs are looked at only to explain why not
    if values_can_be_read(error) and error.numel() and not error.max().item() <= settings["tol"]:
        reason = explain()
        if reason:
            raise ValueError(reason)


def sinkhorn_from_cost(
    cost: Cost,
    a: Weights | None = None,
    b: Weights | None = None,
    *,
    eps: float,
    lengths: Lengths | None = None,
    reach: float | None = None,
    max_iter: int = 1000,
    tol: float = 1e-5,
    init: tuple[Potential, Potential] | None = None,
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
            takes no part, but has a potential.
        b: Weights of the columns, ``(..., M)``; balanced, they must sum to what ``a`` sums to.
        eps: Regularisation, in the unit of ``cost``.
        lengths: For ragged batches: how many rows and columns of each problem count, two integer tensors
            ``(...)``. What lies beyond is not looked at.
        reach: Marginal penalty, in the unit of ``cost``; None for hard marginals.
        max_iter: Most pairs of half-steps.
        tol: A problem stops when the L1 distance of its marginals from what they should be is at most this.
        init: Potentials ``(f, g)`` to start from, such as those of a similar problem. No gradient.
        backend: ``"native"`` or ``"reference"`` to insist on one; None for the fastest that can run.

    Returns:
        A :class:`Transport`. Potentials and value are float32 for half-precision input.

    Gradients:
        To ``cost``, ``a`` and ``b``, any order, from the value (by the envelope theorem), the potentials, the
        plan and its products (by implicit differentiation). They are those of the converged problem: run to a
        small ``tol``. Balanced, gradients to ``a`` and ``b`` mean something along changes that keep the two
        masses equal; those of the value are the potentials.

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
    require_not_empty("cost", cost, "(..., N, M)")
    a, b = checked_weights(a, b, cost, "cost")
    settings = checked_settings(eps, reach, max_iter, tol)
    if cost.dtype in (torch.float16, torch.bfloat16):
        cost = cost.float()

    return _solve(cost, a, b, lengths, init, settings, backend, "sinkhorn_from_cost", explain_cost)


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
    max_iter: int = 1000,
    tol: float = 1e-5,
    init: tuple[Potential, Potential] | None = None,
    backend: str | None = None,
) -> Transport:
    r"""Entropic optimal transport between two weighted point clouds.

    :func:`sinkhorn_from_cost` on the pairwise costs of the rows of ``x`` and ``y``. On the CPU,
    clouds of more than 256 points are streamed: costs and plan are made tile by tile, and memory grows with
    N + M.

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
        max_iter: Most pairs of half-steps.
        tol: L1 marginal error at which a problem stops.
        init: Potentials ``(f, g)`` to start from. No gradient.
        backend: ``"native"`` or ``"reference"`` to insist on one; None for the fastest that can run.

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
    require_clouds(x, y)
    require_choice("cost", cost, COSTS)
    if cost == "lp" and not 1 <= p < math.inf:
        raise ValueError(f"p must be a finite number, 1 or above, got {p}")
    a, b = checked_weights(a, b, x, "x", y)
    settings = checked_settings(eps, reach, max_iter, tol)
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), y.float()

    def explain(costs: Cost) -> str | None:
        if reason := explain_points(x, y):
            return reason
        if not costs.isfinite().all() and lengths is None:
            return f"the {cost} cost between x and y overflows {x.dtype}; scale them down"
        return None

    if lengths is not None:
        require_lengths(lengths, x.shape[:-2], x.shape[-2], y.shape[-2], x)
        # what lies beyond the lengths may be NaN, and must not reach a gradient as 0 * NaN
        x = torch.where(inside(lengths[0], x.shape[-2])[..., None], x, 0)
        y = torch.where(inside(lengths[1], y.shape[-2])[..., None], y, 0)
    if clouds.are_large(x, y):
        refusals = {"native": clouds.refuse(x), "reference": None}
        if dispatch.choose("sinkhorn", refusals, backend) == "native":
            return _solve_clouds(x, y, a, b, lengths, init, settings, cost, p)
    costs = reference.pairwise_cost(x, y, cost, p)
    return _solve(costs, a, b, lengths, init, settings, backend, "sinkhorn", explain)


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
    max_iter: int = 1000,
    tol: float = 1e-5,
    backend: str | None = None,
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
    require_clouds(x, y)
    n, m = (None, None) if lengths is None else lengths

    def value(x, y, a, b, n, m) -> Tensor:
        own = None if n is None else (n, m)
        return sinkhorn(
            x,
            y,
            a,
            b,
            eps=eps,
            cost=cost,
            p=p,
            lengths=own,
            reach=reach,
            max_iter=max_iter,
            tol=tol,
            backend=backend,
        ).value

    divergence = value(x, y, a, b, n, m) - (value(x, x, a, a, n, n) + value(y, y, b, b, m, m)) / 2
    if reach is None or (a is None and b is None):
        return divergence
    masses = [1.0 if w is None else within(w.to(divergence.dtype), k).sum(-1) for w, k in ((a, n), (b, m))]
    return divergence + eps / 2 * (masses[0] - masses[1]) ** 2


def assignment(cost: Cost, *, backend: str | None = None) -> Tensor:
    """The cheapest one-to-one assignment of rows to columns, exactly.

    Args:
        cost: ``(..., N, M)`` with N <= M. +inf forbids a pair. Sums are made in float64.
        backend: ``"native"`` or ``"reference"`` to insist on one; None for the fastest that can run.

    Returns:
        The column of each row, ``(..., N)``, int64. Among equally cheap assignments which one comes back is
        not specified, but does not change from call to call.

    Gradients:
        None: the result is made of integers.

    Raises:
        ValueError: If shapes or values do not fit, or every assignment uses a forbidden pair. Where values
            cannot be read (a GPU, ``torch.compile``) such a problem comes back as -1.
        TypeError: If the dtype is not a floating-point one.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> assignment(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))
        tensor([1, 0])
    """
    require_rank("cost", cost, 2, "(..., N, M)")
    require_float("cost", cost)
    require_not_empty("cost", cost, "(..., N, M)")
    if cost.shape[-2] > cost.shape[-1]:
        raise ValueError(f"cost must have no more rows than columns, got (N, M) = {tuple(cost.shape[-2:])}")
    readable = values_can_be_read(cost)
    # a sum that is finite or +inf has neither NaN nor -inf in it; only another one is looked into
    if readable and not cost.detach().double().sum().item() > -math.inf and (reason := explain_cost(cost)):
        raise ValueError(reason)
    refusals = {"native": kernels.refuse_assignment(cost), "reference": None}
    run = kernels if dispatch.choose("assignment", refusals, backend) == "native" else reference
    chosen = run.assignment(cost.detach())
    if readable and chosen.numel() and int(chosen.min()) < 0:
        raise ValueError("cost forbids every one-to-one assignment: too many of its entries are +inf")
    return chosen


def displacement(
    x: Points,
    y: Points,
    t: Tensor | Sequence[float] | float,
    *,
    plan: str = "exact",
    eps: float | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Points on their way from one cloud to another, along straight lines chosen by optimal transport.

    $$z_i(t) = (1 - t)\,x_i + t\,T(x_i)$$

    With ``plan="exact"`` $T(x_i)$ is the point of ``y`` that the cheapest assignment for $|x - y|^2$ gives
    $x_i$, and the path is McCann's, a geodesic of the Wasserstein distance; with ``"entropic"`` it is the
    barycentric projection of the entropic plan.

    Args:
        x: Points ``(..., N, D)`` of equal mass.
        y: Points ``(..., M, D)``; M >= N for the exact plan.
        t: Times in [0, 1]; a number or ``(T,)``.
        plan: ``"exact"`` or ``"entropic"``.
        eps: Regularisation of the entropic plan, in the unit of $|x - y|^2$.
        backend: For :func:`assignment` or :func:`sinkhorn`.

    Returns:
        ``(T, ..., N, D)``, in the dtype of ``x``.

    Gradients:
        To ``x`` and ``y``, with the assignment constant, or through the entropic plan.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]])
        >>> displacement(x, y, 0.5)
        tensor([[[1.],
                 [2.]]])
    """
    require_clouds(x, y)
    require_choice("plan", plan, ("exact", "entropic"))
    if plan == "entropic" and eps is None:
        raise ValueError("eps must be given for the entropic plan, got None")
    if plan == "exact" and x.shape[-2] > y.shape[-2]:
        raise ValueError(
            f"y must have at least as many points as x for the exact plan, {x.shape[-2]}, got {y.shape[-2]}"
        )
    times = torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * x.dim())
    if values_can_be_read(times) and not bool(((times >= 0) & (times <= 1)).all()):
        raise ValueError(f"t must lie in [0, 1], got {t}")
    if plan == "entropic":
        target = sinkhorn(x, y, eps=eps, backend=backend).barycentric(y)
    else:
        fixed = [points.detach().double() for points in (x, y)]
        if values_can_be_read(*fixed) and not all(bool(points.isfinite().all()) for points in fixed):
            raise ValueError("x and y must be finite, got NaN or infinite values")
        chosen = assignment(reference.pairwise_cost(*fixed), backend=backend)
        target = y.gather(-2, chosen[..., None].expand(*chosen.shape, y.shape[-1]))
    return torch.lerp(x[None], target[None], times)
