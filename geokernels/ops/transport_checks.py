"""What transport refuses, and what it says when a solver came back without a solution."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._checks import (
    require_choice,
    require_finite,
    require_float,
    require_like,
    require_not_empty,
    require_number,
    require_pair,
    require_positive,
    require_rank,
    require_shape,
    require_values,
    values_can_be_read,
    whole,
)
from .._typing import Cost, Points, Potential, Weights
from ..kernels import native
from ..reference import Problem, Solution
from ..reference.potentials import uniform, weights_of
from .inputs import HALVES, widened

COSTS = ("sqeuclidean", "euclidean", "cosine", "dot", "lp")

Lengths = tuple[Tensor, Tensor]  # how many rows and columns of each problem count, int64 (...)


def require_clouds(x: Points, y: Points) -> None:
    """Refuse anything but two non-empty clouds with one batch shape and one number of features."""
    require_rank("x", x, 2, "(..., N, D)")
    require_float("x", x)
    require_not_empty("x", x, "(..., N, D)")
    require_rank("y", y, 2, "(..., M, D)")
    require_like("y", y, "x", x)
    require_values("x", x)
    require_not_empty("y", y, "(..., M, D)")
    if y.shape[:-2] != x.shape[:-2] or y.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"y must have the batch shape and features of x, (..., M, D) = "
            f"{(*x.shape[:-2], 'M', x.shape[-1])}, got {tuple(y.shape)}"
        )


def require_cost(cost: str, p: float) -> None:
    """Refuse what is no cost between points."""
    require_choice("cost", cost, COSTS)
    require_number("p", p)
    if cost == "lp" and not 1 <= p < math.inf:
        raise ValueError(f"p must be a finite number, 1 or above, got {p}")


def checked_problem(
    like: Tensor,
    name: str,
    sizes: Sequence[int],
    *,
    a: Weights | None,
    b: Weights | None,
    eps: float,
    lengths: Lengths | None,
    reach: float | None,
    max_iter: int,
    tol: float,
    init: tuple[Potential, Potential] | None,
    anneal: tuple[float, float] | None,
    **of_points,
) -> Problem:
    """What a transport operator was given, checked, and in the precision of the computation.

    Args:
        like: Costs or points, which have the batch shape, dtype and device.
        name: What they are called.
        sizes: How many rows and columns there are.
        a: As for :func:`geokernels.sinkhorn`, as are all others.
        b: Likewise.
        eps: Likewise.
        lengths: Likewise.
        reach: Likewise.
        max_iter: Likewise.
        tol: Likewise.
        init: Likewise.
        anneal: Likewise.
        **of_points: ``cost`` and ``p``, where points are given.
    """
    a, b = checked_weights(a, b, like, name, sizes)
    require_positive("eps", eps)
    if reach is not None:
        require_positive("reach", reach)
    max_iter = whole("max_iter", max_iter)
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter}")
    require_number("tol", tol)
    if not 0 <= tol < math.inf:
        raise ValueError(f"tol must be a finite number, 0 or above, got {tol}")
    if lengths is not None or init is not None:
        wide = widened(like[..., :0])
    if lengths is not None:
        n, m = _checked_lengths(lengths, like, sizes)
        a = uniform(wide, sizes[0], n) if a is None else within(a, n)
        b = uniform(wide, sizes[1], m) if b is None else within(b, m)
    return Problem(
        eps=eps,
        reach=math.inf if reach is None else reach,
        a=a,
        b=b,
        lengths=lengths,
        max_iter=max_iter,
        tol=tol,
        init=None if init is None else _checked_start(init, wide, name, sizes),
        anneal=None if anneal is None else _checked_annealing(anneal, eps),
        **of_points,
    )


def checked_weights(
    a: Weights | None, b: Weights | None, like: Tensor, name: str, sizes: Sequence[int]
) -> tuple[Weights | None, Weights | None]:
    """Weights that have the shape and dtype which ``like`` asks for, in float32 for half precision."""
    for w, size, label, layout in zip((a, b), sizes, "ab", ("(..., N)", "(..., M)")):
        if w is not None:
            require_shape(label, w, (*like.shape[:-2], size), layout)
            require_like(label, w, name, like)
    if (a is None and b is None) or like.dtype not in HALVES:
        return a, b
    a, b = (None if w is None else w.float() for w in (a, b))
    if a is not None and b is not None:
        masses = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
        b = of_equal_mass(b, *masses, like.dtype)
    return a, b


def of_equal_mass(b: Weights, mass_a: Tensor, mass_b: Tensor, dtype: torch.dtype) -> Weights:
    """Weights ``b`` with the other side's mass where the two, ``(..., 1)``, differ by roundings of ``dtype``.

    Half precision cannot hold equal masses.
    """
    close = (mass_a - mass_b).abs() <= torch.finfo(dtype).eps * mass_a
    return torch.where(close, b * (mass_a / mass_b), b)


def _checked_annealing(anneal: tuple[float, float], eps: float) -> tuple[float, float]:
    """How many times ``eps`` comes first, and the ratio."""
    require_pair("anneal", anneal)
    hottest, cooling = anneal
    require_positive("anneal[0]", hottest)
    require_number("anneal[1]", cooling)
    if not 0 < cooling < 1:
        raise ValueError(f"anneal[1] must lie between 0 and 1, got {cooling}")
    return max(hottest / eps, 1.0), cooling


def _checked_lengths(lengths: Lengths, like: Tensor, sizes: Sequence[int]) -> Lengths:
    """Refuse lengths that are not whole numbers between one and the padded sizes."""
    require_pair("lengths", lengths)
    for label, count, size in zip(("lengths[0]", "lengths[1]"), lengths, sizes, strict=True):
        require_shape(label, count, tuple(like.shape[:-2]), "(...)")
        if count.dtype != torch.int64:
            raise TypeError(f"{label} must be int64, got {count.dtype}")
        if count.device != like.device:
            raise TypeError(
                f"{label} must be on the device of the problem, {like.device}, got {count.device}"
            )
        if values_can_be_read(count) and bool(((count < 1) | (count > size)).any()):
            raise ValueError(f"{label} must lie between 1 and {size}, got {count.tolist()}")
    return lengths


def inside(count: Tensor, size: int) -> Tensor:
    """Which of ``size`` rows count, ``(..., size)``."""
    return torch.arange(size, device=count.device) < count[..., None]


def inside_both(lengths: Lengths, costs: Cost) -> Tensor:
    """Which pairs count, ``(..., N, M)``."""
    N, M = costs.shape[-2:]
    return inside(lengths[0], N)[..., :, None] & inside(lengths[1], M)[..., None, :]


def within(weight: Weights, count: Tensor | None) -> Weights:
    """The weights, 0 beyond ``count``."""
    return weight if count is None else torch.where(inside(count, weight.shape[-1]), weight, 0)


def _checked_start(
    init: tuple[Potential, Potential], like: Tensor, name: str, sizes: Sequence[int]
) -> Potential:
    """The potential to start from: the first half-step makes f from g."""
    require_pair("init", init)
    f, g = init
    require_shape("init[0]", f, (*like.shape[:-2], sizes[0]), "(..., N)")
    require_shape("init[1]", g, (*like.shape[:-2], sizes[1]), "(..., M)")
    require_like("init[1]", g, name, like)
    if not native.is_finite(g):
        for kind, wrong in (("NaN", g.isnan()), ("-inf", g.isneginf())):
            if bool(wrong.any()):
                raise ValueError(f"init[1] must hold finite numbers or +inf, got {kind}")
    return g.detach()


def explain_cost(cost: Cost) -> str | None:
    """Say what is wrong with the entries of a cost, or None."""
    if cost.isnan().any():
        return "cost must hold finite numbers or +inf, got NaN"
    return "cost must hold finite numbers or +inf, got -inf" if cost.isneginf().any() else None


def require_finite_clouds(x: Points, y: Points) -> None:
    """Refuse points that are nowhere."""
    for name, points in (("x", x), ("y", y)):
        if not native.is_finite(points):
            require_finite(name, points)


def explain_overflow(costs: Cost, problem: Problem, lengths: Lengths | None = None) -> str | None:
    """Say that finite points have costs that are not, or None."""
    finite = costs.isfinite()
    if lengths is not None:
        finite = finite | ~inside_both(lengths, costs)
    if finite.all():
        return None
    return f"the {problem.cost} cost between x and y overflows {costs.dtype}; scale them down"


def explain_solution(solution: Solution, problem: Problem) -> str | None:
    """Say what finite costs and weights have led to something that is no number, or None."""
    value, f, g, error, _ = solution
    wider = ", or give float64" if f.dtype == torch.float32 else ""
    known = not bool(f.isnan().any() or g.isnan().any())
    if known and bool(value.isfinite().all() and error.isfinite().all()):
        return None
    if known and problem.reach < math.inf:
        return (
            f"reach must be larger beside the costs, got {problem.reach:g}: the masses exp(-f / reach) "
            f"overflow {f.dtype}; raise reach or scale them down{wider}"
        )
    return (
        f"eps must be larger beside the costs, got {problem.eps:g}: {f.dtype} does not resolve the plan; "
        f"raise eps or scale them down{wider}"
    )


def explain_entries(label: str, w: Weights) -> str | None:
    """Say that weights are negative or not finite, or None."""
    if bool((w >= 0).all()) and bool(w.isfinite().all()):
        return None
    return f"{label} must be finite and non-negative, got {'NaN' if w.isnan().any() else float(w.min())}"


def explain_weights(
    problem: Problem, *, remedy: str = "; give reach to transport unequal masses"
) -> str | None:
    """Say what is wrong with the weights, or None."""
    a, b = problem.a, problem.b
    for label, w in (("a", a), ("b", b)):
        if w is None:
            continue
        if reason := explain_entries(label, w):
            return reason
        if not bool((w.sum(-1) > 0).all()):
            return f"{label} must have some mass, got weights that are all zero"
    if problem.reach < math.inf or (a is None and b is None):
        return None
    masses = [1.0 if w is None else w.detach().double().sum(-1) for w in (a, b)]
    some = masses[0] if isinstance(masses[0], Tensor) else masses[1]
    gap = (masses[0] - masses[1]) * torch.ones_like(some)
    worst = int(gap.abs().argmax())
    # float64 weights may have been made in float32
    slack = max(torch.finfo((b if a is None else a).dtype).eps ** 0.5, 1e-6)
    if float(gap.abs().max()) <= slack * float(some.max()):
        return None
    wanted, got = (float(w) if isinstance(w, float) else float(w.reshape(-1)[worst]) for w in masses)
    return f"b must have the mass of a, {wanted:.9g}, got {got:.9g}{remedy}"


def explain_forbidden(cost: Cost, problem: Problem) -> str | None:
    """Say which point has mass and nowhere to send it, or None."""
    if problem.reach < math.inf:
        return None
    a, b = weights_of(cost, cost.shape[-2:], problem.a, problem.b)
    meets = cost.isfinite() & (a > 0)[..., :, None] & (b > 0)[..., None, :]
    for label, w, met in (("row", a, meets.any(-1)), ("column", b, meets.any(-2))):
        alone = (w > 0) & ~met
        if bool(alone.any()):
            at = alone.nonzero()[0].tolist()
            return (
                f"cost must let every point that has mass reach another, got only infinite costs for "
                f"{label} {at[-1]}" + (f" of problem {tuple(at[:-1])}" if at[:-1] else "")
            )
    return None
