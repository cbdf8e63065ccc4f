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
    """lap or lapx: Jonker and Volgenant's program in C++."""
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


def rows_read(cost: np.ndarray) -> int:
    """How many rows shortest augmenting paths look at, after a start by columns and two rounds of bids."""
    rows = len(cost)
    price, owner = cost.min(0), np.full(cost.shape[1], -1)
    for j, i in reversed(list(enumerate(cost.argmin(0)))):
        if i in owner:
            owner[owner == i] = -1
        owner[j] = i
    paid, read = np.zeros(rows), rows
    waiting = [i for i in range(rows) if i not in owner]
    for _ in range(2):
        bidders, waiting, bids = waiting, [], rows
        for row in bidders:
            while row >= 0:
                if bids == 0:
                    waiting.append(row)
                    break
                offers = cost[row] - price
                first, second = np.argsort(offers, kind="stable")[:2]
                bids, read = bids - 1, read + 1
                gain = offers[second] - offers[first]
                paid[row] = offers[second]
                price[first] -= gain
                to = first if gain > 0 or owner[first] < 0 else second
                row, owner[to] = owner[to], row
                if row >= 0 and gain == 0:
                    waiting.append(row)
                    break
    for row in waiting:
        distance, before = np.full(cost.shape[1], np.inf), np.full(cost.shape[1], -1)
        path, lengths, i, last, reached = [], [], row, -1, 0.0
        while True:
            read += 1
            length = reached + ((cost[i] - price) - paid[i])
            shorter = length < distance
            distance[shorter], before[shorter] = length[shorter], last
            nearest = np.flatnonzero(distance == np.nanmin(distance))
            free = nearest[owner[nearest] < 0]
            last = int(free[0] if len(free) else nearest[0])
            reached, distance[last] = distance[last], np.nan
            if owner[last] < 0:
                break
            path, lengths, i = [*path, last], [*lengths, reached], owner[last]
        fall = reached - np.array(lengths)
        paid[row] += reached
        paid[owner[path]] += fall
        price[path] -= fall
        while last >= 0:
            owner[last] = row if before[last] < 0 else owner[before[last]]
            last = before[last]
    return read


def work(inputs: tuple) -> Work:
    """A subtraction and a comparison for each entry that is read, in float64, of which half as many go at once."""
    (cost,) = inputs
    costs = cost.reshape(-1, *cost.shape[-2:]).numpy()
    if costs.shape[-2] > MOST_COUNTED:
        return Work(bytes=8.0 * cost.numel())
    return Work(flops=2.0 * 2.0 * sum(map(rows_read, costs)) * costs.shape[-1], bytes=8.0 * cost.numel())


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
