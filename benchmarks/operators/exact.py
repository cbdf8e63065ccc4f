"""Exact transport between any masses, beside POT's network simplex."""

import torch
from torch import Tensor

import geokernels as gk
from geokernels.testing import cloud, weights

from ..harness.case import MORE, TABLE, Case, Rival, Work
from . import rivals
from .rivals import squared_distances

SIZES = (100, 1000, 4000)  # from latency to costs that leave the cache
FEATURES = 2, 64  # clouds in a plane, and costs with little structure
SHOWN = "clouds in 64 dimensions", "masses by chance"  # in the table; the others are on the page alone


def distances(n: int, features: int) -> Tensor:
    return squared_distances(cloud(n, features, seed=0), cloud(n, features, seed=1))


def chance(n: int, problems: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    batch = (problems,) if problems else ()
    return torch.rand(*batch, n, n, generator=generator, dtype=torch.float64)


def masses(n: int, problems: int = 0) -> tuple[Tensor, Tensor]:
    batch = (problems,) if problems else ()
    return tuple(weights(*batch, n, seed=seed, zeros=0) for seed in (2, 3))


def ours(cost: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = gk.exact_transport(cost, *given, backend="native")
    return found.value, found.f, found.g


def gap(result: tuple[Tensor, Tensor, Tensor], inputs: tuple) -> float:
    """How far the value is above what the potentials prove, as a share; negative costs of a pair count."""
    value, f, g = (torch.as_tensor(part, dtype=torch.float64) for part in result)
    cost, *given = inputs
    a, b = given or [torch.full(cost.shape[:-1], 1 / cost.shape[-1], dtype=torch.float64)] * 2
    below = (f[..., :, None] + g[..., None, :] - cost).amax((-2, -1)).clamp(min=0)
    proved = (a * f).sum(-1) + (b * g).sum(-1) - below * a.sum(-1)
    return float(((value - proved).abs() / value).max())


def case(
    name: str, reason: str, make, *, targets: dict[str, float], threads: int | None = 1, series: str = TABLE
) -> Case:
    return Case(
        name=name,
        reason=reason,
        make=make,
        ours={"native": ours},
        rivals={"POT": Rival(rivals.pot_exact, needs=("ot",))},
        error=gap,
        allowed=1e-6,  # of POT, whose tolerance leaves some 5e-8
        work=lambda inputs: Work(bytes=8.0 * inputs[0].numel()),
        targets=targets,
        threads=threads,
        series=series,
        seconds=4,
        patience=30,
    )


def cases() -> list[Case]:
    kinds = {
        **{f"clouds in {d} dimensions": lambda n, d=d: distances(n, d) for d in FEATURES},
        "costs by chance": chance,
    }
    of = {"equal masses": lambda n, *_: (), "masses by chance": masses}
    single = [
        case(
            f"exact transport, {n} x {n}, {kind}, {name}",
            "one problem on one thread; the floor is that of reading the cost once",
            lambda n=n, make=make, draw=draw: (make(n), *draw(n)),
            targets={"ratio": 1},
            series=TABLE if (kind, name) == SHOWN else MORE,
        )
        for n in SIZES
        for kind, make in kinds.items()
        for name, draw in of.items()
    ]
    batch = case(
        "exact transport, 64 costs 77 x 77, masses by chance",
        "a batch of prompt pairs, each problem on a thread, against a loop",
        lambda: (chance(77, 64), *masses(77, 64)),
        targets={"ratio": 5},
        threads=None,
    )
    return [batch, *single]
