"""Transport between large point clouds, beside blocked eager PyTorch and KeOps, at equal marginal error."""

import importlib
import math

import torch
from torch import Tensor

import geokernels as gk
from geokernels.testing import cloud

from .harness import Case

POINTS = 10_000
TOLERANCE = 1e-3
EPS = 0.2  # of the mean cost: a few half-steps
BLOCK = 1000  # rows of a cost matrix that eager PyTorch makes at a time


def clouds(features: int) -> tuple[Tensor, Tensor, float]:
    """Two normal clouds, one of them moved and narrower."""
    x, y = cloud(POINTS, features, seed=0), 0.3 + 0.8 * cloud(POINTS, features, seed=1)
    mean = (x.var(0).sum() + y.var(0).sum() + (x.mean(0) - y.mean(0)).square().sum()).item()
    return x.float(), y.float(), EPS * mean


def soft_minimum(x: Tensor, y: Tensor, potential: Tensor) -> Tensor:
    """-log mean_j exp(potential_j - |x_i - y_j|^2 / 2) with the Gram form, a block of rows at a time."""
    bias = potential - y.square().sum(-1) / 2 - math.log(len(y))
    sums = [torch.logsumexp(torch.addmm(bias, block, y.T), -1) for block in x.split(BLOCK)]
    return x.square().sum(-1) / 2 - torch.cat(sums)


def eager_in_blocks(half_step):
    """Alternating half-steps; the row error is read off the next one."""

    def run(x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        u, v = (points * math.sqrt(2 / eps) for points in (x, y))
        f = half_step(u, v, torch.zeros_like(v[:, 0]))
        while True:
            g = half_step(v, u, f)
            following = half_step(u, v, g)
            if ((f - following).exp() - 1).abs().mean() <= TOLERANCE:
                return eps * f, eps * g
            f = following

    return run


def keops_half_step(x: Tensor, y: Tensor, potential: Tensor) -> Tensor:
    """The same by KeOps, which forms the scores on the fly as well."""
    lazy = importlib.import_module("pykeops.torch").LazyTensor
    apart = ((lazy(x[:, None]) - lazy(y[None])) ** 2).sum(-1)
    scores = lazy((potential - math.log(len(y)))[None, :, None]) - apart / 2
    return -scores.logsumexp(1)[:, 0]


def ours(x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    solved = gk.sinkhorn(x, y, eps=eps, tol=TOLERANCE, backend="native")
    return solved.f, solved.g


def marginal_error(result: tuple[Tensor, Tensor], inputs: tuple) -> float:
    """The larger side's L1 marginal error, in float64."""
    x, y, eps = inputs
    (f, g), (u, v) = (
        [part.double() / eps for part in result],
        [math.sqrt(2 / eps) * part.double() for part in (x, y)],
    )
    rows, columns = soft_minimum(u, v, g), soft_minimum(v, u, f)
    return max(((p - q).exp() - 1).abs().mean().item() for p, q in ((f, rows), (g, columns)))


def cases() -> list[Case]:
    rivals = {
        "eager in blocks": eager_in_blocks(soft_minimum),
        "torch.compile in blocks": eager_in_blocks(torch.compile(soft_minimum)),
    }
    if importlib.util.find_spec("pykeops"):
        rivals["KeOps"] = eager_in_blocks(keops_half_step)
    return [
        Case(
            name=f"sinkhorn, clouds {POINTS} x {features}",
            reason=f"{reason}, costs never formed, to marginal error {TOLERANCE}; eps {EPS} of the mean cost",
            make=lambda features=features: clouds(features),
            ours={"native": ours},
            rivals=rivals,
            error=marginal_error,
            allowed=1.2 * TOLERANCE,
            rounds=3,
        )
        for features, reason in ((3, "shapes in space"), (64, "latent codes"), (512, "CLIP embeddings"))
    ]
