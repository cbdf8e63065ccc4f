"""Transport between prompts, beside eager PyTorch, torch.compile and POT, all to the same marginal error."""

import importlib
import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import geokernels as gk
from geokernels.testing import cloud

from .harness import Case

N, D = 77, 768  # the tokens of a prompt and their features, Stable Diffusion 1.x
TOLERANCE = 1e-4
EPS = 0.05  # of the mean cost


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """The Gram form, as one writes it."""
    return x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT


def log_domain_loop(cost: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The usual loop, stopped when the worst problem's row error is small, read off the next half-step."""
    log_a, log_b = -math.log(cost.shape[-2]), -math.log(cost.shape[-1])
    scaled = cost / eps
    g = torch.zeros_like(cost[..., 0, :])
    f = -torch.logsumexp(g[..., None, :] - scaled + log_b, -1)
    while True:
        g = -torch.logsumexp(f[..., :, None] - scaled + log_a, -2)
        following = -torch.logsumexp(g[..., None, :] - scaled + log_b, -1)
        if ((f - following).exp() - 1).abs().mean(-1).max() <= TOLERANCE:
            return eps * f, eps * g
        f = following


def compiled_half_steps():
    """The same loop with a pair of half-steps compiled."""

    @torch.compile
    def pair(scaled: Tensor, f: Tensor, log_a: float, log_b: float) -> tuple[Tensor, Tensor, Tensor]:
        g = -torch.logsumexp(f[..., :, None] - scaled + log_a, -2)
        following = -torch.logsumexp(g[..., None, :] - scaled + log_b, -1)
        return g, following, ((f - following).exp() - 1).abs().mean(-1).max()

    def run(cost: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        log_a, log_b = -math.log(cost.shape[-2]), -math.log(cost.shape[-1])
        scaled = cost / eps
        f = -torch.logsumexp(log_b - scaled, -1)
        while True:
            g, following, error = pair(scaled, f, log_a, log_b)
            if error <= TOLERANCE:
                return eps * f, eps * g
            f = following

    return run


def pot(cost: Tensor, eps: float) -> Tensor:
    """POT's batched solver; its tolerance is on the row error, tested every ten iterations."""
    solver = importlib.import_module("ot.batch")
    batch = cost if cost.dim() == 3 else cost[None]
    plan = solver.solve_batch(batch, reg=eps, max_iter=1000, tol=TOLERANCE).plan
    return plan if cost.dim() == 3 else plan[0]


def ours(cost: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    solved = gk.sinkhorn_from_cost(cost, eps=eps, tol=TOLERANCE, backend="native")
    return solved.f, solved.g


def marginal_error(result, inputs: tuple) -> float:
    """The larger side's L1 marginal error of the worst problem, in float64."""
    cost, eps = inputs
    if isinstance(result, Tensor):
        plan = result.double()
    else:
        f, g = (part.double() for part in result)
        plan = ((f[..., :, None] + g[..., None, :] - cost.double()) / eps).exp()
        plan = plan / (cost.shape[-2] * cost.shape[-1])
    sides = ((plan.sum(dim) - 1 / plan.shape[-1]).abs().sum(-1) for dim in (-1, -2))
    return max(side.max().item() for side in sides)


def rivals() -> dict:
    found = {"eager": log_domain_loop, "torch.compile": compiled_half_steps()}
    if importlib.util.find_spec("ot"):
        found["POT"] = pot
    return found


def prompts(problems: int) -> tuple[Tensor, Tensor]:
    """Rows that vary most in a few directions, as embeddings of tokens do, and a little in all."""
    directions = cloud(8, D, seed=0) / 8**0.5
    spread = [cloud(problems, N, 8, seed=seed) @ directions for seed in (1, 2)]
    return tuple((part + cloud(problems, N, D, seed=seed)).float() for part, seed in zip(spread, (3, 4)))


def given_cost(problems: int, eps: float) -> tuple[Tensor, float]:
    cost = squared_distances(*prompts(problems))
    return cost / cost.mean(), eps


def from_points(solver):
    def run(x: Tensor, y: Tensor, eps: float):
        return solver(squared_distances(x, y), eps)

    return run


def ours_from_points(x: Tensor, y: Tensor, eps: float):
    solved = gk.sinkhorn(x, y, eps=eps, tol=TOLERANCE, backend="native")
    return solved.f, solved.g


def points(problems: int) -> tuple[Tensor, Tensor, float]:
    x, y = prompts(problems)
    return x, y, EPS * squared_distances(x, y).mean().item()


def with_gradient(solver):
    """The value and its gradient to x, by the envelope theorem wherever the library leaves it to the user."""

    def run(x: Tensor, y: Tensor, eps: float):
        leaf = x.detach().requires_grad_()
        with torch.no_grad():
            f, g = solver(squared_distances(x, y), eps)
        plan = ((f[..., :, None] + g[..., None, :] - squared_distances(x, y)) / eps).exp() / N**2
        (squared_distances(leaf, y) * plan).sum().backward()
        return f, g, leaf.grad

    return run


def ours_with_gradient(x: Tensor, y: Tensor, eps: float):
    leaf = x.detach().requires_grad_()
    solved = gk.sinkhorn(leaf, y, eps=eps, tol=TOLERANCE, backend="native")
    solved.value.sum().backward()
    return solved.f.detach(), solved.g.detach(), leaf.grad


def cloud_error(result, inputs: tuple) -> float:
    x, y, eps = inputs
    return marginal_error(result[:2], (squared_distances(x.double(), y.double()), eps))


def assigned_cost(result, inputs: tuple) -> float:
    """How much dearer than the best assignment."""
    (cost,) = inputs
    rows, columns = linear_sum_assignment(cost.numpy())
    chosen = torch.as_tensor(result)
    return (cost[torch.arange(len(cost)), chosen].sum() - cost[rows, columns].sum()).item()


def cases() -> list[Case]:
    others = rivals()
    flops = 4.0 * N * N  # two multiply-adds an entry in each pair of half-steps: per iteration and problem
    solvers = {
        "ours": {"native": ours},
        "rivals": others,
        "error": marginal_error,
        "allowed": 1.2 * TOLERANCE,
    }
    return [
        Case(
            name="sinkhorn, 64 costs 77 x 77",
            reason="a batch of prompt pairs, cost given, to marginal error 1e-4; eps 0.05 of the mean cost",
            make=lambda: given_cost(64, EPS),
            **solvers,
        ),
        Case(
            name="sinkhorn, 64 costs 77 x 77, small eps",
            reason="the same at eps 0.02 of the mean cost, where many more half-steps are needed",
            make=lambda: given_cost(64, 0.4 * EPS),
            **solvers,
        ),
        Case(
            name="sinkhorn, one cost 77 x 77",
            reason="latency of one prompt pair, cost given, to marginal error 1e-4",
            make=lambda: tuple(part[0] if isinstance(part, Tensor) else part for part in given_cost(1, EPS)),
            **solvers,
        ),
        Case(
            name="sinkhorn, 64 pairs of clouds 77 x 768",
            reason="a batch of prompt pairs, cost included, to marginal error 1e-4",
            make=lambda: points(64),
            ours={"native": ours_from_points},
            rivals={name: from_points(solver) for name, solver in others.items()},
            error=lambda result, inputs: marginal_error(
                result, (squared_distances(*(part.double() for part in inputs[:2])), inputs[2])
            ),
            allowed=1.2 * TOLERANCE,
            flops=64 * (2.0 * N * N * D + flops),
        ),
        Case(
            name="sinkhorn value and gradient, 64 pairs of clouds 77 x 768",
            reason="one step of moving one cloud towards another",
            make=lambda: points(64),
            ours={"native": ours_with_gradient},
            rivals={"eager, envelope": with_gradient(log_domain_loop)},
            error=cloud_error,
            allowed=1.2 * TOLERANCE,
        ),
        Case(
            name="assignment, one cost 77 x 77",
            reason="the exact coupling of one prompt pair",
            make=lambda: (given_cost(1, EPS)[0][0].double(),),
            ours={"native": lambda cost: gk.assignment(cost, backend="native")},
            rivals={"scipy": lambda cost: linear_sum_assignment(cost.numpy())[1]},
            error=assigned_cost,
            allowed=1e-12,
        ),
    ]
