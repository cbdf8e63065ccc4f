"""Streamed transport between large clouds agrees with its definition, in value, plan and derivatives."""

import math

import pytest
import torch

import geokernels as gk
from geokernels.kernels import transport_clouds
from geokernels.testing import assert_as_accurate, cloud, weights

COSTS = ["sqeuclidean", "euclidean", "cosine", "dot", "lp"]
REACHES = pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
TIGHT = {"tol": 1e-13, "max_iter": 5000}


@pytest.fixture
def streamed(monkeypatch):
    """Send clouds of any size the way of large ones."""
    monkeypatch.setattr(transport_clouds, "are_large", lambda x, y: True)


def problem(N=300, M=290, D=3, B=None, dtype=torch.float64):
    """Clouds about a common point that is not the origin, and weights of which the first is zero."""
    batch = () if B is None else (B,)
    x, y = 1 + cloud(*batch, N, D, seed=0), 1.5 + 0.7 * cloud(*batch, M, D, seed=1)
    parts = x, y, weights(*batch, N, seed=2), weights(*batch, M, seed=3)
    return [part.to(dtype) for part in parts]


def three(parts, **options):
    """Native, eager in the same precision, and the definition in float64."""
    wide = [part.double() for part in parts]
    ours = gk.sinkhorn(*parts, **options, backend="native")
    return (
        ours,
        gk.sinkhorn(*parts, **options, backend="reference"),
        gk.sinkhorn(*wide, **options, backend="reference"),
    )


def assert_close(name, ours, eager, truth):
    """In float32 as accurate as eager; in float64, where eager is the truth, within what costs round by."""
    if ours.dtype == torch.float32:
        assert_as_accurate(name, ours, eager, truth)
    else:
        assert (ours - truth).abs().max() < 1e-12 * truth.abs().max().clamp_min(1), name


@REACHES
@DTYPES
@pytest.mark.parametrize("cost", COSTS)
def test_matches_reference(cost, dtype, reach):
    parts = problem(dtype=dtype)
    options = {"eps": 0.5, "cost": cost, "p": 1.5, "reach": reach, "max_iter": 20, "tol": 0.0}
    solved = three(parts, **options)
    for name in ("value", "f", "g"):
        assert_close(name, *(getattr(t, name) for t in solved))
    v, u = cloud(290, 5, seed=4).to(dtype), cloud(300, 5, seed=5).to(dtype)
    assert_close("plan", *(t.plan() for t in solved))
    assert_close("apply", *(t.apply(v.to(t.f.dtype)) for t in solved))
    assert_close("apply_t", *(t.apply_t(u.to(t.f.dtype)) for t in solved))
    assert_close("barycentric", *(t.barycentric(v.to(t.f.dtype)) for t in solved))


# one row of blocks and several, features that fill no depth and more than one, a point alone
@pytest.mark.parametrize("N, M, D", [(700, 500, 1), (257, 1, 3), (1, 257, 130), (400, 411, 300)], ids=str)
@DTYPES
def test_sizes(N, M, D, dtype):
    parts = problem(N, M, D, dtype=dtype)
    solved = three(parts, eps=0.3 * D, max_iter=15, tol=0.0)
    for name in ("value", "f", "g"):
        assert_close(name, *(getattr(t, name) for t in solved))
    v = cloud(M, 70, seed=4).to(dtype)
    assert_close("apply", *(t.apply(v.to(t.f.dtype)) for t in solved))


