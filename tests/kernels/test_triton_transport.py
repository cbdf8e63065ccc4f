"""Triton's kernel for small transport, on the GPU or in the interpreter, agrees with the definition."""

import math

import pytest
import torch

import geokernels as gk
from geokernels.kernels import triton
from geokernels.testing import assert_as_accurate, cloud, weights

DEVICE = "cpu" if triton.interpreted else "cuda"
WIDEST = torch.float64 if triton.interpreted else torch.float32
NEAR = {torch.float32: 2e-5, torch.float64: 1e-12}
REACHES = pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])


def there(*parts, dtype=WIDEST):
    return [part.to(DEVICE, dtype) for part in parts]


def problem(B=2, N=19, M=23):
    """Costs, one of them infinite, and weights of which the first is zero."""
    cost = cloud(B, N, M, seed=0).abs()
    cost[0, N // 2, M // 2] = math.inf
    return cost, weights(B, N, seed=1), weights(B, M, seed=2)


def assert_near(found, exact):
    assert found.shape == exact.shape
    assert (found.double().cpu() - exact).abs().max() <= NEAR[found.dtype] * exact.abs().max().clamp_min(1)


def test_the_kernels_run_here():
    # no test of this file may be skipped for want of a GPU
    assert triton.refuse(torch.zeros(1, 1, device=DEVICE)) is None


# a point alone, several blocks of rows, and the largest that a program takes
@REACHES
@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 19, 23), (1, 70, 40), (1, 20, 250)], ids=str)
def test_matches_reference(shape, reach):
    parts = problem(*shape) if min(shape[1:]) > 1 else (torch.ones(shape).double(), None, None)
    given = [part if part is None else there(part)[0] for part in parts]
    # small enough for columns whose sums are not to be trusted
    options = {"eps": 0.02, "reach": reach, "max_iter": 2, "tol": 0.0}
    truth = gk.sinkhorn_from_cost(*parts, **options, backend="reference")
    found = gk.sinkhorn_from_cost(*given, **options, backend="triton")
    for name in ("value", "f", "g", "error"):
        assert_near(getattr(found, name), getattr(truth, name))


@REACHES
def test_is_as_accurate_as_eager(reach):
    parts = problem()
    near = there(*parts, dtype=torch.float32)
    options = {"eps": 0.1, "reach": reach, "max_iter": 6, "tol": 0.0}
    ours = gk.sinkhorn_from_cost(*near, **options, backend="triton")
    eager = gk.sinkhorn_from_cost(*near, **options, backend="reference")
    truth = gk.sinkhorn_from_cost(*parts, **options, backend="reference")
    for name in ("value", "f", "g"):
        assert_as_accurate(name, *(getattr(t, name).cpu() for t in (ours, eager, truth)))


@REACHES
def test_each_problem_stops_where_the_reference_stops(reach):
    cost, a, b = problem()
    cost = torch.stack([cost[1], 0.1 * cost[1]])
    options = {"eps": 0.2, "reach": reach, "tol": 1e-3}
    truth = gk.sinkhorn_from_cost(cost, a, b, **options, backend="reference")
    found = gk.sinkhorn_from_cost(*there(cost, a, b), **options, backend="triton")
    assert truth.iterations[0] != truth.iterations[1]
    assert torch.equal(found.iterations.cpu(), truth.iterations)
    assert found.converged.all()


@REACHES
def test_points_far_apart(reach):
    # sums of columns that underflow against every row's largest power: they are summed for themselves
    cost = 300 * (torch.arange(12.0)[:, None] - torch.arange(10.0)).abs().double()
    a, b = weights(12, seed=1), weights(10, seed=2)
    options = {"eps": 1.0, "reach": reach and 500.0, "max_iter": 3, "tol": 0.0}
    truth = gk.sinkhorn_from_cost(cost, a, b, **options, backend="reference")
    found = gk.sinkhorn_from_cost(*there(cost, a, b), **options, backend="triton")
    for name in ("value", "f", "g"):
        exact = getattr(truth, name)
        assert (
            (getattr(found, name).cpu() - exact).abs() <= 10 * NEAR[WIDEST] * exact.abs().clamp_min(1)
        ).all()


def test_a_point_that_reaches_nobody():
    cost, a, b = problem(1)
    cost[0, 3] = math.inf
    cost[0, :, 4] = math.inf
    options = {"eps": 0.2, "max_iter": 4, "tol": 0.0}
    truth = gk.sinkhorn_from_cost(cost, a, b, reach=0.7, **options, backend="reference")
    found = gk.sinkhorn_from_cost(*there(cost, a, b), reach=0.7, **options, backend="triton")
    assert found.f[0, 3] == math.inf
    assert found.g[0, 4] == math.inf
    assert_near(found.value, truth.value)
    assert_near(found.error, truth.error)
    assert_near(found.plan(), truth.plan())
    if triton.interpreted:
        with pytest.raises(ValueError, match="got only infinite costs for row 3"):
            gk.sinkhorn_from_cost(*there(cost, a, b), **options, backend="triton")


