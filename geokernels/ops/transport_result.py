"""What the transport operators return: a solved problem, its plan and products with it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._typing import Potential, Weights
from ..reference.potentials import Pairs
from ..reference.problem import Problem


@dataclass(frozen=True, eq=False, repr=False)
class Transport:
    """A solved entropic transport problem; a batch of them when there are batch dimensions.

    The potentials ``f`` ``(..., N)`` and ``g`` ``(..., M)`` are such that the plan is
    ``a_i b_j exp((f_i + g_j - C_ij) / eps)``. Without ``reach`` they are fixed up to a constant that one
    gains and the other loses; these have ``<a, f> = <b, g>``. Beyond the lengths of a ragged batch they
    are 0.

    Attributes:
        value: Dual value, ``(...)``.
        f: Potential of the first cloud, ``(..., N)``.
        g: Potential of the second, ``(..., M)``.
        error: L1 distance of the plan's marginals from their targets, both sides together, ``(...)``.
        iterations: How many were made, ``(...)``, int64; each has two half-steps.

    Everything but ``error`` and ``iterations`` is differentiable, to cost (or points) and weights: the value
    by the envelope theorem, which is exact at convergence; the potentials, and with them the plan and its
    products, by the implicit function theorem.
    """

    value: Tensor
    f: Potential
    g: Potential
    error: Tensor
    iterations: Tensor
    _pairs: Pairs
    _problem: Problem

    @property
    def converged(self) -> Tensor:
        """Whether ``error`` is at most ``tol``, ``(...)``, bool."""
        return self.error <= self._problem.tol

    def __repr__(self) -> str:
        return (
            f"Transport(value={self.value}, error={self.error}, iterations={self.iterations}, "
            f"N={self.f.shape[-1]}, M={self.g.shape[-1]})"
        )

    def _weights(self) -> tuple[Weights, Weights]:
        given = (self._problem.a, self.f), (self._problem.b, self.g)
        a, b = (torch.full_like(f, 1 / f.shape[-1]) if w is None else w for w, f in given)
        return a[..., None], b[..., None]

    def plan(self) -> Tensor:
        """The coupling P, ``(..., N, M)``."""
        a, b = self._weights()
        return a * b.mT * self._pairs.density(self.f, self.g)

    def apply(self, v: Tensor) -> Tensor:
        """``P @ v`` for columns ``v`` ``(..., M, E)``, or one column ``(..., M)``."""
        a, b = self._weights()
        return _on_columns(lambda columns: a * self._pairs.times(self.f, self.g, b * columns), v, self.g)

    def apply_t(self, u: Tensor) -> Tensor:
        """``P^T @ u`` for columns ``u`` ``(..., N, E)``, or one column ``(..., N)``."""
        a, b = self._weights()
        return _on_columns(lambda columns: b * self._pairs.times_t(self.f, self.g, a * columns), u, self.f)

    def barycentric(self, v: Tensor) -> Tensor:
        """``P v / rowsum(P)``: where each point of the first cloud goes, on average.

        A point of zero weight goes where its potential sends it; one that reaches nobody gives 0.
        """
        _, b = self._weights()

        def average(columns: Tensor) -> Tensor:
            masses = b.expand(*columns.shape[:-1], 1)
            sums = self._pairs.times(self.f, self.g, torch.cat([b * columns, masses], -1))
            total = sums[..., -1:]
            return torch.where(total > 0, sums[..., :-1] / total.masked_fill(total == 0, 1), 0)

        return _on_columns(average, v, self.g)


def _on_columns(product: Callable[[Tensor], Tensor], v: Tensor, like: Potential) -> Tensor:
    """A product with the columns of ``v``, in the precision of ``like``, returned in the dtype of ``v``."""
    columns, size = v[..., None] if v.dim() == like.dim() else v, like.shape[-1]
    if columns.dim() < 2 or columns.shape[-2] != size:
        raise ValueError(
            f"the vector must have {size} rows, as (..., {size}) or (..., {size}, E), got {tuple(v.shape)}"
        )
    with torch.autocast(like.device.type, enabled=False):
        out = product(columns.to(like.dtype))
    return (out[..., 0] if v.dim() == like.dim() else out).to(v.dtype)
