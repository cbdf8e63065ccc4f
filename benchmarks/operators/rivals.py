"""Other people's Sinkhorn, each with its own stopping rule, and the error by which all are compared."""

import importlib
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ..harness.case import Rival

Potentials = tuple[Tensor, Tensor]
MOST_STEPS = 200_000


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """The Gram form, as one writes it."""
    return x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT


def plan_of(result: Potentials | Tensor, cost: Tensor, eps: float) -> Tensor:
    """The plan of potentials f and g and equal weights, or the plan that is given."""
    if isinstance(result, Tensor):
        return result
    f, g = result
    return ((f[..., :, None] + g[..., None, :] - cost) / eps).exp() / (cost.shape[-2] * cost.shape[-1])


def marginal_error(result: Potentials | Tensor, inputs: tuple) -> float:
    """The L1 error of both marginals together, of the worst problem, in float64.

    Args:
        result: Potentials f and g, or a plan.
        inputs: The cost, and eps.
    """
    cost, eps = inputs
    wide = result.double() if isinstance(result, Tensor) else tuple(part.double() for part in result)
    plan = plan_of(wide, cost.double(), eps)
    rows = (plan.sum(-1) - 1 / plan.shape[-2]).abs().sum(-1)
    columns = (plan.sum(-2) - 1 / plan.shape[-1]).abs().sum(-1)
    return (rows + columns).max().item()


def eager(cost: Tensor, eps: float, tol: float) -> Potentials:
    """The usual loop, stopped when the worst problem's row error is small, read off the next half-step."""
    log_a, log_b = -math.log(cost.shape[-2]), -math.log(cost.shape[-1])
    scaled = cost / eps
    f = -torch.logsumexp(log_b - scaled, -1)
    while True:
        g = -torch.logsumexp(f[..., :, None] - scaled + log_a, -2)
        following = -torch.logsumexp(g[..., None, :] - scaled + log_b, -1)
        if ((f - following).exp() - 1).abs().mean(-1).max() <= tol:
            return eps * f, eps * g
        f = following


@cache
def _compiled_pair() -> Callable:
    @torch.compile
    def pair(scaled: Tensor, f: Tensor, log_a: float, log_b: float) -> tuple[Tensor, Tensor, Tensor]:
        g = -torch.logsumexp(f[..., :, None] - scaled + log_a, -2)
        following = -torch.logsumexp(g[..., None, :] - scaled + log_b, -1)
        return g, following, ((f - following).exp() - 1).abs().mean(-1).max()

    return pair


def compiled(cost: Tensor, eps: float, tol: float) -> Potentials:
    """The same loop with a pair of half-steps compiled."""
    log_a, log_b, pair = -math.log(cost.shape[-2]), -math.log(cost.shape[-1]), _compiled_pair()
    scaled = cost / eps
    f = -torch.logsumexp(log_b - scaled, -1)
    while True:
        g, following, error = pair(scaled, f, log_a, log_b)
        if error <= tol:
            return eps * f, eps * g
        f = following


def pot(cost: Tensor, eps: float, tol: float) -> Tensor:
    """POT's batched solver: the worst problem's row error, tested every ten iterations."""
    solver = importlib.import_module("ot.batch")
    batch = cost if cost.dim() == 3 else cost[None]
    plan = solver.solve_batch(batch, reg=eps, max_iter=MOST_STEPS, tol=tol).plan
    return plan if cost.dim() == 3 else plan[0]


def pot_exact(cost: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """POT's network simplex method, a problem at a time and to its end: value and potentials."""
    solver = importlib.import_module("ot")
    *batch, n, m = cost.shape
    solved = []
    for k, one in enumerate(cost.reshape(-1, n, m)):
        a, b = [w.reshape(-1, w.shape[-1])[k].numpy() for w in given] or ([], [])
        value, log = solver.emd2(a, b, one.numpy(), numItermax=10**9, log=True)
        solved.append(torch.cat([torch.as_tensor(part).reshape(-1) for part in (value, log["u"], log["v"])]))
    value, f, g = torch.stack(solved).reshape(*batch, -1).split([1, n, m], -1)
    return value[..., 0], f, g


@cache
def _ott_solver(batched: bool) -> Callable:
    jax = importlib.import_module("jax")
    geometry = importlib.import_module("ott.geometry.geometry")
    linear = importlib.import_module("ott.solvers.linear")

    def solve(cost, eps, tol):
        given = geometry.Geometry(cost_matrix=cost, epsilon=eps)
        solution = linear.solve(given, threshold=tol, max_iterations=MOST_STEPS)
        return solution.f, solution.g

    return jax.jit(jax.vmap(solve, (0, None, None)) if batched else solve)


def ott(cost: Tensor, eps: float, tol: float) -> Potentials:
    """OTT-JAX, compiled, a batch by vmap: the L1 error of one marginal, tested every ten iterations."""
    numpy = importlib.import_module("jax.numpy")
    f, g = _ott_solver(cost.dim() == 3)(numpy.from_dlpack(cost), eps, tol)
    g.block_until_ready()
    # its plan is exp((f + g - C) / eps), without the weights
    shifts = (eps * math.log(size) for size in cost.shape[-2:])
    return tuple(torch.from_dlpack(part) + shift for part, shift in zip((f, g), shifts))


def from_cost(tol: float, *, names: tuple[str, ...] = ()) -> dict[str, Rival]:
    """Everybody who takes a cost matrix, asked for an error of ``tol``; all of them, or those named."""
    looser = tuple(tol * factor for factor in (3.0, 1.0, 0.5, 0.25, 0.1))
    known = {
        "eager": Rival(eager, settings=looser[1:]),
        "torch.compile": Rival(compiled, settings=looser[1:]),
        "POT": Rival(pot, needs=("ot",), settings=looser),
        "OTT-JAX": Rival(ott, needs=("ott", "jax"), settings=looser),
    }
    return {name: rival for name, rival in known.items() if name in (names or known)}


def geomloss(x: Tensor, y: Tensor, eps: float, scaling: float) -> Potentials:
    """GeomLoss on dense costs: no tolerance, but a rate at which its blur is annealed.

    Its cost is |x - y|^2 / 2, so that its blur is sqrt(eps / 2) and ours are twice its potentials.
    """
    losses = importlib.import_module("geomloss")
    solve = losses.SamplesLoss(
        "sinkhorn",
        p=2,
        blur=math.sqrt(eps / 2),
        scaling=scaling,
        debias=False,
        potentials=True,
        backend="tensorized" if x.dim() == 3 else "online",
    )
    f, g = solve(x, y)
    return 2 * f.reshape(x.shape[:-1]), 2 * g.reshape(y.shape[:-1])


GEOMLOSS = Rival(geomloss, needs=("geomloss",), settings=(0.5, 0.9, 0.97, 0.99))
GEOMLOSS_KEOPS = Rival(geomloss, needs=("geomloss", "pykeops"), settings=GEOMLOSS.settings)


def from_points(tol: float) -> dict[str, Rival]:
    """Everybody, with the cost made from clouds ``(B, N, D)`` inside the timer."""

    def with_cost(solver: Callable) -> Callable:
        return lambda x, y, eps, setting: solver(squared_distances(x, y), eps, setting)

    made = {
        name: Rival(with_cost(rival.run), rival.needs, rival.settings)
        for name, rival in from_cost(tol).items()
    }
    return made | {"GeomLoss": GEOMLOSS}
