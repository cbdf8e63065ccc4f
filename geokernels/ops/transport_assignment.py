"""Exact assignment, and the paths between point clouds that transport gives."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import reference
from .._checks import (
    require_choice,
    require_float,
    require_not_empty,
    require_positive,
    require_rank,
    require_values,
    values_can_be_read,
)
from .._typing import Cost, Points
from ..kernels import derivatives, dispatch, native, transport
from ..kernels import transport_assignment as kernels
from ..kernels import transport_clouds as clouds
from .inputs import FASTEST_ON_CPU
from .transport import sinkhorn
from .transport_checks import explain_cost, require_clouds, require_finite_clouds


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
    if backend in FASTEST_ON_CPU and kernels.runs_directly(cost):
        chosen, outcome = kernels.assign_directly(cost)
    else:
        chosen, outcome = _assign(cost, backend)
    if outcome == -2:
        raise ValueError(explain_cost(cost))
    if outcome == -1:
        raise ValueError("cost forbids every one-to-one assignment: too many of its entries are +inf")
    return chosen


def _assign(cost: Cost, backend: str | None) -> tuple[Tensor, int]:
    """The same wherever it runs, with what :func:`kernels.assign_directly` returns."""
    require_rank("cost", cost, 2, "(..., N, M)")
    require_float("cost", cost)
    require_values("cost", cost)
    require_not_empty("cost", cost, "(..., N, M)")
    if cost.shape[-2] > cost.shape[-1]:
        raise ValueError(f"cost must have no more rows than columns, got (N, M) = {tuple(cost.shape[-2:])}")
    readable = values_can_be_read(cost)
    # a sum that is finite or +inf has neither NaN nor -inf in it; only another one is looked into
    if readable and not cost.detach().double().sum().item() > -math.inf and explain_cost(cost):
        return cost, -2
    refusals = {"native": lambda: kernels.refuse(cost), "reference": None}
    run = kernels if dispatch.choose("assignment", refusals, backend, cost) == "native" else reference
    chosen = run.assignment(cost.detach())
    return chosen, min(0, int(chosen.min())) if readable and chosen.numel() else 0


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
    barycentric projection of the entropic plan. Costs and points are computed in the precision of the points,
    at least float32; sums of costs in float64.

    Args:
        x: Points ``(..., N, D)`` of equal mass.
        y: Points ``(..., M, D)``; M >= N for the exact plan.
        t: Times in [0, 1]; a number or ``(T,)``.
        plan: ``"exact"`` or ``"entropic"``.
        eps: Regularisation of the entropic plan, in the unit of $|x - y|^2$.
        backend: ``"native"`` or ``"reference"`` to insist on one, for the entropic plan any of
            :func:`sinkhorn`; None for the fastest that can run.

    Returns:
        ``(T, ..., N, D)``, in the dtype of ``x``.

    Gradients:
        To ``x``, ``y`` and ``t``, with the assignment constant, or through the entropic plan.

    Raises:
        ValueError: If shapes or values do not fit. Where values cannot be read (a GPU, ``torch.compile``), a
            pair of clouds that are not finite, or too far apart for their squared distances, comes back NaN.
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
    if eps is not None:
        require_positive("eps", eps)
    elif plan == "entropic":
        raise ValueError("eps must be given for the entropic plan, got None")
    if plan == "exact" and x.shape[-2] > y.shape[-2]:
        raise ValueError(
            f"y must have at least as many points as x for the exact plan, {x.shape[-2]}, got {y.shape[-2]}; "
            "exact_transport splits points"
        )
    try:
        times = torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1)
    except (TypeError, ValueError) as error:
        raise TypeError(f"t must be numbers in [0, 1], got {t!r}") from error
    if values_can_be_read(times) and not bool(((times >= 0) & (times <= 1)).all()):
        raise ValueError(f"t must lie in [0, 1], got {t}")
    require_finite_clouds(x, y)
    if plan == "entropic":
        solve = _target_at_once if _runs_at_once(x, y, backend) else _target
        target = solve(x, y, eps, backend)
        return torch.lerp(x[None], target[None], times.view(-1, *(1,) * x.dim()))
    refusals = {"native": lambda: kernels.refuse(x), "reference": None}
    run = kernels if dispatch.choose("displacement", refusals, backend, x, y) == "native" else reference
    wide = torch.promote_types(x.dtype, torch.float32)
    together = times.expand(*x.shape[:-2], -1)
    moved, chosen = run.displacement(*(part.to(wide) for part in (x, y, together)))
    if values_can_be_read(x, y) and chosen.numel() and int(chosen.min()) < 0:
        raise ValueError(f"x and y must be so near that their squared distances are finite in {wide}")
    return moved.to(x.dtype).movedim(-3, 0)


def _target(x: Points, y: Points, eps: float, backend: str | None) -> Points:
    """Where the entropic plan sends each point, on average."""
    return sinkhorn(x, y, eps=eps, backend=backend).barycentric(y)


def _runs_at_once(x: Points, y: Points, backend: str | None) -> bool:
    """Whether the GPU's kernel multiplies by the plan in the launch that finds it: it has no derivative."""
    if backend != "native" or not x.is_cuda or native.refuse(x, devices=("cuda",)):
        return False
    small = not clouds.are_large(x, y)
    return small and not derivatives.are_wanted(x, y)


def _target_at_once(x: Points, y: Points, eps: float, _backend: str | None) -> Points:
    """The same in one launch."""
    wide = y.to(torch.promote_types(y.dtype, torch.float32))
    columns = torch.cat([wide, torch.ones_like(wide[..., :1])], -1)
    sums = transport.carry_points(x, y, columns, reference.Problem(eps=eps))
    total = sums[..., -1:]
    return torch.where(total > 0, sums[..., :-1] / total.masked_fill(total == 0, 1), 0).to(y.dtype)
