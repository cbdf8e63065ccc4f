"""Transport between prompts, beside everybody, all to the same marginal error."""

import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

import geokernels as gk
from geokernels.testing import cloud

from ..harness.case import Case, Rival, Work
from . import rivals
from .rivals import marginal_error, squared_distances

N, D = 77, 768  # the tokens of a prompt and their features, Stable Diffusion 1.x
TOLERANCE = 1e-4
EPS = 0.05  # of the mean cost
SLACK = 1.2  # the error is measured in float64 and from outside, the loops stop in float32
MOST_STEPS = 200_000


def prompts(problems: int, points: int = N) -> tuple[Tensor, Tensor]:
    """Rows that vary most in a few directions, as embeddings of tokens do, and a little in all."""
    directions = cloud(8, D, seed=0) / 8**0.5
    spread = [cloud(problems, points, 8, seed=seed) @ directions for seed in (1, 2)]
    return tuple((part + cloud(problems, points, D, seed=seed)).float() for part, seed in zip(spread, (3, 4)))


def given_cost(problems: int, eps: float, points: int = N) -> tuple[Tensor, float]:
    cost = squared_distances(*prompts(problems, points))
    return cost / cost.mean(), eps


def points(problems: int) -> tuple[Tensor, Tensor, float]:
    x, y = prompts(problems)
    return x, y, EPS * squared_distances(x, y).mean().item()


def solve(cost: Tensor, eps: float, tol: float):
    return gk.sinkhorn_from_cost(cost, eps=eps, tol=tol, max_iter=MOST_STEPS, backend="native")


