"""Derivatives of transport, first and second, however it is asked for: beside autograd through a long run."""

import math

import pytest
import torch

import geokernels as gk
from geokernels import reference
from geokernels.kernels import adjoint, transport_clouds, transport_clouds_derivatives
from geokernels.testing import cloud, unrolled_sinkhorn, weights

TIGHT = {"tol": 1e-13, "max_iter": 5000}
EPS = 0.6
COSTS = pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "dot", "lp"])
TWICE = pytest.mark.parametrize("cost", ["sqeuclidean", "cosine", "dot"])
REACHES = pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
POWER = 3.0


@pytest.fixture(params=["dense", "streamed"], autouse=True)
def way(request, monkeypatch):
    """Small clouds by the matrix of their costs, and the way of large ones."""
    monkeypatch.setattr(transport_clouds, "are_large", lambda x, y: request.param == "streamed")
    return request.param


def leaves(*batch, N=4, M=5, D=2):
    """Points, and unconstrained parameters of weights that keep their mass."""
    shapes = (*batch, N, D), (*batch, M, D), (*batch, N), (*batch, M)
    # near one another, so that the long run is long enough
    return [(0.6 * cloud(*shape, seed=seed)).requires_grad_() for seed, shape in enumerate(shapes)]


def oracle(x, y, a, b, cost="sqeuclidean", reach=None):
    return unrolled_sinkhorn(reference.pairwise_cost(x, y, cost, POWER), a, b, EPS, reach, 300)


def ours(x, y, a, b, cost="sqeuclidean", reach=None, **options):
    return gk.sinkhorn(x, y, a, b, eps=EPS, cost=cost, p=POWER, reach=reach, **TIGHT, **options)


def mixed(*outputs):
    """One number that depends on all of them."""
    return sum((part.sin() * cloud(*part.shape, seed=40 + k)).sum() for k, part in enumerate(outputs))


def gradient(loss, parts, **options):
    """Of one of two runs that share the making of their weights."""
    return torch.autograd.grad(loss, parts, retain_graph=True, **options)


def along(loss, parts):
    """Gradients, and the derivative of the gradient along a fixed direction."""
    first = torch.autograd.grad(loss, parts, create_graph=True)
    slope = sum((g * cloud(*g.shape, seed=60 + k)).sum() for k, g in enumerate(first))
    return [*first, *gradient(slope, parts)]


def assert_equal(found, exact, tolerance=1e-7):
    for k, (part, truth) in enumerate(zip(found, exact, strict=True)):
        assert torch.allclose(part, truth, rtol=tolerance, atol=tolerance), (k, part - truth)


@REACHES
@COSTS
def test_all_that_comes_back(cost, reach):
    v, u = (cloud(size, 2, seed=9).requires_grad_() for size in (5, 4))
    x, y, p, q = leaves()
    parts = x, y, p, q, v, u
    t = ours(x, y, p.softmax(-1), q.softmax(-1), cost, reach)
    found = mixed(t.value, t.f, t.g, t.plan(), t.apply(v), t.apply_t(u), t.barycentric(v))
    value, f, g, plan = oracle(x, y, p.softmax(-1), q.softmax(-1), cost, reach)
    exact = mixed(value, f, g, plan, plan @ v, plan.T @ u, plan @ v / plan.sum(-1, keepdim=True))
    assert_equal(gradient(found, parts), gradient(exact, parts))


@REACHES
@TWICE
def test_value_twice(cost, reach):
    x, y, p, q = parts = leaves()
    found = along(ours(x, y, p.softmax(-1), q.softmax(-1), cost, reach).value, parts)
    exact = along(oracle(x, y, p.softmax(-1), q.softmax(-1), cost, reach)[0], parts)
    assert_equal(found, exact)


@REACHES
@pytest.mark.parametrize("cost", ["euclidean", "lp"])
def test_value_twice_to_the_weights_of_costs_that_points_see_once(cost, reach):
    x, y, p, q = leaves()
    x, y = x.detach(), y.detach()
    found = along(ours(x, y, p.softmax(-1), q.softmax(-1), cost, reach).value, (p, q))
    exact = along(oracle(x, y, p.softmax(-1), q.softmax(-1), cost, reach)[0], (p, q))
    assert_equal(found, exact)


