"""Entropic transport: shapes, derivatives and batching of the compiled operators."""

import math

import torch
from torch import Tensor

from .._precision import full_precision
from .._typing import Cost, Points, Potential
from ..reference import potentials, tangents
from ..reference.problem import Problem, Solution
from . import adjoint, derivatives, direct, native, sizes
from ._ops import full_name, ops
from .batching import lead_with_mapped_dimension
from .costs import PRODUCTS, PointCost

# columns up to which one dense solve costs little, and how many of them a step of conjugate gradients costs
DENSE, STEPS_OF_DENSE = 256, 8


def refuse(cost: Cost) -> str | None:
    """Say why the compiled kernel cannot take ``cost``."""
    N, M = cost.shape[-2:]
    if not cost.is_cpu and sizes.exceed(sizes.NATIVE.points, N, M):
        given = f"{sizes.told(N)} and {sizes.told(M)}"
        return f"the CUDA kernel takes at most {sizes.NATIVE.points} points a side, got {given}"
    return native.refuse(cost, devices=("cpu", "cuda"))


def solve(cost: Cost, problem: Problem) -> Solution:
    """Solve it; gradients reach costs and weights."""
    if (solution := direct.sinkhorn(cost, problem)) is not None:
        return solution
    operator = ops.sinkhorn.default
    return Solution(*derivatives.run(operator, cost, *problem.tensors(), *problem.numbers()))


def solve_points(x: Points, y: Points, problem: Problem) -> tuple[Cost, Solution]:
    """The costs, one of ``PRODUCTS``, and the solution; gradients reach points and weights."""
    if problem.cost == "cosine":
        x, y = (u := potentials.directions(x)), u if y is x else potentials.directions(y)
    operator = ops.sinkhorn_points.default
    kind = PRODUCTS[problem.cost]
    cost, *solution = derivatives.run(operator, x, y, *problem.tensors(), kind, *problem.numbers())
    return cost, Solution(*solution)


def carry_points(x: Points, y: Points, v: Tensor, problem: Problem) -> Tensor:
    """``density @ (b * v)`` of columns ``v`` ``(..., M, E)``, at the solution of :func:`solve_points`.

    One launch on a GPU, without a derivative.
    """
    if problem.cost == "cosine":
        x, y = potentials.directions(x), potentials.directions(y)
    operator = ops.sinkhorn_points_carry.default
    kind = PRODUCTS[problem.cost]
    return derivatives.run(operator, x, y, v, *problem.tensors(), kind, *problem.numbers())[-1]


def density(cost: Cost, f: Potential, g: Potential, eps: float) -> Tensor:
    """:func:`geokernels.reference.potentials.density`, in one pass where the compiled library can."""
    if native.refuse(cost, devices=("cpu", "cuda")):
        return potentials.density(cost, f, g, eps)
    return derivatives.run(ops.transport_density.default, cost, f, g, eps)


class Pairs(potentials.DensePairs):
    """Pairs whose costs are stored, and whose plan is compiled."""

    def density(self, f: Potential, g: Potential) -> Tensor:
        """See :class:`geokernels.reference.potentials.Pairs`."""
        return density(self.cost, f, g, self.eps)


def _carried(cost, v, b, n, m, f, g, eps) -> Tensor:
    """What the plan carries, on the CPU: a second pass over costs that are in the cache."""
    b = potentials.uniform(cost, cost.shape[-1], m) if b is None else b
    E = density(cost, f, g, eps)
    # what lies beyond the lengths may be NaN
    for count, dim in ((n, -2), (m, -1)):
        if count is not None:
            inside = torch.arange(cost.shape[dim], device=cost.device) < count[..., None]
            E = torch.where(inside.unsqueeze(-1 if dim == -2 else -2), E, 0)
            v = v if dim == -2 else torch.where(inside[..., None], v, 0)
    return E @ (b[..., None] * v)


def _solve_then_carry(cost, v, a, b, n, m, start, eps, reach, max_iter, tol):
    solution = ops.sinkhorn(cost, a, b, n, m, start, eps, reach, max_iter, tol)
    return *solution, _carried(cost, v, b, n, m, solution[1], solution[2], eps)


def _solve_points_then_carry(x, y, v, a, b, n, m, start, cost, eps, reach, max_iter, tol):
    solution = ops.sinkhorn_points(x, y, a, b, n, m, start, cost, eps, reach, max_iter, tol)
    return *solution, _carried(solution[0], v, b, n, m, solution[2], solution[3], eps)


def _save_density(ctx, inputs, output: Tensor) -> None:
    *_, ctx.eps = inputs
    ctx.save_for_backward(output)


