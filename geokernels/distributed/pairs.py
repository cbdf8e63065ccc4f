"""All pairs of two clouds whose rows are spread over ranks: the rows here with all points of the other cloud.

The passes are those of geokernels/kernels/transport_clouds.py, with all points where these are held, and else
with one rank's after another. The blocks' sums are added in the order in which blocks come, which only the
ranks decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._typing import Points, Potential, Weights
from ..kernels import transport_clouds as kernels
from ..kernels.costs import PairCost
from ..kernels.transport_clouds_derivatives import differentiate, multiply
from .ranks import Ranks

VECTOR = 64  # bytes, of AVX-512, and a multiple of all others


@dataclass(frozen=True, eq=False)
class SpreadPairs:
    """All pairs, in units of eps.

    Methods are told which cloud's rows are here, ``x``, or, ``turned``, ``y``, and that potentials and
    whatever else has a row for each point belong to the rows ``here`` or ``there``, of this rank both.

    Attributes:
        ranks: Who has the rows.
        counts: How many each has, of ``x`` and of ``y``.
        kind: A number of :class:`~geokernels.kernels.costs.PairCost`.
        p: The power.
        passes: The implementation, by what the names of its operators begin with.
        own: Arguments that its operators have beyond those of all.
        held: All points of both clouds, or None where they pass round.
    """

    ranks: Ranks
    counts: tuple[Sequence[int], Sequence[int]]
    kind: int
    p: float
    passes: str
    own: tuple
    held: tuple[Points, Points] | None = None

    @property
    def of_cost(self) -> tuple:
        """What the operators are told of the cost."""
        return self.kind, self.p, *self.own

    def holding(self, x: Points, y: Points, memory: float) -> "SpreadPairs":
        """The same with all points held, if they take no more than so many bytes."""
        points = sum(map(sum, self.counts))
        if points * x.shape[1] * x.element_size() > memory:
            return self
        clouds = zip((x, y), self.counts)
        held = tuple(torch.cat(self.ranks.exchange(rows.detach(), count)) for rows, count in clouds)
        return replace(self, held=held)

    def at(self, heat: float, x: Points, y: Points) -> tuple["SpreadPairs", Points, Points]:
        """The pairs, and the rows here, where eps is so many times what it was."""
        power = {PairCost.ROOT: 1.0, PairCost.POWER: 1 / self.p}.get(self.kind, 0.5)
        scale = heat**-power
        held = self.held and tuple(points * scale for points in self.held)
        return replace(self, held=held), x * scale, y * scale

    def meet(self, turned: bool, there: Points, *parts: Tensor | None) -> Iterator[tuple]:
        """Points of the other cloud, a block at a time, and with each what ``parts`` have for its points.

        Args:
            turned: Whether the other cloud is ``x``.
            there: Its points on this rank.
            *parts: ``(M,)`` or ``(M, E)`` for these, or None.
        """
        counts, shared = self.counts[0 if turned else 1], [part for part in parts if part is not None]
        widths = [1 if part.dim() == 1 else part.shape[1] for part in shared]
        columns = [part[:, None] if part.dim() == 1 else part for part in shared]
        if self.held:
            gathered = torch.cat(self.ranks.exchange(torch.cat(columns, 1), counts))
            blocks = iter([(self.held[0 if turned else 1], gathered)])
        else:
            D = there.shape[1]
            passing = self.ranks.ring(torch.cat([there, *columns], 1), counts)
            blocks = ((block[:, :D].contiguous(), block[:, D:]) for block in passing)
        for points, block in blocks:
            found = zip(shared, block.split(widths, 1))
            found = iter([rows[:, 0] if part.dim() == 1 else rows for part, rows in found])
            yield points, *(None if part is None else next(found).contiguous() for part in parts)

    def multiply(self, turned: bool, x, y, f, g, left, right, v) -> Tensor:
        """``sum_j E_ij <left_i, right_j> v_j`` for the rows here, ``(N, E)``; of ones where ``v`` is None."""
        here, there = (y, x) if turned else (x, y)
        width = 1 if v is None else v.shape[1]
        out = here.new_zeros(here.shape[0], width)
        for points, potential, factors, columns in self.meet(turned, there, g, right, v):
            if here.numel() and points.numel():
                columns = torch.ones_like(potential)[:, None] if columns is None else columns
                given = points, f, potential, left, factors, self._whole_vectors(columns)
                out = out + multiply(self.passes, here, *given, *self.of_cost)[:, :width]
        return out

    def _whole_vectors(self, columns: Tensor) -> Tensor:
        """More columns, of zeros, to fill a SIMD vector: the compiled kernel's last part of one is slow."""
        if self.passes != kernels.NATIVE:
            return columns
        lanes = VECTOR // columns.element_size()
        return torch.nn.functional.pad(columns, (0, -columns.shape[1] % lanes))

    def differentiate(self, turned: bool, x, y, f, g, left, right) -> Tensor:
        """``sum_j E_ij <left_i, right_j> dC_ij / dx_i`` for the rows here, ``(N, D)``."""
        here, there = (y, x) if turned else (x, y)
        out = torch.zeros_like(here)
        for points, potential, factors in self.meet(turned, there, g, right):
            if here.numel() and points.numel():
                out = out + differentiate(
                    self.passes, here, points, f, potential, left, factors, *self.of_cost
                )
        return out

    def soft_minimum(self, turned: bool, x, y, potential: Potential, weight: Weights) -> Potential:
        """A half-step of the rows here, wherever the potential of the points there is."""
        here, there = (y, x) if turned else (x, y)
        log_sums = here.new_full((here.shape[0],), -torch.inf)
        for points, own, mass in self.meet(turned, there, potential, weight):
            if here.numel() and bool((mass > 0).any()):
                found = kernels.soft_minimum(self.passes, here, points, own, mass, *self.of_cost)
                log_sums = torch.logaddexp(log_sums, -found)
        return -log_sums
