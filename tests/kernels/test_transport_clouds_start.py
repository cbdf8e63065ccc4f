"""A start from normal distributions: where it saves sweeps, and where it is left."""

import pytest
import torch

import geokernels as gk
from geokernels.kernels import native
from geokernels.testing import cloud, weights

LEVELS = native.build_info().get("simd_levels", [])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
# second moments whole, and variances alone, which is all that so few points pay for
SHAPES = pytest.mark.parametrize("N, M, D", [(1500, 1400, 6), (400, 390, 50)], ids=["whole", "diagonal"])


def turned_clouds(N, M, D, dtype=torch.float64):
    """Normal clouds, long in directions that are no coordinates, about different centres."""
    turn = torch.linalg.qr(cloud(D, D, seed=4))[0]
    lengths = torch.logspace(0, -1, D, dtype=torch.float64)
    x, y = 1 + cloud(N, D, seed=0) * lengths @ turn, 2 + 0.7 * cloud(M, D, seed=1) * lengths.flip(0) @ turn
    return x.to(dtype), y.to(dtype)


def mean_cost(x, y):
    return (x.var(0).sum() + y.var(0).sum() + (x.mean(0) - y.mean(0)).square().sum()).item()


def from_zero(x, y, *more, **options):
    """The same problem, with no start but the potentials 0."""
    zero = x.new_zeros(len(x)), x.new_zeros(len(y))
    return gk.sinkhorn(x, y, *more, init=zero, **options, backend="native")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cost", ["sqeuclidean", "dot"])
@SHAPES
@DTYPES
def test_normal_clouds_are_near_their_solution_at_once(level, cost, N, M, D, dtype, simd_level):
    simd_level(level)
    x, y = turned_clouds(N, M, D, dtype)
    options = {"eps": 0.2 * mean_cost(x, y), "cost": cost, "tol": 1e-3}
    t, plain = gk.sinkhorn(x, y, **options, backend="native"), from_zero(x, y, **options)
    assert t.iterations <= plain.iterations - int(N > 1000)
    # measured: 70,000 times nearer or more, and 190; variances alone, of 1500 points, 80 and 270 times
    once = options | {"tol": 1e-9, "max_iter": 1}
    nearer = 10_000 if N > 1000 else 100
    assert gk.sinkhorn(x, y, **once, backend="native").error < from_zero(x, y, **once).error / nearer
    truth = from_zero(x.double(), y.double(), **(options | {"tol": 1e-9}))
    # what the tolerance leaves open
    assert abs(t.value.double() - truth.value) <= 2e-3 * options["eps"]
    plan, a, b = t.plan().double(), 1 / len(x), 1 / len(y)
    error = (plan.sum(-1) - a).abs().sum() + (plan.sum(-2) - b).abs().sum()
    assert torch.allclose(t.error.double(), error, rtol=1e-2, atol=1e-5)
    assert error <= 1.01e-3


@DTYPES
def test_whole_moments_are_those_of_the_weighted_points(dtype):
    # what a single pair of half-steps leaves, of points of which half have no mass and lie elsewhere
    x, y = turned_clouds(1500, 1400, 6, dtype)
    a = weights(1500, seed=2)
    a[::2] = 0
    x[::2] = 3 - 2 * x[::2]
    options = {"eps": 0.2 * mean_cost(x[1::2], y), "tol": 1e-9, "max_iter": 1}
    t = gk.sinkhorn(x, y, a.to(dtype) / a.sum().to(dtype), **options, backend="native")
    alone = gk.sinkhorn(x[1::2], y, (a[1::2] / a.sum()).to(dtype), **options, backend="native")
    assert torch.allclose(t.f[1::2], alone.f, atol=2e-4 * options["eps"])
    # it is 1e-6; variances alone leave 6e-4, and the potentials 0 leave 5e-2
    assert t.error < 1e-5


def test_clouds_far_apart_are_no_harder():
    # quadratic forms about a common centre would be as large as the distance between the clouds
    x, y = turned_clouds(1500, 1400, 6, torch.float32)
    options = {"eps": 0.2 * mean_cost(x, y), "tol": 1e-3}
    near, far = (gk.sinkhorn(x, y + shift, **options, backend="native") for shift in (0, 30))
    assert far.iterations == near.iterations
    assert far.converged


def two_clusters(N, M):
    centres = torch.tensor([[-3.0, 0], [3, 0]], dtype=torch.float64)
    shares = torch.arange(N) % 3 == 0, torch.arange(M) % 5 == 0
    return [centres[share.long()] + 0.3 * cloud(len(share), 2, seed=k) for k, share in enumerate(shares)]


def heavy_tails(N, M):
    return [cloud(n, 16, seed=k) / (cloud(n, 1, seed=k + 5).abs() + 0.05) for k, n in enumerate((N, M))]


def one_spike(N, M):
    """Nine points of ten in one place, the others wide about another."""
    clouds = []
    for k, n in enumerate((N, M)):
        spike = torch.rand(n, 1, generator=torch.Generator().manual_seed(k)) < 0.9
        z = cloud(n, 16, seed=k)
        clouds.append(torch.where(spike, 0.01 * z, 5 * z + 3 * k))
    return clouds


@pytest.mark.parametrize("shape", [two_clusters, heavy_tails, one_spike])
@pytest.mark.parametrize("share", [0.2, 0.05])
def test_clouds_that_are_far_from_normal_start_from_zero(shape, share):
    # with the start, up to six times as many sweeps
    x, y = shape(600, 580)
    options = {"eps": share * mean_cost(x, y), "tol": 1e-3, "max_iter": 40}
    t, plain = gk.sinkhorn(x, y, **options, backend="native"), from_zero(x, y, **options)
    assert torch.equal(t.f, plain.f)
    assert torch.equal(t.iterations, plain.iterations)


@pytest.mark.parametrize(
    "options",
    [{"tol": 0.0, "max_iter": 2}, {"reach": 5.0}, {"anneal": (50.0, 0.5)}, {"cost": "euclidean"}],
    ids=["a number of half-steps", "unbalanced", "annealed", "no product"],
)
def test_it_is_for_balanced_problems_with_a_tolerance(options):
    x, y = turned_clouds(400, 390, 3)
    t, plain = gk.sinkhorn(x, y, eps=2.0, **options, backend="native"), from_zero(x, y, eps=2.0, **options)
    assert torch.equal(t.f, plain.f)


def test_points_in_one_place():
    # no feature varies: the elimination meets nothing but ones
    x, y = torch.ones(300, 4), 2 * torch.ones(290, 4)
    t = gk.sinkhorn(x, y, eps=1.0, backend="native")
    assert t.converged
    assert torch.allclose(t.value, torch.tensor(4.0), rtol=1e-5)


@SHAPES
def test_threads_do_not_change_a_bit(N, M, D):
    x, y = turned_clouds(N, M, D, torch.float32)
    threads, runs = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(gk.sinkhorn(x, y, eps=0.2 * mean_cost(x, y), tol=1e-3, backend="native"))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert torch.equal(runs[0].f, other.f)
        assert torch.equal(runs[0].g, other.g)