def _density_tangents(ctx, saved, d_cost, d_f, d_g, _eps):
    (E,) = saved
    rises = d_f[..., :, None] if d_f is not None else 0
    rises = rises + (d_g[..., None, :] if d_g is not None else 0) - (d_cost if d_cost is not None else 0)
    return _moved_density(E, rises, ctx.eps)


def _moved_density(E: Tensor, rises: Tensor, eps: float) -> Tensor:
    moving = (E > 0) & (_saturated(E) > E)  # pairs that cannot meet do not move either
    return torch.where(moving, E, 0) * torch.where(moving, rises, 0) / eps


def _saturated(E: Tensor) -> float:
    """Above this, a density is held at 1 / e of the largest number, and does not move."""
    return 0.36 * torch.finfo(E.dtype).max


def _density_backward(ctx, grad: Tensor):
    (E,) = ctx.saved_tensors
    moved = grad * torch.where(_saturated(E) > E, E, 0) / ctx.eps
    return -moved, moved.sum(-1), moved.sum(-2), None


def _save(ctx, inputs, output) -> None:
    cost, a, b, n, m, _, ctx.eps, ctx.reach, _, _ = inputs
    _, f, g, error, iterations = output
    ctx.mark_non_differentiable(error, iterations)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(cost, a, b, n, m, f, g)


def _to_problem(ctx, cost, a, b, n, m, f, g, *grads):
    """Gradients to cost, ``a`` and ``b``, from those to value, f and g; None where nothing comes."""
    if all(grad is None for grad in grads):
        return None, None, None
    whole_a, whole_b = potentials.weights_of(cost, cost.shape[-2:], a, b, n, m)
    E = density(cost, f, g, ctx.eps)
    if a is None and b is None and grads[1] is None and grads[2] is None:
        return _weighted(E, whole_a, whole_b, grads[0]), None, None
    given = E, whole_a, whole_b, f, g, ctx.eps, ctx.reach, *grads
    parts = None if grads[1] is None and grads[2] is None else _by_products(*given)
    to_cost, to_a, to_b = parts or potentials.gradients(*given)
    return to_cost, None if a is None else to_a, None if b is None else to_b


def _weighted(E: Tensor, a: Tensor, b: Tensor, grad_value: Tensor) -> Tensor:
    """:func:`potentials.through_value` to the costs alone, in the memory of ``E`` where nobody follows."""
    rows, columns = (grad_value[..., None] * a)[..., :, None], b[..., None, :]
    if torch.is_grad_enabled() or not derivatives.calls_are_direct(E, rows):
        return E * rows * columns
    return E.mul_(rows).mul_(columns)


def _by_products(E, a, b, f, g, eps, reach, grad_value, grad_f, grad_g):
    """:func:`potentials.gradients` of a large plan by conjugate gradients, in place of one dense solve.

    None where that is dearer: for a small plan, one close to a permutation, or derivatives of the result.
    """
    columns = E.shape[-1]
    if columns <= DENSE or torch.is_grad_enabled() or not (E.is_cpu and derivatives.calls_are_direct(E)):
        return None
    totals = None
    if grad_value is not None:
        totals = potentials.through_value(E, a, b, f, g, eps, reach, grad_value[..., None])
    grad_f = torch.zeros_like(f) if grad_f is None else grad_f
    grad_g = torch.zeros_like(g) if grad_g is None else grad_g
    wide, *sides = (part.double() for part in (E, a, b, f, g, grad_f, grad_g))
    parts = _products_of_potentials(wide, *sides, eps, reach, most=columns // STEPS_OF_DENSE)
    if parts is None:
        return None
    parts = [part.to(E.dtype) for part in parts]
    return parts if totals is None else [total + part for total, part in zip(totals, parts)]


def _products_of_potentials(E, a, b, f, g, grad_f, grad_g, eps, reach, most: int):
    """:func:`potentials.through_potentials` so, or None where it is not exact after ``most`` steps."""
    # a point without any partner has a constant potential
    grad_f = torch.where((E > 0).any(-1), grad_f, 0)
    grad_g = torch.where((E > 0).any(-2), grad_g, 0)
    gauge = torch.zeros_like(grad_f[..., :1])
    if reach == math.inf:
        gauge = potentials.gauge_of(grad_f, grad_g, a, b)
        grad_f, grad_g = grad_f - a * gauge, grad_g + b * gauge

    def times(v: Tensor, _unsolved: Tensor | None) -> Tensor:
        return (E @ v[..., None])[..., 0]

    def times_t(u: Tensor, _unsolved: Tensor | None) -> Tensor:
        return (E.mT @ u[..., None])[..., 0]

    found = adjoint.solve(a, b, grad_f, grad_g, times, times_t, reach / eps, most)
    if bool((found.left > 1).any()):
        return None
    to_cost = found.of_rows[..., :, None] * b[..., None, :] + a[..., :, None] * found.of_columns[..., None, :]
    to_a = -eps * found.by_a - gauge * potentials.finite(f)
    to_b = -eps * found.by_b + gauge * potentials.finite(g)
    return to_cost * E, to_a, to_b


def _backward(ctx, grad_value, grad_f, grad_g, _grad_error, _grad_iterations):
    return *_to_problem(ctx, *ctx.saved_tensors, grad_value, grad_f, grad_g), *(None,) * 7


def _problem_tangents(ctx, cost, a, b, n, m, f, g, d_cost, d_a, d_b):
    """Tangents of value, f and g, from those of cost and weights."""
    a, b = potentials.weights_of(cost, cost.shape[-2:], a, b, n, m)
    E = density(cost, f, g, ctx.eps)
    return tangents.of_transport(E, a, b, f, g, ctx.eps, ctx.reach, d_cost, d_a, d_b)


def _solution_tangents(ctx, saved, d_cost, d_a, d_b, *_constant):
    return *_problem_tangents(ctx, *saved, d_cost, d_a, d_b), None, None


def _save_points(ctx, inputs, output) -> None:
    x, y, a, b, n, m, _, ctx.kind, ctx.eps, ctx.reach, _, _ = inputs
    ctx.alike = x is y
    cost, _, f, g, error, iterations = output
    ctx.mark_non_differentiable(error, iterations)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, cost, a, b, n, m, f, g)


