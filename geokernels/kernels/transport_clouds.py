r"""Transport between large point clouds: the passes over their pairs, and their derivatives.

Nothing here forms a matrix of all pairs. The compiled operators take clouds whose cost is in units of
``eps``, of one of four kinds; :meth:`Pairs.of` brings every cost to that form. With
$E_{ij} = \exp(f_i + g_j - C_{ij})$ they compute

* ``multiply``: $\sum_j E_{ij} \langle l_i, r_j\rangle v_j$, whose derivatives are sums of the same form,
* ``differentiate``: $\sum_j E_{ij} \langle l_i, r_j\rangle\, \partial C_{ij} / \partial x_i$.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _transport
from .._precision import full_precision
from .._typing import Cost, Points, Potential, Weights
from . import native
from .batching import lead_with_mapped_dimension
from .transport import MOST_POINTS

DOT, SQUARE, ROOT, POWER = range(4)  # core/transport_clouds.h
MOST_STEPS = 1000  # of the conjugate gradients


def are_large(x: Points, y: Points) -> bool:
    """Whether a matrix of all pairs would not stay in the cache, and is better not made at all."""
    return max(x.shape[-2], y.shape[-2]) > MOST_POINTS


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of two clouds; see :class:`geokernels._transport.Pairs`.

    Attributes:
        x: Points ``(..., N, D)`` such that the cost is in units of ``eps``.
        y: Points ``(..., M, D)``, likewise.
        n: How many points of ``x`` count, ``(...)``, or None.
        m: The same for ``y``.
        kind: ``DOT``, ``SQUARE``, ``ROOT`` or ``POWER``.
        p: The power.
        eps: Regularisation, the unit of the potentials that come and go.
        dense: Makes the costs of all pairs, for a plan that was asked for.
    """

    x: Points
    y: Points
    n: Tensor | None
    m: Tensor | None
    kind: int
    p: float
    eps: float
    dense: Callable[[], Cost]

    @classmethod
    def of(cls, x, y, n, m, cost: str, p: float, eps: float, pairwise_cost: Callable) -> "Pairs":
        """The pairs of ``x`` and ``y`` under the cost of that name."""

        def dense() -> Cost:
            return pairwise_cost(x, y, cost, p)

        if cost == "euclidean":
            return cls(x / eps, y / eps, n, m, ROOT, 2.0, eps, dense)
        if cost == "lp":
            return cls(x / eps ** (1 / p), y / eps ** (1 / p), n, m, POWER, p, eps, dense)
        if cost == "sqeuclidean":
            scale = math.sqrt(2 / eps)
            u, v = _transport.centred(x, y)
            return cls(u * scale, v * scale, n, m, SQUARE, 2.0, eps, dense)
        scale = math.sqrt(1 / eps)
        if cost == "dot":
            return cls(x * scale, y * scale, n, m, DOT, 2.0, eps, dense)
        # 1 - cos is a product too, with one more coordinate
        u, v = _transport.directions(x), _transport.directions(y)
        u, v = (
            torch.cat([u, -torch.ones_like(u[..., :1])], -1),
            torch.cat([v, torch.ones_like(v[..., :1])], -1),
        )
        return cls(u * scale, v * scale, n, m, DOT, 2.0, eps, dense)

    def density(self, f: Potential, g: Potential) -> Tensor:
        """See :class:`geokernels._transport.Pairs`."""
        return _transport.density(self.dense(), _present(f, self.n), _present(g, self.m), self.eps)

    def times(self, f: Potential, g: Potential, v: Tensor) -> Tensor:
        """See :class:`geokernels._transport.Pairs`."""
        f, g = _present(f / self.eps, self.n), _present(g / self.eps, self.m)
        return _multiply(self.x, self.y, f, g, None, None, v, self.kind, self.p)

    def times_t(self, f: Potential, g: Potential, u: Tensor) -> Tensor:
        """See :class:`geokernels._transport.Pairs`."""
        f, g = _present(f / self.eps, self.n), _present(g / self.eps, self.m)
        return _multiply(self.y, self.x, g, f, None, None, u, self.kind, self.p)


