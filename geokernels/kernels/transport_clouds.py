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
from . import native, sizes
from .transport import MOST_POINTS
from .transport_clouds_derivatives import (
    DOT,
    POWER,
    ROOT,
    SQUARE,
    multiply,
    operator,
    present,
    solve_adjoint,
)
from .transport_clouds_registration import register

NATIVE = ""  # what the names of its operators begin with


def are_large(x: Points, y: Points) -> bool:
    """Whether a matrix of all pairs would not stay in the cache, and is better not made at all."""
    return sizes.exceed(MOST_POINTS, x.shape[-2], y.shape[-2])


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of two clouds; see :class:`geokernels.reference.potentials.Pairs`.

    Attributes:
        x: Points ``(..., N, D)`` such that the cost is in units of ``eps``.
        y: Points ``(..., M, D)``, likewise.
        n: How many points of ``x`` count, ``(...)``, or None.
        m: The same for ``y``.
        kind: ``DOT``, ``SQUARE``, ``ROOT`` or ``POWER``.
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
    def of(
        cls, x, y, n, m, cost: str, p: float, eps: float, pairwise_cost: Callable, passes=NATIVE, own=()
    ) -> "Pairs":
        """The pairs of ``x`` and ``y`` under the cost of that name."""

        def dense() -> Cost:
            return pairwise_cost(x, y, cost, p)

        def pairs(u: Points, v: Points, kind: int, scale: float) -> Pairs:
            return cls(u * scale, v * scale, n, m, kind, p, eps, dense, passes, own)

        if cost == "euclidean":
            return pairs(x, y, ROOT, 1 / eps)
        if cost == "lp":
            return pairs(x, y, POWER, eps ** (-1 / p))
        if cost == "sqeuclidean":
            return pairs(*potentials.centred(x, y), SQUARE, math.sqrt(2 / eps))
        if cost == "dot":
            return pairs(x, y, DOT, math.sqrt(1 / eps))
        # 1 - cos is a product too, with one more coordinate
        u, v = potentials.directions(x), potentials.directions(y)
        u = torch.cat([u, -torch.ones_like(u[..., :1])], -1)
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        return pairs(u, v, DOT, math.sqrt(1 / eps))

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
    of_pairs = pairs.x, pairs.y, a, b, pairs.n, pairs.m, start, pairs.kind, pairs.p
    settings = reach / eps, hot, cooling, max_iter, tol
    run = operator(pairs.passes, "sinkhorn_clouds")
    value, f, g, error, iterations = run(*of_pairs, *settings, *pairs.own)
    return value * eps, f * eps, g * eps, error, iterations


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
