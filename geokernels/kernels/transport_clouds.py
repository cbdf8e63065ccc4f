r"""Transport between large point clouds: the passes over their pairs.

Nothing here forms a matrix of all pairs. The operators take clouds whose cost is in units of ``eps``, of one
of four kinds; :meth:`Pairs.of` brings every cost to that form. With $E_{ij} = \exp(f_i + g_j - C_{ij})$ they
compute

* ``sinkhorn``: the solution,
* ``multiply``: $\sum_j E_{ij} \langle l_i, r_j\rangle v_j$, whose derivatives are sums of the same form,
* ``differentiate``: $\sum_j E_{ij} \langle l_i, r_j\rangle\, \partial C_{ij} / \partial x_i$.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._typing import Cost, Points, Potential, Weights
from ..reference import potentials
from ..reference.problem import Problem, Solution
from ..reference.transport import pairwise_cost
from . import native, sizes
from ._ops import full_name
from .costs import PairCost
from .transport_clouds_derivatives import (
    multiply,
    operator,
    present,
    solve_adjoint,
)
from .transport_clouds_registration import register

NATIVE = ""  # what the names of its operators begin with
UNDAMPED = 1e30  # a penalty beside which eps is a rounding, in float32 too


def are_large(x: Points, y: Points) -> bool:
    """Whether a matrix of all pairs would not stay in the cache, and is better not made at all."""
    return sizes.exceed(sizes.NATIVE.points, x.shape[-2], y.shape[-2])


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of two clouds; see :class:`geokernels.reference.potentials.Pairs`.

    Attributes:
        x: Points ``(..., N, D)`` such that the cost is in units of ``eps``.
        y: Points ``(..., M, D)``, likewise.
        n: How many points of ``x`` count, ``(...)``, or None.
        m: The same for ``y``.
        kind: A number of :class:`~geokernels.kernels.costs.PairCost`.
        p: The power.
        eps: Regularisation, the unit of the potentials that come and go.
        dense: Makes the costs of all pairs, for a plan that was asked for.
        passes: The implementation, by what the names of its operators begin with.
        own: Arguments that its operators have beyond those of all.
    """

    x: Points
    y: Points
    n: Tensor | None
    m: Tensor | None
    kind: int
    p: float
    eps: float
    dense: Callable[[], Cost]
    passes: str = NATIVE
    own: tuple = ()

    @classmethod
    def of(cls, x: Points, y: Points, problem: Problem, passes: str = NATIVE, own: tuple = ()) -> "Pairs":
        """The pairs of ``x`` and ``y`` under the cost of the problem."""
        cost, p, eps = problem.cost, problem.p, problem.eps
        n, m = problem.lengths or (None, None)

        def dense() -> Cost:
            return pairwise_cost(x, y, cost, p)

        u, v = potentials.centred(x, y) if cost == "sqeuclidean" else (x, y)
        u, v, kind = in_units_of_eps(u, v, cost, p, eps)
        return cls(u, v, n, m, kind, p, eps, dense, passes, own)

    def density(self, f: Potential, g: Potential) -> Tensor:
        """See :class:`geokernels.reference.potentials.Pairs`."""
        return potentials.density(self.dense(), present(f, self.n), present(g, self.m), self.eps)

    def times(self, f: Potential, g: Potential, v: Tensor) -> Tensor:
        """See :class:`geokernels.reference.potentials.Pairs`."""
        f, g = present(f / self.eps, self.n), present(g / self.eps, self.m)
        return multiply(self.passes, self.x, self.y, f, g, None, None, v, self.kind, self.p, *self.own)

    def times_t(self, f: Potential, g: Potential, u: Tensor) -> Tensor:
        """See :class:`geokernels.reference.potentials.Pairs`."""
        f, g = present(f / self.eps, self.n), present(g / self.eps, self.m)
        return multiply(self.passes, self.y, self.x, g, f, None, None, u, self.kind, self.p, *self.own)


def in_units_of_eps(x: Points, y: Points, cost: str, p: float, eps: float) -> tuple[Points, Points, int]:
    """Both clouds as the operators take them, under a cost by its name, and its :class:`.costs.PairCost`."""
    if cost == "euclidean":
        kind, scale = PairCost.ROOT, 1 / eps
    elif cost == "lp":
        kind, scale = PairCost.POWER, eps ** (-1 / p)
    elif cost == "sqeuclidean":
        kind, scale = PairCost.SQUARE, math.sqrt(2 / eps)
    else:
        kind, scale = PairCost.DOT, math.sqrt(1 / eps)
    if cost == "cosine":
        # 1 - cos is a product too, with one more coordinate
        x, y = potentials.directions(x), potentials.directions(y)
        x = torch.cat([x, -torch.ones_like(x[..., :1])], -1)
        y = torch.cat([y, torch.ones_like(y[..., :1])], -1)
    return x * scale, y * scale, kind


def soft_minimum(passes: str, x: Points, y: Points, g: Potential, b: Weights, *of_cost) -> Potential:
    r"""$-\log \sum_j b_j \exp(g_j - C_{ij})$, ``(..., N)``: a half-step of the rows, wherever ``g`` is.

    What a solver has for f after one pair of half-steps from ``g`` without weights of its own, and under a
    penalty that damps nothing. That takes two passes: near a solution :func:`multiply` needs one.
    """
    kind, p, *own = of_cost
    settings = UNDAMPED, 1.0, 0.5, 1, 0.0
    run = operator(passes, "sinkhorn_clouds")
    return run(x, y, None, b, None, None, g, kind, p, *settings, *own)[1]


def solve(pairs: Pairs, problem: Problem) -> Solution:
    """Solve it; gradients reach points and weights."""
    eps = problem.eps
    start = None if problem.init is None else problem.init / eps
    hot, cooling = problem.anneal or (1.0, 0.5)
    of_pairs = pairs.x, pairs.y, problem.a, problem.b, pairs.n, pairs.m, start, pairs.kind, pairs.p
    settings = problem.reach / eps, hot, cooling, problem.max_iter, problem.tol
    run = operator(pairs.passes, "sinkhorn_clouds")
    value, f, g, error, iterations = run(*of_pairs, *settings, *pairs.own)
    return Solution(value * eps, f * eps, g * eps, error, iterations)


if not native.missing:
    # an operator of its own, as the number of steps depends on the data
    @torch.library.custom_op(full_name("solve_adjoint_clouds"), mutates_args=())
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
        return solve_adjoint(x, y, f, g, a, b, grad_f, grad_g, reach, NATIVE, cost, p)

    register(NATIVE)