def solve(
    pairs: Pairs,
    a: Weights | None,
    b: Weights | None,
    start: Potential | None,
    *,
    eps: float,
    reach: float,
    max_iter: int,
    tol: float,
    anneal: tuple[float, float] | None = None,
) -> tuple[Tensor, Potential, Potential, Tensor, Tensor]:
    """Value, f, g, error, iterations; gradients reach the points, ``a`` and ``b``.

    ``anneal`` is how many times ``eps`` comes first, and the ratio by which it comes down.
    """
    start = None if start is None else start / eps
    hot, cooling = anneal or (1.0, 0.5)
    operator = torch.ops.geokernels.sinkhorn_clouds.default
    of_pairs = pairs.x, pairs.y, a, b, pairs.n, pairs.m, start, pairs.kind, pairs.p
    value, f, g, error, iterations = operator(*of_pairs, reach / eps, hot, cooling, max_iter, tol)
    return value * eps, f * eps, g * eps, error, iterations


def _present(potential: Potential, count: Tensor | None) -> Potential:
    """The potential, -inf beyond ``count``: such a point meets nobody."""
    if count is None:
        return potential
    beyond = torch.arange(potential.shape[-1], device=potential.device) >= count[..., None]
    return potential.masked_fill(beyond, -math.inf)


def _multiply(x, y, f, g, left, right, v, kind, p) -> Tensor:
    """``sum_j E_ij <left_i, right_j> v_j``, ``(..., N, E)``; without left and right, ``sum_j E_ij v_j``."""
    if left is not None and left.shape[-1] == 1:
        return left * _multiply(x, y, f, g, None, None, right * v, kind, p)
    # one vector may go with all problems
    v = v.expand(*x.shape[:-2], *v.shape[-2:])
    return torch.ops.geokernels.multiply_clouds(x, y, f, g, left, right, v, kind, p)


def _differentiate(x, y, f, g, left, right, kind, p) -> Tensor:
    """``sum_j E_ij <left_i, right_j> dC_ij / dx_i``, ``(..., N, D)``."""
    if kind == DOT:
        return -_multiply(x, y, f, g, left, right, y, kind, p)
    if kind == SQUARE:
        sums = _multiply(x, y, f, g, left, right, torch.cat([y, torch.ones_like(y[..., :1])], -1), kind, p)
        return x * sums[..., -1:] - sums[..., :-1]
    return torch.ops.geokernels.differentiate_clouds(x, y, f, g, left, right, kind, p)


def _pairwise(left: Tensor, right: Tensor) -> Tensor:
    """Factors of the product of two inner products, ``(..., N, R E)``."""
    return (left[..., :, None] * right[..., None, :]).flatten(-2)


def _save_product(ctx, inputs, output) -> None:
    *tensors, ctx.kind, ctx.p = inputs
    ctx.save_for_backward(*tensors, output)


def _product_backward(ctx, grad: Tensor):
    x, y, f, g, left, right, v, out = ctx.saved_tensors
    of_cost = ctx.kind, ctx.p
    to_x, to_y, to_f, to_g, to_left, to_right, to_v, *_ = (None,) * 9
    wanted = ctx.needs_input_grad
    if wanted[3] or wanted[6]:
        to_v = _multiply(y, x, g, f, right, left, grad, *of_cost)
        to_g = (to_v * v).sum(-1)
    if wanted[2]:
        to_f = (out * grad).sum(-1)
    if wanted[4]:
        to_left = _multiply(x, y, f, g, grad, v, right, *of_cost)
    if wanted[5]:
        to_right = _multiply(y, x, g, f, v, grad, left, *of_cost)
    if left is not None:
        grad, v = _pairwise(left, grad), _pairwise(right, v)
    if wanted[0]:
        to_x = -_differentiate(x, y, f, g, grad, v, *of_cost)
    if wanted[1]:
        to_y = -_differentiate(y, x, g, f, v, grad, *of_cost)
    return to_x, to_y, to_f, to_g, to_left, to_right, to_v, None, None


def _save_solution(ctx, inputs, output) -> None:
    x, y, a, b, n, m, _, ctx.kind, ctx.p, ctx.reach, *_ = inputs
    _, f, g, error, iterations = output
    ctx.mark_non_differentiable(error, iterations)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, a, b, n, m, f, g)


