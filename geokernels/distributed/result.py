"""What sharded transport returns: this rank's rows of a solved problem, and products with its plan."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._checks import require_float, require_rank
from ..ops.transport_result import Transport


class ShardedTransport(Transport):
    """A solved entropic transport problem whose rows are spread over ranks.

    A :class:`geokernels.Transport` of which every rank has its own rows: ``f`` ``(N,)`` and ``g`` ``(M,)``
    are the potentials of the points that were given here, in their order. ``value``, ``error`` and
    ``iterations`` are the same on every rank, to the bit.

    ``apply``, ``apply_t`` and ``barycentric`` take and return this rank's rows, and every rank has to call
    them, and to follow gradients back through them, in the same order. A loss of ``value`` counts once: every
    rank takes the same one. A loss of potentials or products is each rank's own, and all of them together are
    differentiated. Gradients are of the first order, and reach this rank's points and weights. ``plan()`` is
    not offered.
    """

    def __repr__(self) -> str:
        ranks = self._pairs.pairs.ranks
        return (
            f"ShardedTransport(value={self.value}, error={self.error}, iterations={self.iterations}, "
            f"rank {ranks.rank} of {ranks.size}: N={self.f.shape[0]}, M={self.g.shape[0]})"
        )

    def apply(self, v: Tensor) -> Tensor:
        """``P @ v``: this rank's rows of it, from its rows of ``v``, ``(M, E)`` or ``(M,)``."""
        return self._alike("apply", "v", v, super().apply)

    def apply_t(self, u: Tensor) -> Tensor:
        """``P^T @ u``: this rank's rows of it, from its rows of ``u``, ``(N, E)`` or ``(N,)``."""
        return self._alike("apply_t", "u", u, super().apply_t)

    def barycentric(self, v: Tensor) -> Tensor:
        """``P v / rowsum(P)``: where each point of the first cloud that is here goes, on average."""
        return self._alike("barycentric", "v", v, super().barycentric)

    def _alike(self, step: str, name: str, vector: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
        like, letter = (self.f, "N") if name == "u" else (self.g, "M")

        def describe() -> tuple[dict, dict, None]:
            require_rank(name, vector, 1, f"({letter},) or ({letter}, E)")
            require_float(name, vector)
            if vector.dim() > 2 or vector.shape[0] != like.shape[0]:
                size = like.shape[0]
                raise ValueError(
                    f"{name} must have this rank's {size} rows, as ({size},) or ({size}, E), got "
                    f"{tuple(vector.shape)}"
                )
            if vector.device != like.device:
                raise TypeError(f"{name} must be on the device of x_rows, {like.device}, got {vector.device}")
            alike = {
                "dtype": str(vector.dtype),
                f"the shape of {name} beyond its rows": list(vector.shape[1:]),
                f"whether {name} or the problem requires a gradient": torch.is_grad_enabled()
                and (vector.requires_grad or like.requires_grad),
            }
            return alike, {}, None

        self._pairs.pairs.ranks.agree(step, describe)
        return product(vector)
