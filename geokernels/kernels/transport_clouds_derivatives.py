r"""Derivatives of transport between large clouds, for every implementation of its passes over the pairs.

An implementation, ``passes``, is the prefix of three operators, ``sinkhorn_clouds``, ``multiply_clouds`` and
``differentiate_clouds``; the derivative of each is made of calls of the others. What says which cost,
``of_cost``, are the arguments ``cost, p`` and any of the implementation's own. Where the points of a cloud
are spread over processes, ``passes`` is an object that has the operators, and the sums over all points.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from .._checks import values_can_be_read
from ..reference import potentials
from . import adjoint, derivatives
from ._ops import ops
from .costs import PairCost

MOST_STEPS = 1000  # of the conjugate gradients


class SpreadPasses(Protocol):
    """An implementation between clouds whose points are spread over processes, each of which has some rows.

    Its operators have the names of the compiled ones, and meet the rows that are here with all points of the
    other cloud.
    """

    def total(self, part: Tensor) -> Tensor:
        """The sum of ``part`` ``(N,)`` over the points of all processes, ``(1,)``."""

    def dot(self, u: Tensor, v: Tensor) -> Tensor:
        """The same of ``u * v``."""

    def ended(self, going: Tensor) -> bool:
        """Whether a loop of steps ends, which all processes say alike."""


Passes = str | SpreadPasses


def operator(passes: Passes, name: str) -> Callable:
    """An operator of the implementation ``passes``, or the adjoint that is made of them."""
    if not isinstance(passes, str):
        return getattr(passes, name)
    return partial(derivatives.run, getattr(ops, passes + name).default)


def multiply(passes: Passes, x, y, f, g, left, right, v, *of_cost) -> Tensor:
    """``sum_j E_ij <left_i, right_j> v_j``, ``(..., N, E)``; without left and right, ``sum_j E_ij v_j``."""
    if left is not None and left.shape[-1] == 1:
        return left * multiply(passes, x, y, f, g, None, None, right * v, *of_cost)
    # one vector may go with all problems
    v = v.expand(*x.shape[:-2], *v.shape[-2:])
    return operator(passes, "multiply_clouds")(x, y, f, g, left, right, v, *of_cost)


def differentiate(passes: Passes, x, y, f, g, left, right, *of_cost) -> Tensor:
    """``sum_j E_ij <left_i, right_j> dC_ij / dx_i``, ``(..., N, D)``."""
    kind = of_cost[0]
    if kind == PairCost.DOT:
        return -multiply(passes, x, y, f, g, left, right, y, *of_cost)
    if kind == PairCost.SQUARE:
        with_ones = torch.cat([y, torch.ones_like(y[..., :1])], -1)
        sums = multiply(passes, x, y, f, g, left, right, with_ones, *of_cost)
        return x * sums[..., -1:] - sums[..., :-1]
    return operator(passes, "differentiate_clouds")(x, y, f, g, left, right, *of_cost)


def present(potential: Tensor, count: Tensor | None) -> Tensor:
    """The potential, -inf beyond ``count``: such a point meets nobody."""
    if count is None:
        return potential
    beyond = torch.arange(potential.shape[-1], device=potential.device) >= count[..., None]
    return potential.masked_fill(beyond, -math.inf)


def pairwise(left: Tensor, right: Tensor) -> Tensor:
    """Factors of the product of two inner products, ``(..., N, R E)``."""
    return (left[..., :, None] * right[..., None, :]).flatten(-2)


def save_product(ctx, inputs, output) -> None:
    """Keep what the derivatives of ``multiply_clouds`` need."""
    tensors, ctx.of_cost = inputs[:7], inputs[7:]
    ctx.save_for_backward(*tensors, output)


def product_backward(passes: Passes, ctx, grad: Tensor):
    """Gradients to the inputs of ``multiply_clouds``: sums of the same form."""
    x, y, f, g, left, right, v, out = ctx.saved_tensors
    of_cost = ctx.of_cost
    to_x, to_y, to_f, to_g, to_left, to_right, to_v, *_ = (None,) * 9
    wanted = ctx.needs_input_grad
    if wanted[3] or wanted[6]:
        to_v = multiply(passes, y, x, g, f, right, left, grad, *of_cost)
        to_g = (to_v * v).sum(-1)
    if wanted[2]:
        to_f = (out * grad).sum(-1)
    if wanted[4]:
        to_left = multiply(passes, x, y, f, g, grad, v, right, *of_cost)
    if wanted[5]:
        to_right = multiply(passes, y, x, g, f, v, grad, left, *of_cost)
    if left is not None:
        grad, v = pairwise(left, grad), pairwise(right, v)
    if wanted[0]:
        to_x = -differentiate(passes, x, y, f, g, grad, v, *of_cost)
    if wanted[1]:
        to_y = -differentiate(passes, y, x, g, f, v, grad, *of_cost)
    return to_x, to_y, to_f, to_g, to_left, to_right, to_v, *(None for _ in of_cost)


def save_solution(ctx, inputs, output) -> None:
    """Keep what the derivatives of ``sinkhorn_clouds`` need."""
    x, y, a, b, n, m, _, kind, p, ctx.reach, _, _, _, _, *own = inputs
    ctx.of_cost = kind, p, *own
    _, f, g, error, iterations = output
    ctx.mark_non_differentiable(error, iterations)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, a, b, n, m, f, g)


def solution_backward(passes: Passes, ctx, grad_value, grad_f, grad_g, _grad_error, _grad_iterations):
    """:func:`geokernels.reference.potentials.gradients`, as sums over pairs that are never all there."""
    x, y, a, b, n, m, f, g = ctx.saved_tensors
    if grad_value is None and grad_f is None and grad_g is None:
        return (None,) * (12 + len(ctx.of_cost))
    whole_a, whole_b = potentials.weights_of(x, (x.shape[-2], y.shape[-2]), a, b, n, m)
    pairs = x, y, present(f, n), present(g, m)
    left, right, to_a, to_b = [], [], torch.zeros_like(f), torch.zeros_like(g)
    # of which sums are taken over all points
    total = (lambda part: part) if isinstance(passes, str) else passes.total
    if grad_value is not None:
        scale = grad_value[..., None]
        left, right = [scale * whole_a], [whole_b]
        to_a = scale * potentials.value_to_weight(f, total(whole_b), 1.0, ctx.reach)
        to_b = scale * potentials.value_to_weight(g, total(whole_a), 1.0, ctx.reach)
    if grad_f is not None or grad_g is not None:
        # what lies beyond the lengths is constant
        grad_f = torch.zeros_like(f) if grad_f is None else grad_f.masked_fill(pairs[2] == -math.inf, 0)
        grad_g = torch.zeros_like(g) if grad_g is None else grad_g.masked_fill(pairs[3] == -math.inf, 0)
        gauge = f.new_zeros((*f.shape[:-1], 1))
        if ctx.reach == math.inf:
            gauge = potentials.gauge_of(*map(total, (grad_f, grad_g, whole_a, whole_b)))
            grad_f, grad_g = grad_f - whole_a * gauge, grad_g + whole_b * gauge
        kind, p, *own = ctx.of_cost
        of_rows, of_columns, by_a, by_b = operator(passes, "solve_adjoint_clouds")(
            *pairs, whole_a, whole_b, grad_f, grad_g, kind, p, ctx.reach, *own
        )
        left, right = [*left, of_rows, whole_a], [*right, whole_b, of_columns]
        to_a, to_b = to_a - by_a - gauge * f, to_b - by_b + gauge * g
    left, right, to_x, to_y = torch.stack(left, -1), torch.stack(right, -1), None, None
    if ctx.needs_input_grad[0]:
        to_x = differentiate(passes, *pairs, left, right, *ctx.of_cost)
    if ctx.needs_input_grad[1]:
        to_y = differentiate(passes, y, x, *reversed(pairs[2:]), right, left, *ctx.of_cost)
    to_weights = None if a is None else to_a, None if b is None else to_b
    return to_x, to_y, *to_weights, *(None,) * (8 + len(ctx.of_cost))


def solve_adjoint(x, y, f, g, a, b, grad_f, grad_g, reach, passes: Passes, *of_cost):
    r"""The system of adjoint.py, by passes over the pairs.

    Returns:
        $p / \rho$, $q / \kappa$, $E\,(q / \kappa)$ and $E^\top (p / \rho)$.
    """

    def where(potential: Tensor, unsolved: Tensor | None) -> Tensor:
        # the passes skip points that meet nobody
        return potential if unsolved is None else potential.masked_fill(~unsolved, -math.inf)

    def times(v: Tensor, unsolved: Tensor | None) -> Tensor:
        return multiply(passes, x, y, where(f, unsolved), g, None, None, v[..., None], *of_cost)[..., 0]

    def times_t(u: Tensor, unsolved: Tensor | None) -> Tensor:
        return multiply(passes, y, x, where(g, unsolved), f, None, None, u[..., None], *of_cost)[..., 0]

    alike = () if isinstance(passes, str) else (passes.dot, passes)
    *parts, left = adjoint.solve(a, b, grad_f, grad_g, times, times_t, reach, MOST_STEPS, *alike)
    if values_can_be_read(left) and bool((left > 1).any()):
        residual = left.max().sqrt().item() * torch.finfo(left.dtype).eps ** 0.75
        warnings.warn(
            f"the gradient through the potentials is inexact: after {MOST_STEPS} steps of conjugate "
            f"gradients the relative residual is {residual:.1e}; a larger eps makes the system easier",
            RuntimeWarning,
            stacklevel=2,
        )
    return tuple(parts)