def _solution_backward(ctx, grad_value, grad_f, grad_g, _grad_error, _grad_iterations):
    """:func:`geokernels._transport.gradients`, as sums over pairs that are never all there."""
    x, y, a, b, n, m, f, g = ctx.saved_tensors
    if grad_value is None and grad_f is None and grad_g is None:
        return (None,) * 14
    whole_a = _transport.uniform(x, n, -2) if a is None else a
    whole_b = _transport.uniform(y, m, -2) if b is None else b
    pairs = x, y, _present(f, n), _present(g, m)
    left, right, to_a, to_b = [], [], torch.zeros_like(f), torch.zeros_like(g)
    if grad_value is not None:
        scale = grad_value[..., None]
        left, right = [scale * whole_a], [whole_b]
        to_a = scale * _transport.value_to_weight(f, whole_b, 1.0, ctx.reach)
        to_b = scale * _transport.value_to_weight(g, whole_a, 1.0, ctx.reach)
    if grad_f is not None or grad_g is not None:
        # what lies beyond the lengths is constant
        grad_f = torch.zeros_like(f) if grad_f is None else grad_f.masked_fill(pairs[2] == -math.inf, 0)
        grad_g = torch.zeros_like(g) if grad_g is None else grad_g.masked_fill(pairs[3] == -math.inf, 0)
        gauge = torch.zeros_like(f[..., :1])
        if ctx.reach == math.inf:
            gauge = _transport.gauge_of(grad_f, grad_g, whole_a, whole_b)
            grad_f, grad_g = grad_f - whole_a * gauge, grad_g + whole_b * gauge
        of_rows, of_columns, by_a, by_b = torch.ops.geokernels.solve_adjoint_clouds(
            *pairs, whole_a, whole_b, grad_f, grad_g, ctx.kind, ctx.p, ctx.reach
        )
        left, right = [*left, of_rows, whole_a], [*right, whole_b, of_columns]
        to_a, to_b = to_a - by_a - gauge * f, to_b - by_b + gauge * g
    left, right, to_x, to_y = torch.stack(left, -1), torch.stack(right, -1), None, None
    if ctx.needs_input_grad[0]:
        to_x = _differentiate(*pairs, left, right, ctx.kind, ctx.p)
    if ctx.needs_input_grad[1]:
        to_y = _differentiate(y, x, *reversed(pairs[2:]), right, left, ctx.kind, ctx.p)
    return to_x, to_y, None if a is None else to_a, None if b is None else to_b, *(None,) * 10


def _refuse_second_derivative(ctx, grad: Tensor):
    raise RuntimeError("sinkhorn has no second derivative for the costs 'euclidean' and 'lp' of large clouds")


def _inverse(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1 / x.masked_fill(x <= 0, 1), 0)


@full_precision
def _solve_adjoint(x, y, f, g, a, b, grad_f, grad_g, kind, p, reach):
    r"""The linear system of :func:`geokernels._transport.gradients`, by conjugate gradients.

    With $\rho = E b$, $\kappa = E^\top a$, $A = \mathrm{diag}(1/\rho) E\, \mathrm{diag}(b)$ and
    $B = \mathrm{diag}(a) E\, \mathrm{diag}(1/\kappa)$ it reads $d\,p + B q = \bar f$,
    $A^\top p + d\,q = \bar g$, where $d = 1 + 1/\mathrm{reach}$. Eliminating $p$ leaves
    $(d - A^\top B / d)\, q = \bar g - A^\top \bar f / d$, which is symmetric in $q / \sqrt{b \kappa}$.
    Columns without mass are solved beforehand, as nothing comes back from them. Balanced, the null vector
    $\sqrt{b \kappa}$ is projected out.

    Returns:
        $p / \rho$, $q / \kappa$, $E\,(q / \kappa)$ and $E^\top (p / \rho)$.
    """

    def times(v: Tensor) -> Tensor:
        return _multiply(x, y, f, g, None, None, v[..., None], kind, p)[..., 0]

    def times_t(u: Tensor) -> Tensor:
        return _multiply(y, x, g, f, None, None, u[..., None], kind, p)[..., 0]

    d = 1 + 1 / reach
    by_rho, kappa = _inverse(times(b)), times_t(a)
    by_kappa = _inverse(kappa)
    scale = (b * kappa).sqrt()
    by_scale = _inverse(scale)

    def system(q: Tensor) -> Tensor:
        return d * q - b * times_t(a * by_rho * times(by_kappa * q)) / d

    rhs = grad_g - b * times_t(by_rho * grad_f) / d
    q = torch.where(b > 0, 0, rhs / d)
    r = by_scale * (rhs - system(q))
    null = torch.nn.functional.normalize(scale, dim=-1) if reach == math.inf else torch.zeros_like(scale)
    z = _conjugate_gradients(lambda z: by_scale * system(scale * z), r, null)
    q = q + scale * z
    of_columns = by_kappa * q
    by_a = times(of_columns)
    of_rows = by_rho * (grad_f - a * by_a) / d
    return of_rows, of_columns, by_a, times_t(of_rows)