@REACHES
def test_divergence_twice(reach):
    x, y, p, q = parts = leaves()

    def divergence(value, a, b):
        own = value(x, x, a, a), value(y, y, b, b)
        return value(x, y, a, b) - sum(own) / 2

    a, b = p.softmax(-1), q.softmax(-1)
    found = gk.sinkhorn_divergence(x, y, a, b, eps=EPS, reach=reach, **TIGHT)
    exact = divergence(lambda *parts: oracle(*parts, reach=reach)[0], a, b)
    assert_equal(along(found, parts), along(exact, parts))


def test_divergence_between_free_masses():
    x, y, p, q = parts = leaves()
    a, b = p.exp(), q.exp()  # the term of the masses has derivatives too
    own = oracle(x, x, a, a, reach=0.7)[0] + oracle(y, y, b, b, reach=0.7)[0]
    exact = oracle(x, y, a, b, reach=0.7)[0] - own / 2 + EPS / 2 * (a.sum() - b.sum()) ** 2
    found = gk.sinkhorn_divergence(x, y, a, b, eps=EPS, reach=0.7, **TIGHT)
    assert_equal(along(found, parts), along(exact, parts))


@REACHES
class TestFeatures:
    def test_batch(self, reach):
        x, y, p, q = parts = leaves(2)
        t = ours(x, y, p.softmax(-1), q.softmax(-1), reach=reach)
        value, f, g, _ = oracle(x, y, p.softmax(-1), q.softmax(-1), reach=reach)
        assert_equal(along(t.value.sin().sum(), parts), along(value.sin().sum(), parts))
        gradients = (gradient(mixed(*out), parts) for out in ((t.f, t.g), (f, g)))
        assert_equal(*gradients)

    def test_lengths(self, reach):
        x, y, *_ = leaves(2)
        n, m = (4, 2), (3, 5)
        found = ours(x, y, None, None, reach=reach, lengths=(torch.tensor(n), torch.tensor(m)))
        values, products, targets = [], [], []
        for k in range(2):
            near, far = x[k, : n[k]], y[k, : m[k]]
            uniform = (near.new_full((size[k],), 1 / size[k]) for size in (n, m))
            value, f, _, plan = oracle(near, far, *uniform, reach=reach)
            values.append(value)
            products.append(mixed(f, plan @ far))
            targets.append(mixed(found.f[k, : n[k]], found.apply(y)[k, : n[k]]))
        exact = along(sum(value.sin() for value in values), (x, y))
        assert_equal(along(found.value.sin().sum(), (x, y)), exact)
        gradients = (gradient(sum(part), (x, y)) for part in (targets, products))
        assert_equal(*gradients)

    def test_zero_weights(self, reach):
        x, y, *_ = leaves()
        a, b = weights(4, seed=2), weights(5, seed=3, zeros=2)
        t, (value, f, g, plan) = ours(x, y, a, b, reach=reach), oracle(x, y, a, b, reach=reach)
        assert_equal(along(t.value, (x, y)), along(value, (x, y)))
        found = mixed(t.f, t.g, t.apply(y), t.apply_t(x))
        exact = mixed(f, g, plan @ y, plan.T @ x)
        assert_equal(*(gradient(out, (x, y)) for out in (found, exact)))

    def test_warm_start(self, reach):
        x, y, p, q = parts = leaves()
        a, b = p.softmax(-1), q.softmax(-1)
        start = [cloud(size, seed=8).requires_grad_() for size in (4, 5)]
        cold, warm = ours(x, y, a, b, reach=reach), ours(x, y, a, b, reach=reach, init=start)
        assert_equal(along(warm.value, parts), along(cold.value, parts))
        gradients = (gradient(mixed(t.f, t.apply(y)), parts) for t in (warm, cold))
        assert_equal(*gradients)
        of_start = gradient(warm.value + warm.f.sum(), start, allow_unused=True)
        assert of_start == (None, None)

    def test_forbidden_pairs(self, reach):
        *_, p, q = leaves()
        cost = cloud(4, 5, seed=0).abs()
        cost[0, 1:3] = cost[2, 4] = math.inf
        parts = cost.requires_grad_(), p, q
        a, b = p.softmax(-1), q.softmax(-1)
        t = gk.sinkhorn_from_cost(cost, a, b, eps=EPS, reach=reach, **TIGHT)
        value, f, g, plan = unrolled_sinkhorn(cost, a, b, EPS, reach, 300)
        found, exact = (gradient(mixed(*o), parts) for o in ((t.f, t.g, t.plan()), (f, g, plan)))
        assert_equal(found, exact)
        first = (torch.autograd.grad(out, parts, create_graph=True) for out in (t.value, value))
        # the direction leaves out what is forbidden, where the oracle has inf - inf
        slopes = [mixed(part[0][cost.isfinite()], *part[1:]) for part in first]
        assert_equal(*(gradient(slope, parts) for slope in slopes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_half_precision_has_the_gradients_of_float32(dtype):
    halves = [part.detach().to(dtype).requires_grad_() for part in leaves()[:2]]
    singles = [part.detach().float().requires_grad_() for part in halves]

    def gradients(x, y):
        t = gk.sinkhorn(x, y, eps=EPS)
        return gradient(t.value + t.f.sin().sum() + t.g.sin().sum(), (x, y))

    for half, single in zip(gradients(*halves), gradients(*singles), strict=True):
        assert half.dtype == dtype
        assert torch.equal(half, single.to(dtype))


@pytest.mark.parametrize("where", ["forward", "both"])
def test_autocast_does_not_reach_derivatives(where, way):
    x, y, p, q = parts = [part.detach().float().requires_grad_() for part in leaves()]
    cost = torch.cdist(x, y).square().detach().requires_grad_()
    if way == "dense":
        # the product of the points has torch's own derivative, which follows autocast
        parts = cost, p, q

    def loss():
        a, b = p.softmax(-1), q.softmax(-1)
        if way == "streamed":
            t = gk.sinkhorn(x, y, a, b, eps=EPS)
        else:
            t = gk.sinkhorn_from_cost(cost, a, b, eps=EPS)
        return t.value + t.f.sin().sum() + t.g.cos().sum()

    plain = gradient(loss(), parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss()
        cast = gradient(value, parts) if where == "both" else None
    cast = cast or gradient(value, parts)
    for once, again in zip(plain, cast, strict=True):
        assert torch.equal(once, again)


def test_unfinished_conjugate_gradients_report_their_residual(monkeypatch):
    monkeypatch.setattr(transport_clouds, "are_large", lambda x, y: True)
    monkeypatch.setattr(transport_clouds_derivatives, "MOST_STEPS", 1)
    x, y, *_ = leaves()
    t = ours(x, y, None, None)
    with pytest.warns(RuntimeWarning, match=r"after 1 steps .* relative residual is \d\.\de-\d"):
        gradient(t.f.sin().sum(), x)


def test_reported_residual_is_the_residual():
    root = cloud(6, 6, seed=0)
    matrix, right = root @ root.T + torch.eye(6), cloud(6, seed=1)
    z, left = adjoint._conjugate_gradients(
        lambda v, _unsolved: matrix @ v, right, torch.zeros_like(right), most=2
    )
    reported = left.max().sqrt().item() * torch.finfo(right.dtype).eps ** 0.75
    assert reported == pytest.approx(((right - matrix @ z).norm() / right.norm()).item(), rel=0.05)


@REACHES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_a_plan_that_falls_apart(dtype, reach):
    # two pairs too far apart for a product of theirs to be a number: a constant is free in each
    cost = torch.tensor(
        [[0.0, 0.3, 900, 900], [0.2, 0.1, 900, 900], [900, 900, 0.4, 0.1], [900, 900, 0, 0.2]]
    )
    parts = [cost.to(dtype).requires_grad_(), cloud(4, 2, seed=1).to(dtype).requires_grad_()]
    t = gk.sinkhorn_from_cost(parts[0], eps=EPS, reach=reach, tol=0.0, max_iter=300)
    found = gradient(mixed(t.plan(), t.apply(parts[1])), parts)
    wide = [part.detach().double().requires_grad_() for part in parts]
    quarter = torch.full((4,), 0.25).double()
    *_, plan = unrolled_sinkhorn(wide[0], quarter, quarter, EPS, reach, 300)
    exact = gradient(mixed(plan, plan @ wide[1]), wide)
    for part, truth in zip(found, exact, strict=True):
        assert torch.allclose(part.double(), truth, atol=1e-5 if dtype == torch.float32 else 1e-10)
