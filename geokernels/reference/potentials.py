r"""What potentials mean, whoever found them: their plan, and how they move with the problem.

Plans are relative to the weights: $P_{ij} = a_i b_j E_{ij}$, with the density
$E_{ij} = \exp((f_i + g_j - C_{ij}) / \epsilon)$, so that points of zero weight have potentials like any
other. ``f`` is +inf for a point that reaches nobody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .._precision import full_precision
from .._typing import Cost, Points, Potential, Weights

LEAST_LIFT = 16  # roundings by which two sums must differ, for potentials to be moved by a constant


def uniform(like: Tensor, size: int, count: Tensor | None = None) -> Weights:
    """Equal weights of ``size`` points summing to one, ``(..., size)``, zero beyond ``count``.

    ``like`` has the batch shape, and two more dimensions that do not count.
    """
    shape = (*like.shape[:-2], size)
    if count is None:
        return like.new_full(shape, 1 / size)
    inside = torch.arange(size, device=like.device) < count[..., None]
    return inside.to(like.dtype) / count[..., None].to(like.dtype)


def weights_of(like: Tensor, sizes: Sequence[int], a, b, n=None, m=None) -> tuple[Weights, Weights]:
    """The weights of both sides of ``sizes`` points; uniform up to ``n`` and ``m`` where they are None."""
    N, M = sizes
    return uniform(like, N, n) if a is None else a, uniform(like, M, m) if b is None else b


def centred(x: Points, y: Points) -> tuple[Points, Points]:
    """Both clouds about their common centre.

    Distances do not see the shift, but |x|^2 + |y|^2 - 2<x, y> loses its digits to a distant origin.
    """
    centre = (x.detach().mean(-2, keepdim=True) + y.detach().mean(-2, keepdim=True)) / 2
    return x - centre, y - centre


def directions(x: Points) -> Points:
    """Rows divided by their lengths; a zero row stays zero, and what is not finite becomes NaN."""
    # by their largest entries first: squares overflow, or vanish, long before the rows do
    most = x.detach().abs().amax(-1, keepdim=True)
    x = x / most.masked_fill(most == 0, 1)
    length = x.square().sum(-1, keepdim=True)
    return x / length.masked_fill(length == 0, 1).sqrt()


def density(cost: Cost, f: Potential, g: Potential, eps: float) -> Tensor:
    """The plan relative to the product of the weights, ``(..., N, M)``; 0 for pairs that cannot meet.

    Saturates near the largest number, which a point of zero weight can reach before convergence: none of its
    mass must stay none.
    """
    largest = math.log(torch.finfo(cost.dtype).max) - 1  # clear of the last rounding
    f, g = f[..., :, None], g[..., None, :]
    admissible = cost.isfinite() & f.isfinite() & g.isfinite()
    # select before subtracting, so that forbidden pairs back-propagate 0 and not inf - inf
    f, g, cost = f.masked_fill(f.isinf(), 0), g.masked_fill(g.isinf(), 0), cost.masked_fill(~admissible, 0)
    return torch.where(admissible, ((f + g - cost) / eps).clamp(max=largest), -math.inf).exp()


def best_constant(of_a: Tensor, of_b: Tensor, reach: float) -> Tensor:
    r"""The constant that potentials under a penalty had best move by, f + c and g - c.

    Half-steps alone move it by a share of about eps / reach. The dual value is largest at
    $c = \tfrac{\rho}{2} \log(\langle a, e^{-f/\rho}\rangle / \langle b, e^{-g/\rho}\rangle)$
    (T. Séjourné, F.-X. Vialard and G. Peyré, 2022), 0 where the sums differ by roundings. After a column step
    the second is also the plan's mass, which its entries know by $|f| / \epsilon$ roundings only.

    Args:
        of_a: The first sum, ``(...)``.
        of_b: The second.
        reach: The penalty, in the unit of the potentials.
    """
    ratio = of_a / of_b
    by = reach / 2 * ratio.log()
    numbers = torch.finfo(ratio.dtype)
    # above what underflow has rounded
    sure = torch.minimum(of_a, of_b) > numbers.tiny / numbers.eps
    off = sure & ((ratio - 1).abs() > LEAST_LIFT * numbers.eps) & by.isfinite()
    return torch.where(off, by, 0)


def power_rest(x: Tensor) -> Tensor:
    """``exp(x) - 1 - x``, to the last digits for small ``x``."""
    total = torch.ones_like(x)
    for k in range(17, 2, -1):
        total = 1 + x * total / k
    return torch.where(x.abs() < 0.5, x * x / 2 * total, torch.expm1(x) - x)


def level_of(a: Weights, reach: float) -> Tensor:
    """What is added to the logarithm of a density, in units of eps, before :func:`power_rest`, ``(...)``."""
    mass = a.double().sum(-1)
    return mass.log() if reach == math.inf else torch.zeros_like(mass)


def value_of_pairs(value, a, b, f, g, reach, cost, rest, constant) -> Tensor:
    """The dual value where costs are far below eps, in units of eps, ``(...)`` in float64.

    Elsewhere it stays ``value``. The formula stands in csrc/core/transport_value.h.

    Args:
        value: By the sums over the sides, ``(...)``.
        a: Weights ``(..., N)``.
        b: Weights ``(..., M)``.
        f: Potential ``(..., N)``.
        g: Potential ``(..., M)``.
        reach: Marginal penalty.
        cost: ``sum_ij a_i b_j C_ij``, ``(...)``.
        rest: ``sum_ij a_i b_j`` times the :func:`power_rest` of the density's logarithm, ``(...)``.
        constant: The same of ``-C``.
    """
    a, b, f, g = (part.double() for part in (a, b, f, g))
    mass_a, mass_b = a.sum(-1), b.sum(-1)
    of_a, of_b = (torch.where(w > 0, w * p, 0).sum(-1) for w, p in ((a, f), (b, g)))
    if reach == math.inf:
        # x - log(1 + x) by its first terms, where a difference would lose them
        x = mass_a - 1
        level = torch.where(x.abs() < 1e-3, x * x * (0.5 - x * (1 / 3 - x * (0.25 - x / 5))), x - x.log1p())
        small = (cost - torch.minimum(rest, constant)) / mass_a + mass_b * level
    else:
        bent = [torch.where(w > 0, w * power_rest(-p / reach), 0).sum(-1) for w, p in ((a, f), (b, g))]
        of_sides = (1 - mass_b) * of_a + (1 - mass_a) * of_b - reach * (bent[0] + bent[1])
        small = cost + torch.maximum(of_sides - rest, -constant)
    product = mass_a * mass_b
    # points that meet nobody have infinite potentials
    near = (value.abs() < product) & (rest < product) & (cost + of_a + of_b).isfinite()
    return torch.where(near, small, value)


def unresolved(f: Potential, g: Potential, a: Weights, b: Weights, eps: float, rounding: float) -> Tensor:
    """Whether potentials held to a relative ``rounding`` leave nothing of their plan, ``(...)``."""
    most = (torch.where((w > 0) & p.isfinite(), p.abs(), 0).amax(-1) for w, p in ((a, f), (b, g)))
    return torch.maximum(*most) * rounding > eps


@full_precision
def gradients(E, a, b, f, g, eps, reach, grad_value, grad_f, grad_g):
    """Gradients to cost and weights, from those to the value and the potentials.

    The value by the envelope theorem: its gradients are the plan, and the potentials. The potentials by the
    implicit function theorem, with one dense solve in float64. Made of differentiable operations on
    ``f`` and ``g``, so that differentiating again goes through the same solve.

    Args:
        E: The :func:`density`, ``(..., N, M)``.
        a: Weights ``(..., N)``.
        b: Weights ``(..., M)``.
        f: Potential ``(..., N)``.
        g: Potential ``(..., M)``.
        eps: Regularisation.
        reach: Marginal penalty; ``math.inf`` when the marginals are hard constraints.
        grad_value: ``(...)`` or None.
        grad_f: ``(..., N)`` or None.
        grad_g: ``(..., M)`` or None.

    Returns:
        Gradients to ``cost``, ``a`` and ``b``; one of the three given must not be None.
    """
    totals = None
    if grad_value is not None:
        totals = through_value(E, a, b, f, g, eps, reach, grad_value[..., None])
    if grad_f is not None or grad_g is not None:
        grad_f = torch.zeros_like(f) if grad_f is None else grad_f
        grad_g = torch.zeros_like(g) if grad_g is None else grad_g
        wide = (part.double() for part in (E, a, b, f, g))
        parts = through_potentials(*wide, eps, reach, grad_f.double(), grad_g.double(), ridge_of(E))
        parts = [part.to(E.dtype) for part in parts]
        totals = parts if totals is None else [total + part for total, part in zip(totals, parts)]
    return totals


def finite(potential: Potential) -> Potential:
    """The potential, 0 for points that reach nobody."""
    return potential.masked_fill(potential.isinf(), 0)


def value_to_weight(potential: Potential, others: Weights, eps: float, reach: float) -> Tensor:
    """Derivative of the value to one side's weights, at the optimum; ``others`` are the other side's."""
    mass = others.sum(-1, keepdim=True)
    if reach == math.inf:
        return finite(potential) + eps * (mass - 1)
    return reach - (reach + eps) * torch.exp(-potential / reach) + eps * mass


def gauge_of(grad_f: Tensor, grad_g: Tensor, a: Weights, b: Weights) -> Tensor:
    """How much gradients to balanced potentials ask for the constant that these are free in, ``(..., 1)``."""
    return (grad_f.sum(-1) - grad_g.sum(-1))[..., None] / (a.sum(-1) + b.sum(-1))[..., None]


def gauge_shift(a, b, f, g, f_moved, g_moved, d_a, d_b) -> Tensor:
    """The constant that balanced potentials gain and lose as they move, ``(..., 1)``.

    It keeps them where they are fixed, and is the transpose of :func:`gauge_of`.
    """
    off = b * g_moved + finite(g) * d_b, a * f_moved + finite(f) * d_a
    return (off[0].sum(-1) - off[1].sum(-1))[..., None] / (a.sum(-1) + b.sum(-1))[..., None]


def through_value(E, a, b, f, g, eps, reach, scale: Tensor | float = 1.0):
    """Derivatives of the value, at the optimum, times ``scale``, ``(..., 1)``."""
    to_a, to_b = value_to_weight(f, b, eps, reach), value_to_weight(g, a, eps, reach)
    return E * (scale * a)[..., :, None] * b[..., None, :], scale * to_a, scale * to_b


def shares(E: Tensor, weight: Weights, dim: int) -> tuple[Tensor, Tensor]:
    """``E`` divided by its weighted sums along ``dim``, and those times the weights; 0 where the sum is 0."""
    weight = weight[..., None, :] if dim == -1 else weight[..., :, None]
    total = (E * weight).sum(dim, keepdim=True)
    share = torch.where(total > 0, E / total.masked_fill(total == 0, 1), 0)
    return share, share * weight


def ridge_of(E: Tensor) -> float:
    """What is added to the diagonal of :func:`system`: a rounding of the density."""
    return max(torch.finfo(E.dtype).eps, 2.0**-46)


def system(A: Tensor, B: Tensor, b: Weights, d: float, reach: float, ridge: float) -> Tensor:
    """The matrix of :func:`through_potentials` once the rows are eliminated, ``(..., M, M)``."""
    left = -A.mT @ B / d
    if reach == math.inf:
        left = left + b[..., :, None] / b.sum(-1)[..., None, None]
    return left + (d + ridge) * torch.eye(b.shape[-1], dtype=A.dtype, device=A.device)


def through_potentials(E, a, b, f, g, eps, reach, grad_f, grad_g, ridge):
    r"""Gradients through f and g: the transposed linear system of the two half-steps.

    Let $A_{ij} = b_j E_{ij} / \sum_k b_k E_{ik}$ and $B_{ij} = a_i E_{ij} / \sum_k a_k E_{kj}$. A change of
    cost moves the potentials by $d\,\delta f + A\,\delta g = (A \circ \delta C) 1$ and
    $B^\top \delta f + d\,\delta g = (B \circ \delta C)^\top 1$, where $d = 1 + \epsilon / \rho$. Balanced,
    $d = 1$ and the system is singular along $(1, -1)$: there $\langle a, f\rangle = \langle b, g\rangle$
    decides. A plan that falls apart leaves one more such constant free for each of its parts: ``ridge``, of
    the size of a rounding, decides there, and no product with the plan sees it.
    """
    by_a, A = shares(E, b, -1)
    by_b, B = shares(E, a, -2)
    # a point without any partner has a constant potential
    grad_f = torch.where((E > 0).any(-1), grad_f, 0)
    grad_g = torch.where((E > 0).any(-2), grad_g, 0)
    d, gauge = 1 + eps / reach, torch.zeros_like(grad_f[..., :1])
    if reach == math.inf:
        gauge = gauge_of(grad_f, grad_g, a, b)
        grad_f, grad_g = grad_f - a * gauge, grad_g + b * gauge
    rhs = grad_g - (A.mT @ grad_f[..., None])[..., 0] / d
    q = torch.linalg.solve(system(A, B, b, d, reach, ridge), rhs[..., None])[..., 0]
    p = (grad_f - (B @ q[..., None])[..., 0]) / d
    to_cost = p[..., :, None] * A + B * q[..., None, :]
    to_a = -eps * (by_b @ q[..., None])[..., 0] - gauge * finite(f)
    to_b = -eps * (by_a.mT @ p[..., None])[..., 0] + gauge * finite(g)
    return to_cost, to_a, to_b


class Pairs(Protocol):
    """All pairs of two weighted sets, as a plan needs them."""

    def density(self, f: Potential, g: Potential) -> Tensor:
        """The plan relative to the product of the weights, ``(..., N, M)``."""

    def times(self, f: Potential, g: Potential, v: Tensor) -> Tensor:
        """``density @ v``, for ``v`` ``(..., M, E)``."""

    def times_t(self, f: Potential, g: Potential, u: Tensor) -> Tensor:
        """``density^T @ u``, for ``u`` ``(..., N, E)``."""


@dataclass(frozen=True, eq=False)
class DensePairs:
    """Pairs whose costs are stored."""

    cost: Cost
    eps: float

    def density(self, f: Potential, g: Potential) -> Tensor:
        """See :class:`Pairs`."""
        return density(self.cost, f, g, self.eps)

    def times(self, f: Potential, g: Potential, v: Tensor) -> Tensor:
        """See :class:`Pairs`."""
        return self.density(f, g) @ v

    def times_t(self, f: Potential, g: Potential, u: Tensor) -> Tensor:
        """See :class:`Pairs`."""
        return self.density(f, g).mT @ u