def _conjugate_gradients(system: Callable[[Tensor], Tensor], r: Tensor, null: Tensor) -> Tensor:
    """Solve ``system(z) = r`` for each problem of a batch, at right angles to ``null``."""

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return torch.linalg.vecdot(u, v)[..., None]

    def project(u: Tensor) -> Tensor:
        return u - null * dot(null, u)

    r = project(r)
    z, step, size = torch.zeros_like(r), r, dot(r, r)
    enough = size * torch.finfo(r.dtype).eps ** 1.5
    for _ in range(MOST_STEPS):
        if not bool((size > enough).any()):
            return z
        moved = project(system(step))
        length = torch.where(size > enough, size / dot(step, moved).clamp_min(torch.finfo(r.dtype).tiny), 0)
        z, r = z + length * step, r - length * moved
        before, size = size, dot(r, r)
        step = r + step * size / before.clamp_min(torch.finfo(r.dtype).tiny)
    left = (size / enough).max().sqrt().item() * torch.finfo(r.dtype).eps ** 0.75
    warnings.warn(
        f"the gradient through the potentials is inexact: after {MOST_STEPS} steps of conjugate gradients "
        f"the relative residual is {left:.1e}; a larger eps makes the system easier",
        RuntimeWarning,
        stacklevel=2,
    )
    return z


if not native.missing:

    @torch.library.register_fake("geokernels::sinkhorn_clouds")
    def _(x, y, a, b, n, m, start, cost, p, reach, hot, cooling, max_iter, tol):
        one = x.new_empty(x.shape[:-2])
        f, g = x.new_empty(x.shape[:-1]), y.new_empty(y.shape[:-1])
        return one, f, g, torch.empty_like(one), one.new_empty(one.shape, dtype=torch.int64)

    @torch.library.register_fake("geokernels::multiply_clouds")
    def _(x, y, f, g, left, right, v, cost, p):
        return x.new_empty((*x.shape[:-1], v.shape[-1]))

    @torch.library.register_fake("geokernels::differentiate_clouds")
    def _(x, y, f, g, left, right, cost, p):
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    torch.library.register_autograd(
        "geokernels::sinkhorn_clouds", _solution_backward, setup_context=_save_solution
    )
    torch.library.register_autograd(
        "geokernels::multiply_clouds", _product_backward, setup_context=_save_product
    )
    torch.library.register_autograd("geokernels::differentiate_clouds", _refuse_second_derivative)
    for _name in ("sinkhorn_clouds", "multiply_clouds", "differentiate_clouds"):
        lead_with_mapped_dimension(_name)

    # an operator of its own, as the number of steps depends on the data
    @torch.library.custom_op("geokernels::solve_adjoint_clouds", mutates_args=())
    def _adjoint(
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        grad_f: Tensor,
        grad_g: Tensor,
        cost: int,
        p: float,
        reach: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _solve_adjoint(x, y, f, g, a, b, grad_f, grad_g, cost, p, reach)

    lead_with_mapped_dimension("solve_adjoint_clouds")

    @_adjoint.register_fake
    def _(x, y, f, g, a, b, grad_f, grad_g, cost, p, reach):
        return torch.empty_like(f), torch.empty_like(g), torch.empty_like(f), torch.empty_like(g)
