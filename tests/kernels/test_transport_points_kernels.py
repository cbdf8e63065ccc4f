"""The compiled operators on small clouds: costs made on the way, and the plan of potentials."""

import math

import pytest
import torch

import geokernels as gk
from geokernels import reference
from geokernels.kernels import native
from geokernels.kernels import transport_assignment as kernels
from geokernels.kernels.costs import PRODUCTS, PointCost
from geokernels.reference import potentials
from geokernels.testing import assert_as_accurate, cloud, weights

LEVELS = native.build_info().get("simd_levels", [])
KINDS = pytest.mark.parametrize("kind", range(3), ids=["dot", "angle", "square"])
SOLVE = torch.ops.geokernels.sinkhorn_points
DENSITY = torch.ops.geokernels.transport_density
GRADIENT = torch.ops.geokernels.point_gradient


def problem(B=2, N=9, M=13, D=5, dtype=torch.float64):
    """Clouds far from the origin, and weights of which the first is zero."""
    x, y = 3 + cloud(B, N, D, seed=0), 3.5 + cloud(B, M, D, seed=1)
    return [part.to(dtype) for part in (x, y, weights(B, N, seed=2), weights(B, M, seed=3))]


def arguments(*parts, kind, n=None, m=None, start=None, reach=math.inf):
    return *parts, n, m, start, kind, 8.0, reach, 200, 1e-10


def assert_close(name, ours, eager, truth):
    """In float32 as accurate as eager; in float64, where eager is the truth, to what products round by."""
    if ours.dtype == torch.float32:
        assert_as_accurate(name, ours, eager, truth)
    else:
        assert (ours - truth).abs().max() < 1e-12 * truth.abs().max().clamp_min(1), name


@KINDS
@pytest.mark.parametrize("reach", [math.inf, 5.0], ids=["balanced", "unbalanced"])
def test_solver_is_well_registered(kind, reach):
    parts = [part.requires_grad_() for part in problem(N=4, M=5, D=3)]
    torch.library.opcheck(SOLVE.default, arguments(*parts, kind=kind, reach=reach))
    x, y = (part.detach() for part in parts[:2])
    n, m, start = torch.tensor([4, 2]), torch.tensor([1, 5]), torch.zeros(2, 5).double()
    torch.library.opcheck(SOLVE.default, arguments(x, y, None, None, kind=kind, n=n, m=m, start=start))


def test_density_is_well_registered():
    parts = [cloud(2, 3, 4, seed=0), cloud(2, 3, seed=1), cloud(2, 4, seed=2)]
    torch.library.opcheck(DENSITY.default, (*(part.requires_grad_() for part in parts), 0.7))


@pytest.mark.parametrize("level", LEVELS)
@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
# fewer columns than a vector has lanes; rows and columns left over from tiles, of one panel and of several;
# features of one vector and more, and of one part more than are taken at a time
@pytest.mark.parametrize("N, M, D", [(3, 2, 17), (21, 9, 257), (17, 77, 300), (7, 85, 513), (77, 77, 768)])
def test_costs_of_any_shape(level, kind, dtype, N, M, D, simd_level):
    simd_level(level)
    x, y = (2 + cloud(2, points, D, seed=points + k) for k, points in enumerate((N, M)))

    def costs(x, y):
        no = (None,) * 5
        return SOLVE(x.to(dtype), y.to(dtype), *no, kind, 1e6, math.inf, 1, 1.0)[0]

    cost = next(name for name, number in PRODUCTS.items() if number == kind)
    if kind == PointCost.ANGLE:
        x, y = potentials.directions(x), potentials.directions(y)
    bound = 2e-6 if dtype == torch.float32 else 1e-14
    for left, right in ((x, y), (x, x.clone())):
        truth = reference.pairwise_cost(left.to(dtype).double(), right.to(dtype).double(), cost)
        size = truth.abs().max() + {PointCost.DOT: D, PointCost.ANGLE: 1, PointCost.SQUARE: 0}[kind]
        assert (costs(left, right).double() - truth).abs().max() < bound * size
    own = costs(x, x)
    assert torch.equal(own, own.mT)


