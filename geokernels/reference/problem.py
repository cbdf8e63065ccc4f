"""A problem of entropic transport as solvers are given it, and what they give back."""

import math
from typing import NamedTuple

from torch import Tensor

from .._typing import Potential, Weights

MAX_ITER, TOL = 1000, 1e-5  # the defaults of every transport operator


class Problem(NamedTuple):
    """All of a transport problem but its points or costs.

    Attributes:
        eps: Regularisation, in the unit of the costs.
        reach: Marginal penalty, likewise; ``math.inf`` when the marginals are hard constraints.
        a: Weights of the rows, ``(..., N)``, or None for uniform ones.
        b: Weights of the columns, ``(..., M)``, likewise.
        lengths: How many rows and how many columns count, int64 ``(...)`` each, or None for all. Beyond them
            costs must be +inf and weights 0.
        max_iter: Most pairs of half-steps.
        tol: L1 marginal error at which a problem stops.
        init: Potential of the columns to start from, ``(..., M)``, or None for 0. No gradient.
        anneal: How many times ``eps`` comes first, at least 1, and the ratio by which it comes down; or None.
        cost: Name of the cost between points, where points are given.
        p: Exponent of the cost ``"lp"``.
    """

    eps: float
    reach: float = math.inf
    a: Weights | None = None
    b: Weights | None = None
    lengths: tuple[Tensor, Tensor] | None = None
    max_iter: int = MAX_ITER
    tol: float = TOL
    init: Potential | None = None
    anneal: tuple[float, float] | None = None
    cost: str = "sqeuclidean"
    p: float = 2.0

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Weights, lengths and start, in the order of every solving operator."""
        n, m = self.lengths or (None, None)
        return self.a, self.b, n, m, self.init

    def numbers(self) -> tuple[float, float, int, float]:
        """``eps``, ``reach``, ``max_iter`` and ``tol``, likewise."""
        return self.eps, self.reach, self.max_iter, self.tol


class Solution(NamedTuple):
    """What a solver found.

    Attributes:
        value: Dual value, ``(...)``.
        f: Potential of the rows, ``(..., N)``.
        g: Potential of the columns, ``(..., M)``.
        error: L1 distance of the plan's marginals from what they should be, ``(...)``.
        iterations: Pairs of half-steps made, int64 ``(...)``.
    """

    value: Tensor
    f: Potential
    g: Potential
    error: Tensor
    iterations: Tensor