@REACHES
@pytest.mark.parametrize("eps", [0.2, 2.0], ids=["slow", "fast"])
def test_error_is_told_and_reached_in_no_more_steps(reach, eps, streamed):
    x, y, a, b = problem(80, 70)
    options = {"eps": eps, "reach": reach, "tol": 1e-6, "max_iter": 1500}
    ours, truth = (gk.sinkhorn(x, y, a, b, **options, backend=name) for name in ("native", "reference"))
    assert ours.converged
    # slow problems are over-relaxed; of others, half of the pair after the last is looked at as well
    assert ours.iterations <= (0.6 * truth.iterations if truth.iterations > 50 else truth.iterations + 1)
    plan, wanted = ours.plan(), [a, b]
    if reach is not None:
        wanted = a * torch.exp(-ours.f / reach), b * torch.exp(-ours.g / reach)
    error = (plan.sum(-1) - wanted[0]).abs().sum() + (plan.sum(-2) - wanted[1]).abs().sum()
    assert torch.allclose(ours.error, error, rtol=1e-4, atol=1e-12)
    for name in ("value", "f", "g"):
        # what a marginal error of 1e-6 leaves open where a step of the reference makes 1% of the way
        assert torch.allclose(getattr(ours, name), getattr(truth, name), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reach", [None, 50.0], ids=["balanced", "unbalanced"])
@DTYPES
def test_potentials_far_from_zero(dtype, reach):
    # a point from which no other is in reach of float32's exponential until its potential has moved
    x, y, a, b = problem(dtype=dtype)
    x[7] += 40
    solved = three([x, y, a, b], eps=0.5, reach=reach, max_iter=40, tol=0.0)
    for name in ("value", "f", "g"):
        assert_close(name, *(getattr(t, name) for t in solved))


def test_error_is_that_of_the_potentials_returned():
    # float32 cannot hold potentials well enough for this eps
    x, y, a, b = problem(dtype=torch.float32)
    t = gk.sinkhorn(10 * x, 10 * y, a, b, eps=1.0, tol=1e-6, max_iter=400, backend="native")
    E = torch.exp(t.f.double()[:, None] + t.g.double() - torch.cdist(10 * x.double(), 10 * y.double()) ** 2)
    plan = a.double()[:, None] * b.double() * E
    actual = (plan.sum(-1) - a).abs().sum() + (plan.sum(-2) - b).abs().sum()
    assert 0.2 * actual < t.error < 5 * actual
    assert not t.converged


def test_warm_start_ends_at_once():
    parts = problem()
    cold = gk.sinkhorn(*parts, eps=0.5, tol=1e-8)
    warm = gk.sinkhorn(*parts, eps=0.5, tol=1e-7, init=(cold.f, cold.g))
    assert cold.iterations > 5
    assert warm.iterations == 1
    assert torch.allclose(warm.f, cold.f, atol=1e-6)


def test_ragged_equals_separate():
    x, y, *_ = problem(B=3)
    n, m = torch.tensor([300, 60, 1]), torch.tensor([2, 290, 1])
    for k in range(3):
        x[k, n[k] :], y[k, m[k] :] = math.nan, math.nan
    x.requires_grad_(), y.requires_grad_()
    t = gk.sinkhorn(x, y, eps=0.5, lengths=(n, m), tol=1e-9, backend="native")
    v, u = cloud(3, 290, 2, seed=4), cloud(3, 300, 2, seed=5)
    loss = (t.value + t.f.sin().sum(-1) + t.apply(v).square().sum((-2, -1))).sum()
    to_x, to_y = torch.autograd.grad(loss, (x, y))
    for k in range(3):
        own = [part[k, :size].detach().requires_grad_() for part, size in ((x, n[k]), (y, m[k]))]
        s = gk.sinkhorn(*own, eps=0.5, tol=1e-9, backend="reference")
        assert torch.allclose(t.value[k], s.value, rtol=1e-9)
        assert torch.allclose(t.f[k, : n[k]], s.f, atol=1e-9)
        assert (t.f[k, n[k] :] == 0).all()
        assert (t.g[k, m[k] :] == 0).all()
        plan = torch.zeros(300, 290).double()
        plan[: n[k], : m[k]] = s.plan()
        assert torch.allclose(t.plan()[k], plan, atol=1e-12)
        assert torch.allclose(t.apply(v)[k], plan @ v[k], atol=1e-10)
        assert torch.allclose(t.apply_t(u)[k], plan.T @ u[k], atol=1e-10)
        loss = s.value + s.f.sin().sum() + s.apply(v[k, : m[k]]).square().sum()
        alone = torch.autograd.grad(loss, own)
        assert torch.allclose(to_x[k, : n[k]], alone[0], atol=1e-8)
        assert torch.allclose(to_y[k, : m[k]], alone[1], atol=1e-8)
        assert (to_x[k, n[k] :] == 0).all()
        assert (to_y[k, m[k] :] == 0).all()


@REACHES
@pytest.mark.parametrize("cost", COSTS)
def test_gradients_match_the_reference(cost, reach):
    def gradients(backend):
        leaves = [part.requires_grad_() for part in problem()]
        options = {"eps": 0.5, "cost": cost, "p": 1.5, "reach": reach, "tol": 1e-10, "max_iter": 200}
        t = gk.sinkhorn(*leaves, **options, backend=backend)
        assert t.converged
        loss = t.value + t.f.sin().sum() + t.g.cos().sum() + t.barycentric(leaves[1]).sin().sum()
        return torch.autograd.grad(loss, leaves)

    ours, truth = gradients("native"), gradients("reference")
    for name, gradient, exact in zip("xyab", ours, truth):
        if name in "ab" and reach is None:
            # balanced, the constant is free: masses stay equal
            gradient, exact = gradient - gradient.mean(), exact - exact.mean()
        assert torch.allclose(gradient, exact, rtol=1e-6, atol=1e-8), name


@DTYPES
def test_gradient_of_value_is_as_accurate_as_eager(dtype):
    def run(backend, dtype):
        leaves = [part.to(dtype).requires_grad_() for part in problem(D=40)]
        t = gk.sinkhorn(*leaves, eps=10.0, backend=backend, max_iter=50, tol=0.0)
        return torch.autograd.grad(t.value, leaves)

    runs = run("native", dtype), run("reference", dtype), run("reference", torch.float64)
    for name, *gradients in zip("xyab", *runs):
        assert_close(f"gradient to {name}", *gradients)


@pytest.mark.usefixtures("streamed")
class TestByFiniteDifferences:
    @REACHES
    @pytest.mark.parametrize("cost", COSTS)
    def test_all_that_comes_back(self, cost, reach):
        def run(x, y, p, q, v, u):
            t = gk.sinkhorn(
                x, y, p.softmax(-1), q.softmax(-1), eps=0.4, cost=cost, p=3.0, reach=reach, **TIGHT
            )
            return t.value, t.f, t.g, t.apply(v), t.apply_t(u), t.barycentric(v)

        shapes = (4, 3), (5, 3), (4,), (5,), (5, 2), (4, 2)
        parts = [cloud(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
        assert torch.autograd.gradcheck(run, parts, atol=1e-6)

    @REACHES
    @pytest.mark.parametrize("cost", ["sqeuclidean", "cosine", "dot"])
    def test_value_twice(self, cost, reach):
        def run(x, y, p, q):
            return gk.sinkhorn(
                x, y, p.softmax(-1), q.softmax(-1), eps=0.4, cost=cost, reach=reach, **TIGHT
            ).value

        shapes = (3, 2), (4, 2), (3,), (4,)
        parts = [cloud(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
        assert torch.autograd.gradgradcheck(run, parts, atol=1e-6)

    def test_zero_weights(self):
        x, y, a, b = problem(5, 6)
        leaves = [part.requires_grad_() for part in (x, y)]

        def run(x, y):
            t = gk.sinkhorn(x, y, a, b, eps=0.4, **TIGHT)
            return t.value, t.f, t.g, t.barycentric(y)

        assert torch.autograd.gradcheck(run, leaves, atol=1e-6)


@DTYPES
def test_a_point_without_mass_stays_without(dtype):
    # before convergence its density overflows: no mass times that is none
    x, y, a, b = problem(dtype=dtype)
    y[0] += 60
    t = gk.sinkhorn(x, y, a, b, eps=0.5, cost="dot", max_iter=1, tol=0.0, init=(0 * a, 3000 + 0 * b))
    assert t.apply_t(x)[0].eq(0).all()
    assert t.apply(y).isfinite().all()


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("cost", ["euclidean", "lp"])
def test_costs_of_distances_refuse_a_second_derivative(cost):
    x, y = cloud(3, 2, seed=0).requires_grad_(), cloud(4, 2, seed=1)
    value = gk.sinkhorn(x, y, eps=0.4, cost=cost).value
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(gradient.sum(), x)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "lp"])
def test_divergence_is_flat_at_equal_clouds(cost):
    x = problem()[0]
    y = x.clone().requires_grad_()
    divergence = gk.sinkhorn_divergence(x, y, eps=2.0, cost=cost, **TIGHT)
    (gradient,) = torch.autograd.grad(divergence, y)
    assert divergence.abs() < 1e-12
    assert gradient.abs().max() < 1e-12


def test_what_cannot_be_solved_is_refused():
    x, y, a, b = problem(dtype=torch.float32)
    with pytest.raises(ValueError, match="x must be finite, got NaN"):
        gk.sinkhorn(torch.where(torch.arange(300)[:, None] == 7, math.nan, x), y, eps=0.5)
    with pytest.raises(ValueError, match="cost between x and y overflows"):
        gk.sinkhorn(1e20 * x, y, eps=0.5)
    with pytest.raises(ValueError, match="b must have the mass of a"):
        gk.sinkhorn(x, y, a, 2 * b, eps=0.5)
    with pytest.raises(ValueError, match="a must be finite and non-negative"):
        gk.sinkhorn(x, y, -a, b, eps=0.5)
    with pytest.raises(ValueError, match="a must have some mass"):
        gk.sinkhorn(x, y, 0 * a, b, eps=0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_half_precision_is_computed_in_float32(dtype):
    x, y = (part.to(dtype) for part in problem()[:2])
    half, single = gk.sinkhorn(x, y, eps=0.5), gk.sinkhorn(x.float(), y.float(), eps=0.5)
    assert torch.equal(half.value, single.value)
    assert half.barycentric(y).dtype == dtype