def ours_at(tol: float):
    def run(cost: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        solved = solve(cost, eps, tol)
        return solved.f, solved.g

    return run


def ours_from_points(x: Tensor, y: Tensor, eps: float):
    solved = gk.sinkhorn(x, y, eps=eps, tol=TOLERANCE, backend="native")
    return solved.f, solved.g


def work_of(cost: Tensor, eps: float, tol: float) -> Work:
    """The iterations ours makes, at two multiply-adds an entry, and every exponential once."""
    n, m = cost.shape[-2:]
    steps, problems = solve(cost, eps, tol).iterations.sum().item(), cost.numel() // (n * m)
    return Work(4.0 * n * m * steps, cost.numel(), 4.0 * (cost.numel() + problems * (n + m)))


def work_from_points(x: Tensor, y: Tensor, eps: float, products: int = 1) -> Work:
    """The same with ``products`` of N x N x D for each problem."""
    loop = work_of(squared_distances(x, y), eps, TOLERANCE)
    flops = 2.0 * products * x.numel() * y.shape[-2]
    return Work(loop.flops + flops, loop.exps, 4.0 * products * (x.numel() + y.numel()))


def cost_case(
    name: str, reason: str, *, problems: int, eps: float = EPS, tol: float = TOLERANCE, size: int = N, **more
) -> Case:
    """Costs given, to a marginal error; ``problems`` 0 is one without a batch dimension."""

    def make() -> tuple[Tensor, float]:
        cost, level = given_cost(max(problems, 1), eps, size)
        return (cost if problems else cost[0]), level

    return Case(
        name=name,
        reason=reason,
        make=make,
        ours={"native": ours_at(tol)},
        rivals=rivals.from_cost(tol, names=more.pop("names", ())),
        error=marginal_error,
        allowed=SLACK * tol,
        work=lambda inputs: work_of(*inputs, tol),
        **more,
    )


def cloud_error(result, inputs: tuple) -> float:
    x, y, eps = inputs
    exact = squared_distances(x.double(), y.double())
    return marginal_error(result if isinstance(result, Tensor) else result[:2], (exact, eps))


def with_gradient(x: Tensor, y: Tensor, eps: float, tol: float):
    """The value's gradient to x by the envelope theorem, as eager PyTorch leaves it to the user."""
    leaf = x.detach().requires_grad_()
    f, g = rivals.eager(squared_distances(x, y), eps, tol)
    plan = rivals.plan_of((f, g), squared_distances(x, y), eps)
    (squared_distances(leaf, y) * plan).sum().backward()
    return f, g, leaf.grad


def ours_with_gradient(x: Tensor, y: Tensor, eps: float):
    leaf = x.detach().requires_grad_()
    solved = gk.sinkhorn(leaf, y, eps=eps, tol=TOLERANCE, backend="native")
    solved.value.sum().backward()
    return solved.f.detach(), solved.g.detach(), leaf.grad


def coupled_by(couple):
    """A loop over pairs as it is written with scipy: cost, assignment, the points half of the way."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        halves = [(a + b[linear_sum_assignment(couple(a, b))[1]]) / 2 for a, b in zip(x, y)]
        return torch.stack(halves)

    return run


def displaced_cost(halfway: Tensor, inputs: tuple) -> float:
    """How much dearer than the best assignment the dearest pair is, as a share."""
    x, y = (points.double() for points in inputs)
    moved = (2 * (halfway.double() - x)).square().sum((-2, -1))
    costs = squared_distances(x, y)
    best = [cost[linear_sum_assignment(cost.cpu().numpy())].sum() for cost in costs]
    return float((moved / torch.stack(best) - 1).abs().max())


def cost_cases() -> list[Case]:
    return [
        cost_case(
            f"sinkhorn, 64 costs {N} x {N}",
            "a batch of prompt pairs, cost given, to marginal error 1e-4; eps 0.05 of the mean cost",
            problems=64,
            targets={"ratio": 20},
        ),
        cost_case(
            f"sinkhorn, 64 costs {N} x {N}, eps 0.02",
            "the same at eps 0.02 of the mean cost, where many more half-steps are needed",
            problems=64,
            eps=0.02,
            targets={"ratio": 20},
        ),
        cost_case(
            f"sinkhorn, 4 costs {N} x {N}, eps 0.0005",
            "almost the exact coupling, where float32 loops lose their digits; to marginal error 1e-3",
            problems=4,
            eps=0.0005,
            tol=1e-3,
            targets={"ratio": 20},
            seconds=12,
        ),
        cost_case(
            f"sinkhorn, one cost {N} x {N}",
            "latency of one prompt pair from Python, on one thread, cost given, to marginal error 1e-4",
            problems=0,
            targets={"ratio": 8, "seconds": 50e-6},
            threads=1,
        ),
    ]


def cases() -> list[Case]:
    return [
        *cost_cases(),
        Case(
            name=f"sinkhorn, 64 pairs of clouds {N} x {D}",
            reason="a batch of prompt pairs, cost included, to marginal error 1e-4",
            make=lambda: points(64),
            ours={"native": ours_from_points},
            rivals=rivals.from_points(TOLERANCE),
            error=cloud_error,
            allowed=SLACK * TOLERANCE,
            work=lambda inputs: work_from_points(*inputs),
            targets={"ratio": 5},
        ),
        Case(
            name=f"sinkhorn value and gradient, 64 pairs of clouds {N} x {D}",
            reason="one step of moving one cloud towards another",
            make=lambda: points(64),
            ours={"native": ours_with_gradient},
            rivals={"eager, envelope": Rival(with_gradient, settings=(TOLERANCE, 0.5 * TOLERANCE))},
            error=cloud_error,
            allowed=SLACK * TOLERANCE,
            work=lambda inputs: work_from_points(*inputs, products=2),
            targets={"ratio": 8},
        ),
        Case(
            name=f"displacement, 1000 pairs of clouds {N} x {D}",
            reason="many prompt pairs at once, each coupled exactly and moved half of the way",
            make=lambda: prompts(1000),
            ours={"native": lambda x, y: gk.displacement(x, y, 0.5, backend="native")[0]},
            rivals={
                "scipy": coupled_by(lambda a, b: cdist(a.cpu().numpy(), b.cpu().numpy(), "sqeuclidean")),
                "torch.cdist, scipy": coupled_by(lambda a, b: torch.cdist(a, b).square().cpu().numpy()),
            },
            error=displaced_cost,
            allowed=1e-5,
            work=lambda inputs: Work(flops=2.0 * inputs[0].numel() * N, bytes=3 * 4.0 * inputs[0].numel()),
            targets={"ratio to scipy": 10},
        ),
    ]
