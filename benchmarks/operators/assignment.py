"""The cheapest one-to-one assignment beside other solvers, on costs that are easy and costs that are hard."""

import importlib
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import geokernels as gk
from geokernels.testing import cloud

from ..harness.case import Case, Rival, Work
from .rivals import squared_distances
from .transport import N, given_cost

MOST_COUNTED = 512  # rows, above which counting the rows that are read takes too long


def scipy(cost: np.ndarray) -> np.ndarray:
    return linear_sum_assignment(cost)[1]


def lap(cost: np.ndarray) -> np.ndarray:
    """The program of Jonker and Volgenant in C++, lap or lapx."""
    return importlib.import_module("lap").lapjv(cost, return_cost=False)[0]


def pot(cost: np.ndarray) -> np.ndarray:
    """POT's network simplex, for uniform masses."""
    return importlib.import_module("ot").emd([], [], cost).argmax(1)


def one_by_one(solve: Callable) -> Callable:
    """A rival of one problem, on a batch of them."""

    def run(cost: Tensor) -> Tensor:
        costs = cost.numpy()
        if costs.ndim == 2:
            return torch.from_numpy(np.asarray(solve(costs), np.int64))
        return torch.from_numpy(np.stack([solve(part) for part in costs]).astype(np.int64))

    return run


RIVALS = {
    "scipy": Rival(one_by_one(scipy)),
    "lapx": Rival(one_by_one(lap), needs=("lap",)),
    "POT": Rival(one_by_one(pot), needs=("ot",)),
}


def excess(chosen: Tensor, inputs: tuple) -> float:
    """How much dearer than the best assignment the worst problem is, as a share of it."""
    (cost,) = inputs
    costs = cost.reshape(-1, *cost.shape[-2:])
    best = torch.stack([part[linear_sum_assignment(part.numpy())].sum() for part in costs])
    found = costs.gather(-1, chosen.reshape(len(costs), -1, 1))[..., 0].sum(-1)
    return float(((found - best).abs() / best.abs().clamp(min=1e-300)).max())


class Count:
    """Shortest augmenting paths after a start by columns and two rounds of bids, and the rows they read."""

    def __init__(self, cost: np.ndarray) -> None:
        self.cost, self.rows = cost, len(cost)
        self.price, self.owner = cost.min(0), np.full(cost.shape[1], -1)
        self.paid, self.read = np.zeros(self.rows), self.rows
        _, first = np.unique(cost.argmin(0), return_index=True)
        self.owner[first] = cost.argmin(0)[first]
        waiting = [i for i in range(self.rows) if i not in self.owner]
        for _ in range(2):
            waiting = self._bid(waiting)
        for row in waiting:
            self._enter(row)

    def _bid(self, bidders: list[int]) -> list[int]:
        waiting, bids = [], self.rows
        for row in bidders:
            while row >= 0:
                if bids == 0:
                    waiting.append(row)
                    break
                offers = self.cost[row] - self.price
                first, second = np.argsort(offers, kind="stable")[:2]
                bids, self.read = bids - 1, self.read + 1
                gain = offers[second] - offers[first]
                self.paid[row] = offers[second]
                self.price[first] -= gain
                to = first if gain > 0 or self.owner[first] < 0 else second
                row, self.owner[to] = self.owner[to], row
                if row >= 0 and gain == 0:
                    waiting.append(row)
                    break
        return waiting

    def _enter(self, row: int) -> None:
        distance, before = np.full(len(self.price), np.inf), np.full(len(self.price), -1)
        path, lengths, i, last, reached = [], [], row, -1, 0.0
        while True:
            self.read += 1
            length = reached + ((self.cost[i] - self.price) - self.paid[i])
            shorter = length < distance
            distance[shorter], before[shorter] = length[shorter], last
            nearest = np.flatnonzero(distance == np.nanmin(distance))
            free = nearest[self.owner[nearest] < 0]
            last = int(free[0] if len(free) else nearest[0])
            reached, distance[last] = distance[last], np.nan
            if self.owner[last] < 0:
                break
            path, lengths, i = [*path, last], [*lengths, reached], self.owner[last]
        fall, path = reached - np.array(lengths), np.array(path, np.int64)
        self.paid[row] += reached
        self.paid[self.owner[path]] += fall
        self.price[path] -= fall
        while last >= 0:
            self.owner[last] = row if before[last] < 0 else self.owner[before[last]]
            last = before[last]


def work(inputs: tuple) -> Work:
    """A subtraction and a comparison for each entry that is read, in float64, at half the rate of float32."""
    (cost,) = inputs
    costs = cost.reshape(-1, *cost.shape[-2:]).numpy()
    read = sum(Count(part).read for part in costs) if costs.shape[-2] <= MOST_COUNTED else 0
    return Work(flops=2.0 * 2.0 * read * costs.shape[-1], bytes=8.0 * cost.numel())


def uniform(points: int) -> Tensor:
    return torch.rand(points, points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def distances(points: int, features: int) -> Tensor:
    return squared_distances(cloud(points, features, seed=0), cloud(points, features, seed=1))


def products(points: int) -> Tensor:
    """Costs i j, for which every search goes through half of the rows."""
    order = torch.arange(1.0, points + 1, dtype=torch.float64)
    return torch.outer(order, order)


def prompts(problems: int) -> Tensor:
    return given_cost(problems, 1.0)[0].double()


def case(name: str, reason: str, make: Callable[[], Tensor], asked: float, **more) -> Case:
    return Case(
        name=f"assignment, {name}",
        reason=reason,
        make=lambda: (make(),),
        ours={"native": lambda cost: gk.assignment(cost, backend="native")},
        rivals=RIVALS,
        error=excess,
        allowed=1e-12,
        work=work,
        targets={"ratio to scipy": asked},
        **more,
    )


def cases() -> list[Case]:
    counted = "the floor is the arithmetic of the rows that are read"
    large = "the floor is that of reading the costs once"
    return [
        case(
            f"one cost {N} x {N}",
            f"the exact coupling of one prompt pair, from Python; {counted}",
            lambda: prompts(1)[0],
            5,
            threads=1,
            seconds=2,
        ),
        case(f"64 costs {N} x {N}", f"a batch of prompt pairs; {counted}", lambda: prompts(64), 5, seconds=3),
        case("uniform costs 512 x 512", f"independent costs; {counted}", lambda: uniform(512), 1, threads=1),
        case(
            "distances 512 x 512 in 2 dimensions",
            f"clouds in the plane, where paths are long; {counted}",
            lambda: distances(512, 2),
            1,
            threads=1,
        ),
        case("uniform costs 4000 x 4000", large, lambda: uniform(4000), 1, threads=1),
        case("distances 4000 x 4000 in 2 dimensions", large, lambda: distances(4000, 2), 1, threads=1),
        case("distances 4000 x 4000 in 64 dimensions", large, lambda: distances(4000, 64), 1, threads=1),
        case(
            "whole costs below 100, 4000 x 4000",
            f"many ties; {large}",
            lambda: (100 * uniform(4000)).floor(),
            1,
            threads=1,
        ),
        case("products 2000 x 2000", f"the hardest there are; {large}", lambda: products(2000), 1, threads=1),
    ]
