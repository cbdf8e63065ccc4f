"""Sinkhorn's iteration between clouds whose rows are spread over ranks.

Every rank moves the potentials of its own rows, by sums over all points of the other cloud. As in
csrc/cpu/transport_clouds_iteration.h these are taken about the last potentials, and are then near 1; where
one is not, all ranks make the half-step anew from nothing. Half-steps are plain, as on a GPU. What decides
how the loop goes on is a sum over the ranks, the same everywhere. Costs, potentials and the penalty are in
units of eps.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._typing import Points, Potential, Weights
from ..reference import potentials
from ..reference.problem import Problem, Solution
from .pairs import SpreadPairs
from .value import Finished, finish

# sums within are far from what overflows, and lose nothing to underflow:
# csrc/cpu/transport_clouds_sweep_kernel.h
TRUST = {torch.float32: 1e13, torch.float64: 1e90}


@dataclass
class Side:
    """The rows of a cloud that are here.

    Attributes:
        weight: ``(N,)``.
        potential: ``(N,)``.
        raw: The soft minimum that the potential was made of, about which sums are taken; None before the
            first.
    """

    weight: Weights
    potential: Potential
    raw: Potential | None

    def move(self, raw: Potential, damping: float) -> None:
        """Go where a half-step leads."""
        self.raw, self.potential = raw, damping * raw

    def scale(self, factor: float) -> None:
        """Let the unit of the potentials become smaller."""
        self.potential = factor * self.potential
        self.raw = None if self.raw is None else factor * self.raw


class Iteration:
    """The half-steps of one problem, whose points ``x`` and ``y`` are this rank's."""

    def __init__(self, pairs: SpreadPairs, problem: Problem, x: Points, y: Points, a: Weights, b: Weights):
        self.cold, self.ranks = (pairs, x, y), pairs.ranks
        self.reach = problem.reach / problem.eps
        start = torch.zeros_like(b) if problem.init is None else problem.init / problem.eps
        start = torch.where(start.isfinite(), start, 0).to(b.dtype)
        self.rows, self.columns = Side(a, torch.zeros_like(a), None), Side(b, start, start)
        self.set_heat(1.0)

    def set_heat(self, heat: float) -> None:
        """Let eps be so many times what was asked for."""
        pairs, x, y = self.cold
        self.pairs, self.x, self.y = self.cold if heat == 1 else pairs.at(heat, x, y)
        self.damping = 1.0 if self.reach == math.inf else self.reach / (self.reach + heat)

    def half_step(self, turned: bool) -> Potential:
        """The soft minima of the rows, or of the columns, at the potentials of the others."""
        here, there = (self.columns, self.rows) if turned else (self.rows, self.columns)
        if here.raw is not None:
            bias = there.potential + there.weight.log()
            sums = self.pairs.multiply(turned, self.x, self.y, here.raw, bias, None, None, None)[:, 0]
            most = TRUST[sums.dtype]
            far = ~((sums > 1 / most) & (sums < most)).all()
            if not bool(self.ranks.total(far)):
                return (here.raw.double() - sums.double().log()).to(sums.dtype)
        return self.pairs.soft_minimum(turned, self.x, self.y, there.potential, there.weight)

    def cool(self, hot: float, cooling: float, most: int) -> int:
        """A pair of half-steps at every regularisation from ``hot`` times eps on; how many there were."""
        done = 0
        self.columns.scale(1 / hot)
        while hot > 1 and done + 1 < most:
            self.set_heat(hot)
            self.rows.move(self.half_step(turned=False), self.damping)
            self.columns.move(self.half_step(turned=True), self.damping)
            following = max(hot * cooling, 1.0)
            for side in (self.rows, self.columns):
                side.scale(hot / following)
            hot, done = following, done + 1
        for side in (self.rows, self.columns):
            side.scale(hot)
        self.set_heat(1.0)
        return done

    def compare(self, ahead: Potential) -> tuple[float, Tensor]:
        """The marginal error, and the constant that potentials under a penalty are moved by.

        Args:
            ahead: The soft minima that the rows have at the columns' potentials.
        """
        f, g = self.rows.potential.double(), self.columns.potential.double()
        share = torch.exp(f - ahead.double())
        if self.reach == math.inf:
            return float(self.ranks.total(_off(self.rows.weight, share, 1.0))), f.new_zeros(())
        asked = [torch.exp(-p / self.reach) for p in (f, g)]
        masses = [_sum(side.weight, part) for side, part in zip((self.rows, self.columns), asked)]
        off = _off(self.rows.weight, share, asked[0])
        error, *masses = self.ranks.total(torch.stack([off, *masses]))
        lift = potentials.best_constant(*(part.to(ahead.dtype) for part in masses), self.reach)
        return float(error), lift

    def run(self, problem: Problem) -> Solution:
        """Pairs of half-steps until the marginal error is at most ``tol``."""
        name = self.ranks.step
        done = self.cool(*problem.anneal, problem.max_iter) if problem.anneal else 0
        ahead = self.half_step(turned=False)
        while True:
            done += 1
            self.ranks.step = f"pair {done} of half-steps of {name}"
            self.rows.move(ahead, self.damping)
            self.columns.move(self.half_step(turned=True), self.damping)
            ahead = self.half_step(turned=False)
            error, lift = self.compare(ahead)
            if not error > problem.tol or done >= problem.max_iter:
                break
            ahead, self.columns.raw = ahead + lift, self.columns.raw - lift
        self.ranks.step = f"the end of {name}"
        rows, columns = self.rows, self.columns
        # a point without mass follows the others, to the end
        rows.potential = torch.where(rows.weight > 0, rows.potential, self.damping * ahead)
        found = finish(
            self.pairs,
            self.x,
            self.y,
            rows.potential,
            columns.potential,
            rows.weight,
            columns.weight,
            self.reach,
        )
        if found.lost > problem.tol / 8:
            error = self.measured(found)
        self.ranks.step = name
        number = found.value.new_tensor(error)
        return Solution(
            found.value,
            found.f,
            found.g,
            number.masked_fill(found.value.isnan(), math.nan),
            torch.tensor(done, dtype=torch.int64, device=number.device),
        )

    def measured(self, found: Finished) -> float:
        """The marginal error of potentials that rounding has moved."""
        a, b, f, g = self.rows.weight, self.columns.weight, found.f, found.g
        total = 0.0
        for turned, w, p, v, q in ((False, a, f, b, g), (True, b, g, a, f)):
            share = self.pairs.multiply(turned, self.x, self.y, p, q + v.log(), None, None, None)[:, 0]
            wanted = 1.0 if self.reach == math.inf else torch.exp(-p.double() / self.reach)
            total += float(self.ranks.total(_off(w, share.double(), wanted)))
        return total


def solve(pairs: SpreadPairs, problem: Problem, x: Points, y: Points, a: Weights, b: Weights) -> Solution:
    """Solve it, in units of eps."""
    return Iteration(pairs, problem, x, y, a, b).run(problem)


def _sum(weight: Weights, part: Tensor) -> Tensor:
    return torch.where(weight > 0, weight.double() * part, 0).sum()


def _off(weight: Weights, share: Tensor, wanted: Tensor | float) -> Tensor:
    """L1 distance of a marginal from what it should be, of the rows here."""
    return _sum(weight, (share - wanted).abs())
