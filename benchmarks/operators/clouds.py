"""Transport between large point clouds, beside blocked eager PyTorch and KeOps, at equal marginal error."""

import importlib
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

import geokernels as gk
from geokernels.testing import cloud

from ..harness.case import Case, Rival, Work
from .rivals import GEOMLOSS_KEOPS, Potentials

POINTS = 10_000
FEATURES = {3: "shapes in space", 64: "latent codes", 512: "CLIP embeddings"}
TOLERANCE = 1e-3
EPS = 0.2  # of the mean cost: a few half-steps
BLOCK = 1000  # rows of a cost matrix that eager PyTorch makes at a time
SLACK = 1.2
CLUSTERS = 20


def clouds(features: int, points: int = POINTS) -> tuple[Tensor, Tensor, float]:
    """Two normal clouds, one of them moved and narrower."""
    return at_share(cloud(points, features, seed=0), 0.3 + 0.8 * cloud(points, features, seed=1))


def clustered(features: int, points: int = POINTS) -> tuple[Tensor, Tensor, float]:
    """Two clouds of twenty clusters each, which no normal distribution describes."""
    centres = 2 * cloud(2 * CLUSTERS, features, seed=2)
    sides = [0.3 * cloud(points, features, seed=seed) for seed in (0, 1)]
    member = torch.arange(points) % CLUSTERS
    return at_share(sides[0] + centres[member], sides[1] + centres[CLUSTERS + member])


def at_share(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """Both in float32, and ``EPS`` of their mean cost."""
    mean = (x.var(0).sum() + y.var(0).sum() + (x.mean(0) - y.mean(0)).square().sum()).item()
    return x.float(), y.float(), EPS * mean


def soft_minimum(x: Tensor, y: Tensor, potential: Tensor) -> Tensor:
    """-log mean_j exp(potential_j - |x_i - y_j|^2 / 2) with the Gram form, a block of rows at a time."""
    bias = potential - y.square().sum(-1) / 2 - math.log(len(y))
    sums = [torch.logsumexp(torch.addmm(bias, block, y.T), -1) for block in x.split(BLOCK)]
    return x.square().sum(-1) / 2 - torch.cat(sums)


def keops_soft_minimum(x: Tensor, y: Tensor, potential: Tensor) -> Tensor:
    """The same by KeOps, which forms the scores on the fly as well."""
    lazy = importlib.import_module("pykeops.torch").LazyTensor
    apart = ((lazy(x[:, None]) - lazy(y[None])) ** 2).sum(-1)
    scores = lazy((potential - math.log(len(y)))[None, :, None]) - apart / 2
    return -scores.logsumexp(1)[:, 0]


def alternating(half_step: Callable) -> Callable:
    """Half-steps in turn; the row error is read off the next one."""

    def run(x: Tensor, y: Tensor, eps: float, tol: float) -> Potentials:
        u, v = (points * math.sqrt(2 / eps) for points in (x, y))
        f = half_step(u, v, torch.zeros_like(v[:, 0]))
        while True:
            g = half_step(v, u, f)
            following = half_step(u, v, g)
            if ((f - following).exp() - 1).abs().mean() <= tol:
                return eps * f, eps * g
            f = following

    return run


@cache
def compiled_soft_minimum() -> Callable:
    return torch.compile(soft_minimum)


def ours_at(tol: float) -> Callable:
    def run(x: Tensor, y: Tensor, eps: float) -> Potentials:
        solved = gk.sinkhorn(x, y, eps=eps, tol=tol, backend="native")
        return solved.f, solved.g

    return run


def marginal_error(result: Potentials, inputs: tuple) -> float:
    """The L1 error of both marginals together, in float64."""
    x, y, eps = inputs
    f, g = (part.double() / eps for part in result)
    u, v = (math.sqrt(2 / eps) * part.double() for part in (x, y))
    sides = (f, soft_minimum(u, v, g)), (g, soft_minimum(v, u, f))
    return sum(((p - q).exp() - 1).abs().mean().item() for p, q in sides)


def work_of(inputs: tuple, tol: float) -> Work:
    """One product and its exponentials serve both half-steps of an iteration and show the error."""
    x, y, eps = inputs
    passes = gk.sinkhorn(x, y, eps=eps, tol=tol, backend="native").iterations.item()
    pairs = passes * len(x) * len(y)
    return Work(2.0 * pairs * x.shape[-1], pairs, 4.0 * (x.numel() + y.numel()))


def rivals(tol: float, names: tuple[str, ...] = ()) -> dict[str, Rival]:
    settings = (tol, 0.5 * tol, 0.25 * tol)
    known = {
        "eager in blocks": Rival(alternating(soft_minimum), settings=settings),
        "torch.compile in blocks": Rival(
            lambda *inputs: alternating(compiled_soft_minimum())(*inputs), settings=settings
        ),
        "KeOps": Rival(alternating(keops_soft_minimum), needs=("pykeops",), settings=settings),
        "GeomLoss, KeOps": GEOMLOSS_KEOPS,
    }
    return {name: rival for name, rival in known.items() if name in (names or known)}


def cloud_case(
    name: str,
    reason: str,
    *,
    features: int,
    points: int = POINTS,
    tol: float = TOLERANCE,
    made: Callable = clouds,
    **more,
) -> Case:
    return Case(
        name=name,
        reason=reason,
        make=lambda: made(features, points),
        ours={"native": ours_at(tol)},
        rivals=rivals(tol, more.pop("names", ())),
        error=marginal_error,
        allowed=SLACK * tol,
        work=lambda inputs: work_of(inputs, tol),
        **more,
    )


def case_name(features: int) -> str:
    return f"sinkhorn, clouds {POINTS} x {features}"


def cases() -> list[Case]:
    setting = f"costs never formed, to marginal error {TOLERANCE}; eps {EPS} of the mean cost"
    # GeomLoss anneals, in many more passes through KeOps: it is on the curves, with fewer points
    beside = {"names": ("eager in blocks", "torch.compile in blocks", "KeOps"), "seconds": 15}
    normal = [
        cloud_case(
            case_name(features),
            f"{reason}, {setting}",
            features=features,
            # with 512 features the rival makes three products, and one is the least there can be
            targets={"ratio": 2 if features > 100 else 4, "over floor": 2},
            **beside,
        )
        for features, reason in FEATURES.items()
    ]
    name = f"sinkhorn, clouds of {CLUSTERS} clusters, {POINTS} x 64"
    reason = f"no start is near, {setting}"
    return [*normal, cloud_case(name, reason, features=64, made=clustered, **beside)]