def test_constant_under_a_large_reach():
    # far from 0, where the plan's entries are known to thousands of roundings
    cost, a, b = problem(1)
    cost = 3e4 + cost
    options = {"eps": 1.0, "reach": 1e6, "max_iter": 20, "tol": 0.0}
    truth = gk.sinkhorn_from_cost(cost, a, 1.1 * b, **options, backend="reference")
    near = there(cost, a, 1.1 * b, dtype=torch.float32)
    found = gk.sinkhorn_from_cost(*near, **options, backend="triton")
    for name in ("f", "g"):
        off = getattr(found, name).double().cpu() - getattr(truth, name)
        assert off.abs().max() <= 64 * options["reach"] * torch.finfo(torch.float32).eps


def test_start_and_annealing():
    cost, a, b = problem()
    start = cloud(2, 19, seed=3), cloud(2, 23, seed=4)
    for options in ({"init": start}, {"anneal": (1.0, 0.4)}):
        shared = {"eps": 0.2, "max_iter": 3, "tol": 0.0}
        truth = gk.sinkhorn_from_cost(cost, a, b, **shared, **options, backend="reference")
        if "init" in options:
            options = {"init": tuple(there(*start))}
        found = gk.sinkhorn_from_cost(*there(cost, a, b), **shared, **options, backend="triton")
        assert_near(found.f, truth.f)
        assert torch.equal(found.iterations.cpu(), truth.iterations)


def test_gradients_and_ragged_problems():
    n, m = torch.tensor([19, 7]), torch.tensor([5, 23])

    def run(backend, lengths, *parts):
        leaves = [part.requires_grad_() for part in parts]
        options = {"eps": 0.2, "lengths": lengths, "tol": 1e-9, "max_iter": 60}
        t = gk.sinkhorn_from_cost(*leaves, **options, backend=backend)
        loss = (t.value + t.f.sin().sum(-1) + t.plan().square().sum((-2, -1))).sum()
        return [t.value.detach(), t.f.detach(), *torch.autograd.grad(loss, leaves)]

    cost = problem()[0]
    exact = run("reference", (n, m), cost.clone())
    found = run("triton", (n.to(DEVICE), m.to(DEVICE)), *there(cost))
    tolerance = 1e-7 if torch.float64 == WIDEST else 1e-3
    for ours, truth in zip(found, exact, strict=True):
        assert torch.allclose(ours.double().cpu(), truth, rtol=tolerance, atol=tolerance)


def test_small_clouds_come_here():
    x, y = cloud(2, 9, 3, seed=0), cloud(2, 7, 3, seed=1)
    options = {"eps": 0.5, "max_iter": 3, "tol": 0.0, "cost": "euclidean"}
    truth = gk.sinkhorn(x, y, **options, backend="reference")
    found = gk.sinkhorn(*there(x, y), **options, backend="triton")
    assert_near(found.f, truth.f)
    assert_near(found.barycentric(*there(y)), truth.barycentric(y))


def test_what_cannot_be_solved():
    cost, a, b = there(*problem(1))
    nowhere = torch.where(torch.arange(19, device=DEVICE)[:, None] == 7, math.nan, cost)
    for parts in ((nowhere,), (cost, 0 * a, b), (cost, -a, b)):
        if triton.interpreted:
            with pytest.raises(ValueError, match="must"):
                gk.sinkhorn_from_cost(*parts, eps=0.5, max_iter=2, backend="triton")
        else:
            assert not gk.sinkhorn_from_cost(*parts, eps=0.5, max_iter=2, backend="triton").converged


# numpy says so in the interpreter
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("reach", [math.inf, 0.7])
def test_numbers_that_overflow_stop_their_problem_alone(reach):
    from geokernels.kernels.triton import transport  # noqa: F401

    (cost,) = there(cloud(2, 5, 4, seed=0).abs())
    options = None, None, None, None, None, 0.1, reach, 30, 0.0
    plain = torch.ops.geokernels.triton_sinkhorn(cost, *options)
    cost[1, 2, 1] = -torch.finfo(WIDEST).max  # no infinity yet: it becomes one in units of eps
    value, _, _, error, iterations = found = torch.ops.geokernels.triton_sinkhorn(cost, *options)
    assert iterations.tolist() == [30, 1]
    assert error[1].isnan()
    assert value[1].isnan()
    assert all(torch.equal(ours[0], before[0]) for ours, before in zip(found, plain, strict=True))


def test_operator_is_well_registered():
    from geokernels.kernels.triton import transport  # noqa: F401

    cost, a, b = there(*problem(2, 4, 5))
    args = cost.requires_grad_(), a, b, None, None, None, 0.3, math.inf, 1, 1e-9
    torch.library.opcheck(torch.ops.geokernels.triton_sinkhorn.default, args)


def test_compiles_whole_and_maps():
    (cost,) = there(problem(2, 6, 5)[0], dtype=torch.float32)

    def run(cost):
        t = gk.sinkhorn_from_cost(cost, eps=0.5, max_iter=2, backend="triton")
        return t.value, t.f, t.plan(), t.converged

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for eager, traced, mapped in zip(run(cost), compiled(cost), torch.vmap(run)(cost), strict=True):
        assert torch.allclose(eager.float(), traced.float(), atol=1e-6)
        assert torch.equal(eager, mapped)