def test_a_large_gradient_is_that_of_its_parts():
    # it is written past the caches, where a row is whole vectors and where it is not
    for D in (768, 770, 3):
        x, y = (cloud(2, 4, D, seed=k).float().repeat(280_000 // D * 2, 1, 1) for k in (0, 1))
        weight = torch.rand(len(x), 4, 4, generator=torch.Generator().manual_seed(2))
        assert x.numel() * x.element_size() > 8 << 20
        whole = GRADIENT(weight, x, y, PointCost.SQUARE)
        parts = [GRADIENT(*(part[k : k + 1] for part in (weight, x, y)), PointCost.SQUARE) for k in (0, 1, 5)]
        assert all(torch.equal(whole[k : k + 1], part) for k, part in zip((0, 1, 5), parts))


@pytest.mark.parametrize("cost", PRODUCTS)
@pytest.mark.parametrize("wrong, told", [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")])
@pytest.mark.parametrize("side", ["x", "y"])
def test_points_that_are_nowhere_are_refused(cost, wrong, told, side):
    # of no weight too, where the solver has no need of them
    x, y, a, b = problem(dtype=torch.float32)
    (x if side == "x" else y)[1, 0, 2] = wrong
    for given in ((a, b), (None, None)):
        with pytest.raises(ValueError, match=f"{side} must be finite, got {told}"):
            gk.sinkhorn(x, y, *given, eps=8.0, cost=cost, backend="native")
    with pytest.raises(ValueError, match=f"{side} must be finite, got {told}"):
        gk.sinkhorn_divergence(x, y, eps=8.0, cost=cost, backend="native")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cost", PRODUCTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
# fewer features than a vector has lanes, and more than are taken at a time
@pytest.mark.parametrize("D", [5, 1100])
def test_every_simd_level(level, cost, dtype, D, simd_level):
    simd_level(level)
    parts = problem(D=D, dtype=dtype)
    exact = [part.double() for part in parts]
    eps = 0.3 * reference.pairwise_cost(*exact[:2], cost).abs().mean().item()
    options = {"eps": eps, "cost": cost, "tol": 0.0, "max_iter": 20}
    ours = gk.sinkhorn(*parts, **options, backend="native")
    eager = gk.sinkhorn(*parts, **options, backend="reference")
    truth = gk.sinkhorn(*exact, **options, backend="reference")
    assert_close("cost", *(t._pairs.cost for t in (ours, eager, truth)))
    for name in ("value", "f", "g"):
        assert_close(name, *(getattr(t, name) for t in (ours, eager, truth)))
    assert_close("plan", *(t.plan() for t in (ours, eager, truth)))


@pytest.mark.parametrize("cost", PRODUCTS)
def test_gradients_are_those_of_the_definition(cost):
    found = []
    for backend in ("native", "reference"):
        leaves = [part.requires_grad_() for part in problem()]
        t = gk.sinkhorn(*leaves, eps=4.0, cost=cost, tol=1e-13, backend=backend)
        loss = t.value.sum() + t.f.sin().sum() + t.plan().square().sum()
        # along changes that keep both masses equal
        to_points = torch.autograd.grad(loss, leaves[:2], create_graph=True)
        twice = torch.autograd.grad(sum(part.square().sum() for part in to_points), leaves[:2])
        found.append((*to_points, *twice))
    for ours, theirs in zip(*found):
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)


def pairs(N=5, M=7, D=3):
    return cloud(2, N, M, seed=0), 20 + cloud(2, N, D, seed=1), 20 + cloud(2, M, D, seed=2)


@KINDS
def test_gradient_to_points_is_well_registered(kind):
    parts = [part.requires_grad_() for part in pairs()]
    torch.library.opcheck(GRADIENT.default, (*parts, kind))
    assert torch.autograd.gradcheck(lambda *given: GRADIENT(*given, kind), parts)
    assert torch.autograd.gradgradcheck(lambda *given: GRADIENT(*given, kind), parts)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cost", PRODUCTS)
# below four rows, and above; features of more than one turn
@pytest.mark.parametrize("sizes", [(3, 5, 7), (13, 9, 600)])
def test_gradient_to_points_is_that_of_the_costs(level, cost, sizes, simd_level):
    simd_level(level)
    exact = pairs(*sizes)
    if cost == "cosine":
        exact = exact[0], *map(potentials.directions, exact[1:])

    def eager(weight, x, y):
        leaf = x.clone().requires_grad_()
        made = 1 - leaf @ y.mT if cost == "cosine" else reference.pairwise_cost(leaf, y, cost)
        return torch.autograd.grad((weight * made).sum(), leaf)[0]

    truth = eager(*exact)
    for dtype in (torch.float32, torch.float64):
        parts = [part.to(dtype) for part in exact]
        at_rounded = eager(*(part.double() for part in parts)) if dtype == torch.float32 else truth
        assert_close("gradient", GRADIENT(*parts, PRODUCTS[cost]), eager(*parts), at_rounded)


def test_only_the_gradient_that_is_asked_for_is_made():
    x, y, *_ = problem()
    t = gk.sinkhorn(x.requires_grad_(), y, eps=4.0)
    t.value.sum().backward()
    both = [part.detach().requires_grad_() for part in (x, y)]
    gk.sinkhorn(*both, eps=4.0).value.sum().backward()
    assert y.grad is None
    assert torch.equal(x.grad, both[0].grad)


def test_threads_and_runs_do_not_change_a_bit():
    parts = problem(B=16, N=77, M=60, D=300, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            t = gk.sinkhorn(*parts, eps=30.0, backend="native")
            runs.append((t.value, t.f, t.g, t.error, t.iterations, t.plan()))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(x, y) for x, y in zip(runs[0], other))


def test_what_nobody_differentiates_is_the_same_to_the_bit():
    x, y, a, b = problem()
    plain = gk.sinkhorn(x, y, a, b, eps=4.0)
    asked = gk.sinkhorn(x.requires_grad_(), y, a, b, eps=4.0)
    assert asked.value.requires_grad
    assert not plain.value.requires_grad
    assert torch.equal(plain.f, asked.f)
    assert torch.equal(plain.plan(), asked.plan())
    with torch.no_grad():
        assert not gk.sinkhorn(x, y, a, b, eps=4.0).value.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_density_is_that_of_the_definition(dtype):
    cost, f, g = cloud(3, 7, 21, seed=0), cloud(3, 7, seed=1), cloud(3, 21, seed=2)
    cost[0, 0, 0], cost[0, 1, 2], f[1, 2], g[2, 20], g[1, 3] = math.inf, math.nan, math.inf, -math.inf, 1e4
    exact = cost, f, g
    rounded = [part.to(dtype) for part in exact]
    ours = DENSITY(*rounded, 0.5)
    eager, truth = (potentials.density(*parts, 0.5) for parts in (rounded, [r.double() for r in rounded]))
    assert torch.equal(ours == 0, eager == 0)
    assert ours.isfinite().all()
    ordinary = eager < 1e30
    assert_as_accurate("density", *(part[ordinary] for part in (ours, eager, truth)))
    assert torch.allclose(ours[~ordinary], eager[~ordinary], rtol=1e-3)


def test_memory_is_safe_with_wrong_lengths():
    # the public operator refuses these; the kernel only has to stay inside its arrays
    x, y, *_ = problem()
    n, m = torch.tensor([0, 400]), torch.tensor([-5, 13])
    _, value, *_ = SOLVE(*arguments(x, y, None, None, kind=2, n=n, m=m))
    assert value.isfinite().all()


def test_vmap_folds_into_the_batch():
    x, y, a, b = problem(B=3)
    batched = gk.sinkhorn(x, y, a, b, eps=4.0)

    def results(x, y, a, b):
        t = gk.sinkhorn(x, y, a, b, eps=4.0)
        return t.value, t.plan()

    value, plan = torch.vmap(results)(x, y, a, b)
    assert torch.equal(value, batched.value)
    assert torch.equal(plan, batched.plan())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(("N", "D"), [(1, 1), (13, 5), (6, 37), (10, 1100)])
def test_displacement_at_every_simd_level(level, dtype, N, D, simd_level):
    simd_level(level)
    x, y, *_ = problem(N=N, D=D, dtype=dtype)
    times = torch.tensor([[0.0, 0.3, 1.0], [0.5, 0.7, 0.1]], dtype=dtype)
    moved, chosen = kernels.displacement(x, y, times)
    eager, same = reference.displacement(x, y, times)
    assert torch.equal(chosen, same)
    torch.testing.assert_close(moved, eager)


def test_displacement_is_well_registered():
    x, y = (part.requires_grad_() for part in problem(N=4, M=5, D=3)[:2])
    times = torch.tensor([[0.2, 0.9], [0.4, 0.0]]).double().requires_grad_()
    torch.library.opcheck(torch.ops.geokernels.displacement.default, (x, y, times))
