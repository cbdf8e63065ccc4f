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

from .._typing import Cost, Points, Potential
from ..reference import potentials
from ..reference.problem import Problem, Solution
from ..reference.transport import pairwise_cost
from . import native, sizes
from .costs import PairCost
from .transport_clouds_derivatives import (
    multiply,
    operator,
    present,
    solve_adjoint,
)
from .transport_clouds_registration import register

NATIVE = ""  # what the names of its operators begin with


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

        def pairs(u: Points, v: Points, kind: int, scale: float) -> Pairs:
            return cls(u * scale, v * scale, n, m, kind, p, eps, dense, passes, own)

        if cost == "euclidean":
            return pairs(x, y, PairCost.ROOT, 1 / eps)
        if cost == "lp":
            return pairs(x, y, PairCost.POWER, eps ** (-1 / p))
        if cost == "sqeuclidean":
            return pairs(*potentials.centred(x, y), PairCost.SQUARE, math.sqrt(2 / eps))
        if cost == "dot":
            return pairs(x, y, PairCost.DOT, math.sqrt(1 / eps))
        # 1 - cos is a product too, with one more coordinate
        u, v = potentials.directions(x), potentials.directions(y)
        u = torch.cat([u, -torch.ones_like(u[..., :1])], -1)
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        return pairs(u, v, PairCost.DOT, math.sqrt(1 / eps))

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
        return solve_adjoint(x, y, f, g, a, b, grad_f, grad_g, reach, NATIVE, cost, p)

    register(NATIVE)