def _widened(x: Points) -> Points:
    # half precision, which the GPU's kernel reads as it is
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _points_backward(ctx, grad_cost, grad_value, grad_f, grad_g, _grad_error, _grad_iterations):
    x, y, *problem = ctx.saved_tensors
    to_cost, to_a, to_b = _to_problem(ctx, *problem, grad_value, grad_f, grad_g)
    to_cost = grad_cost if to_cost is None else to_cost if grad_cost is None else to_cost + grad_cost
    to_x = to_y = None
    if to_cost is not None:
        wanted = ctx.needs_input_grad
        dtype, x, y = x.dtype, _widened(x), _widened(y)
        if ctx.alike and wanted[0]:  # of one cloud, which both gradients would go to: one product for two
            to_x = _point_gradient(to_cost + to_cost.mT, x, y, ctx.kind).to(dtype)
            return to_x, None, to_a, to_b, *(None,) * 8
        to_x = _point_gradient(to_cost, x, y, ctx.kind).to(dtype) if wanted[0] else None
        to_y = _point_gradient(to_cost.mT, y, x, ctx.kind).to(dtype) if wanted[1] else None
    return to_x, to_y, to_a, to_b, *(None,) * 8


def _points_tangents(ctx, saved, dx, dy, d_a, d_b, *_constant):
    x, y, *problem = saved
    x, y, dx, dy = (None if part is None else _widened(part) for part in (x, y, dx, dy))
    # costs beyond the lengths are infinite
    d_cost = torch.where(problem[0].isfinite(), _cost_tangent(x, y, dx, dy, ctx.kind), 0)
    return d_cost, *_problem_tangents(ctx, *problem, d_cost, d_a, d_b), None, None


@full_precision
def _cost_tangent(x: Points, y: Points, dx: Points | None, dy: Points | None, kind: int) -> Cost:
    """How the costs of one of ``PRODUCTS`` move with the points."""
    dx, dy = torch.zeros_like(x) if dx is None else dx, torch.zeros_like(y) if dy is None else dy
    if kind != PointCost.SQUARE:
        return -(dx @ y.mT + x @ dy.mT)
    # about the centre: what cancels is then no larger than the clouds
    x, y = potentials.centred(x, y)
    along = (x * dx).sum(-1)[..., :, None] + (y * dy).sum(-1)[..., None, :]
    return 2 * (along - dx @ y.mT - x @ dy.mT)


def _point_gradient(weight: Tensor, x: Points, y: Points, kind: int) -> Points:
    """The gradient of ``sum_ij weight_ij C_ij`` to ``x``."""
    if native.refuse(x, devices=("cpu", "cuda")):
        return _dense_point_gradient(weight, x, y, kind)
    return derivatives.run(ops.point_gradient.default, weight, x, y, kind)


@full_precision
def _dense_point_gradient(weight: Tensor, x: Points, y: Points, kind: int) -> Points:
    """The same in PyTorch, where no kernel does it in one pass."""
    if kind != PointCost.SQUARE:
        return -(weight @ y)
    # about the centre: what cancels is then no larger than the clouds
    x, y = potentials.centred(x, y)
    return 2 * (weight.sum(-1)[..., None] * x - weight @ y)


