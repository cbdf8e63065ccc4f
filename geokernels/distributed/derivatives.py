"""Derivatives between clouds whose rows are spread over ranks: those of one process, with sums over ranks.

What comes from above is each rank's own to what it holds rows of, and the same on every rank to the value,
which all ranks have. First order.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from .._first_order import first_order
from .._typing import Points, Potential, Weights
from ..kernels.transport_clouds_derivatives import product_backward, solution_backward, solve_adjoint
from ..reference.problem import Problem, Solution
from .pairs import SpreadPairs
from .ranks import Ranks

SINKHORN = "sinkhorn of rows spread over ranks"

Solve = Callable[[SpreadPairs, Problem, Points, Points, Weights, Weights], Solution]


class _Passes:
    """What geokernels/kernels/transport_clouds_derivatives.py calls ``SpreadPasses``, at the rows here."""

    def __init__(self, pairs: SpreadPairs, x: Points, y: Points):
        self.pairs, self.x, self.y = pairs, x, y

    def multiply_clouds(self, here: Points, there: Points, f, g, left, right, v, *of_cost) -> Tensor:
        return self.pairs.multiply(here is self.y, self.x, self.y, f, g, left, right, v)

    def differentiate_clouds(self, here: Points, there: Points, f, g, left, right, *of_cost) -> Tensor:
        return self.pairs.differentiate(here is self.y, self.x, self.y, f, g, left, right)

    def solve_adjoint_clouds(self, x, y, f, g, a, b, grad_f, grad_g, kind, p, reach) -> tuple[Tensor, ...]:
        return solve_adjoint(x, y, f, g, a, b, grad_f, grad_g, reach, self, kind, p)

    def total(self, part: Tensor) -> Tensor:
        return self.pairs.ranks.total(part.double().sum()[None]).to(part.dtype)

    def dot(self, u: Tensor, v: Tensor) -> Tensor:
        return self.total(u.double() * v.double()).to(u.dtype)

    def ended(self, going: Tensor) -> bool:
        # made of totals: the same on every rank
        return not bool(going.any())


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pairs, turned, x, y, f, g, left, right, v):
        out = pairs.multiply(turned, x, y, f, g, left, right, v)
        ctx.pairs, ctx.turned = pairs, turned
        ctx.save_for_backward(x, y, f, g, left, right, v, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        pairs, turned, needs = ctx.pairs, ctx.turned, ctx.needs_input_grad[2:]
        pairs.ranks.agree("the gradient of a product with the plan", lambda: ({}, {}, None))

        def gradients(grad: Tensor, x: Points, y: Points, *others) -> tuple:
            context = SimpleNamespace(
                saved_tensors=(*_in_order(turned, x, y), *others),
                needs_input_grad=(*_in_order(turned, *needs[:2]), *needs[2:]),
                of_cost=(pairs.kind, pairs.p),
            )
            here, there, *rest = product_backward(_Passes(pairs, x, y), context, grad)[:7]
            return *_in_order(turned, here, there), *rest

        return None, None, *first_order(SINKHORN, gradients, grad, *ctx.saved_tensors)


class _Solution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, solve, pairs, problem, x, y, a, b):
        value, f, g, error, iterations = solve(pairs, problem, x, y, a, b)
        ctx.pairs, ctx.reach = pairs, problem.reach / problem.eps
        ctx.mark_non_differentiable(error, iterations)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y, a, b, f, g)
        return value, f, g, error, iterations

    @staticmethod
    def backward(ctx, *grads):
        pairs, needs, reach, grads = ctx.pairs, ctx.needs_input_grad[3:], ctx.reach, grads[:3]
        given = [grad is not None for grad in grads]
        told, _ = pairs.ranks.agree("the gradient of sinkhorn", lambda: ({}, {"given": given}, None))
        *points_and_weights, f, g = ctx.saved_tensors
        # what one rank has a gradient to, all have
        wanted = [any(one["given"][k] for one in told) for k in range(3)]
        grads = [
            torch.zeros_like(like) if grad is None and some else grad
            for grad, some, like in zip(grads, wanted, (f.new_zeros(()), f, g))
        ]

        def gradients(x, y, a, b, f, g, *grads) -> tuple:
            context = SimpleNamespace(
                saved_tensors=(x, y, a, b, None, None, f, g),
                needs_input_grad=needs,
                of_cost=(pairs.kind, pairs.p),
                reach=reach,
            )
            return solution_backward(_Passes(pairs, x, y), context, *grads, None, None)[:4]

        return None, None, None, *first_order(SINKHORN, gradients, *points_and_weights, f, g, *grads)


class _Mass(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ranks, weight):
        ctx.size = weight.shape[0]
        return ranks.total(weight.double().sum()).to(weight.dtype)

    @staticmethod
    def backward(ctx, grad):
        return None, grad.expand(ctx.size)


def _in_order(turned: bool, first, second) -> tuple:
    return (second, first) if turned else (first, second)


def product(pairs: SpreadPairs, turned: bool, x: Points, y: Points, f, g, v: Tensor) -> Tensor:
    """``sum_j E_ij v_j`` for the rows here, ``(N, E)``; gradients reach points, potentials and ``v``."""
    return _Product.apply(pairs, turned, x, y, f, g, None, None, v)


def solution(
    solve: Solve, pairs: SpreadPairs, problem: Problem, x: Points, y: Points, a: Weights, b: Weights
) -> Solution:
    """What ``solve`` finds, in units of eps; gradients reach points and weights, which are this rank's."""
    return Solution(*_Solution.apply(solve, pairs, problem, x, y, a, b))


def mass(ranks: Ranks, weight: Weights) -> Tensor:
    """The sum of the weights of all ranks, ``()``; gradients reach those here."""
    return _Mass.apply(ranks, weight)


class ResultPairs:
    """The pairs of a solved problem; see :class:`geokernels.reference.potentials.Pairs`."""

    def __init__(self, pairs: SpreadPairs, x: Points, y: Points, eps: float):
        self.pairs, self.x, self.y, self.eps = pairs, x, y, eps

    def density(self, f: Potential, g: Potential) -> Tensor:
        """Nothing: refused."""
        raise NotImplementedError(
            "plan() would hold every pair of rows that are spread over ranks; apply, apply_t and barycentric "
            "multiply by it"
        )

    def times(self, f: Potential, g: Potential, v: Tensor) -> Tensor:
        """``density @ v``, of the rows here."""
        return product(self.pairs, False, self.x, self.y, f / self.eps, g / self.eps, v)

    def times_t(self, f: Potential, g: Potential, u: Tensor) -> Tensor:
        """``density^T @ u``, of the rows here."""
        return product(self.pairs, True, self.x, self.y, g / self.eps, f / self.eps, u)