def _save_point_gradient(ctx, inputs, output: Tensor) -> None:
    weight, x, y, ctx.kind = inputs
    ctx.save_for_backward(weight, x, y)


def _point_gradient_backward(ctx, grad: Tensor):
    return *_from_point_gradient(grad, *ctx.saved_tensors, ctx.kind), None


@full_precision
def _from_point_gradient(grad: Points, weight: Tensor, x: Points, y: Points, kind: int):
    """Gradients to weight, x and y."""
    if kind != PointCost.SQUARE:
        return -(grad @ y.mT), None, -(weight.mT @ grad)
    # from the centre: what cancels is then no larger than the clouds
    x, y = potentials.centred(x, y)
    to_weight = 2 * ((grad * x).sum(-1)[..., None] - grad @ y.mT)
    return to_weight, 2 * weight.sum(-1)[..., None] * grad, -2 * weight.mT @ grad


def _point_gradient_tangents(ctx, saved, d_weight, dx, dy, _kind):
    """It is linear in the weight, and in both clouds."""
    weight, x, y = saved
    dx, dy = torch.zeros_like(x) if dx is None else dx, torch.zeros_like(y) if dy is None else dy
    moved = _point_gradient(weight, dx, dy, ctx.kind)
    return moved if d_weight is None else moved + _point_gradient(d_weight, x, y, ctx.kind)


def register_solver(name: str) -> None:
    """Give an operator that takes and returns what ``sinkhorn`` does its shapes, derivative and vmap."""

    @torch.library.register_fake(full_name(name))
    def _(cost, a, b, n, m, start, eps, reach, max_iter, tol):
        one = cost.new_empty(cost.shape[:-2])
        f, g = cost.new_empty(cost.shape[:-1]), cost.new_empty((*cost.shape[:-2], cost.shape[-1]))
        return one, f, g, torch.empty_like(one), one.new_empty(one.shape, dtype=torch.int64)

    derivatives.differentiable(name, _backward, _save, _solution_tangents)
    lead_with_mapped_dimension(name)


if not native.missing:
    register_solver("sinkhorn")

    def _fake_solution(x, y):
        dtype = torch.promote_types(x.dtype, torch.float32)
        costs, one, f, g = (
            x.new_empty(shape, dtype=dtype)
            for shape in ((*x.shape[:-1], y.shape[-2]), x.shape[:-2], x.shape[:-1], y.shape[:-1])
        )
        return costs, one, f, g, torch.empty_like(one), one.new_empty(one.shape, dtype=torch.int64)

    @torch.library.register_fake(full_name("sinkhorn_points"))
    def _(x, y, a, b, n, m, start, cost, eps, reach, max_iter, tol):
        return _fake_solution(x, y)

    @torch.library.register_fake(full_name("sinkhorn_points_carry"))
    def _(x, y, v, a, b, n, m, start, cost, eps, reach, max_iter, tol):
        costs, *solution = _fake_solution(x, y)
        return costs, *solution, costs.new_empty((*x.shape[:-1], v.shape[-1]))

    @torch.library.register_fake(full_name("sinkhorn_carry"))
    def _(cost, v, a, b, n, m, start, eps, reach, max_iter, tol):
        _, *solution = _fake_solution(cost, cost.mT)
        return *solution, cost.new_empty((*cost.shape[:-1], v.shape[-1]))

    @torch.library.register_fake(full_name("point_gradient"))
    def _(weight, x, y, cost):
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    @torch.library.register_fake(full_name("transport_density"))
    def _(cost, f, g, eps):
        return torch.empty_like(cost, memory_format=torch.contiguous_format)

    torch.library.register_kernel(full_name("sinkhorn_carry"), "cpu")(_solve_then_carry)
    torch.library.register_kernel(full_name("sinkhorn_points_carry"), "cpu")(_solve_points_then_carry)
    for _name in ("sinkhorn_carry", "sinkhorn_points_carry"):
        derivatives.without_derivative(_name)
        lead_with_mapped_dimension(_name)
    derivatives.differentiable("sinkhorn_points", _points_backward, _save_points, _points_tangents)
    derivatives.differentiable(
        "point_gradient", _point_gradient_backward, _save_point_gradient, _point_gradient_tangents
    )
    derivatives.differentiable("transport_density", _density_backward, _save_density, _density_tangents)
    for _name in ("sinkhorn_points", "point_gradient", "transport_density"):
        lead_with_mapped_dimension(_name)
