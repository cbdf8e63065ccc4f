"""Derivatives of transport: against finite differences, and against autograd through an unrolled run."""

import math

import pytest
import torch

import geokernels as gk
from geokernels.kernels import transport as kernels
from geokernels.reference import potentials
from geokernels.testing import assert_as_accurate, cloud, unrolled_sinkhorn, weights

BACKENDS = pytest.mark.parametrize("backend", ["native", "reference"])
REACHES = pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
TIGHT = {"tol": 1e-13, "max_iter": 5000}
EPS = 0.4


def inputs(N=4, M=5, B=2):
    """Costs, and unconstrained parameters of weights that keep their mass."""
    parts = cloud(B, N, M, seed=0).abs(), cloud(B, N, seed=1), cloud(B, M, seed=2)
    return [part.requires_grad_() for part in parts]


def outputs(t):
    return {"value": t.value, "f": t.f, "g": t.g, "plan": t.plan()}


@REACHES
@BACKENDS
@pytest.mark.parametrize("name", ["value", "f", "g", "plan"])
def test_against_the_unrolled_run(name, backend, reach):
    def run(solve):
        cost, p, q = inputs()
        out = solve(cost, p.softmax(-1), q.softmax(-1))
        return torch.autograd.grad(out, (cost, p, q), cloud(*out.shape, seed=9))

    options = {"eps": EPS, "reach": reach, "backend": backend} | TIGHT
    ours = run(lambda *parts: outputs(gk.sinkhorn_from_cost(*parts, **options))[name])
    truth = run(
        lambda *parts: dict(zip(["value", "f", "g", "plan"], unrolled_sinkhorn(*parts, EPS, reach)))[name]
    )
    for gradient, exact in zip(ours, truth):
        assert torch.allclose(gradient, exact, rtol=1e-8, atol=1e-10)


@REACHES
@pytest.mark.parametrize("name", ["value", "f", "g", "plan"])
def test_float32_is_as_accurate_as_autograd(name, reach):
    def run(solve, dtype):
        cost, p, q = (part.detach().to(dtype).requires_grad_() for part in inputs(12, 9))
        out = solve(cost, p.softmax(-1), q.softmax(-1))
        return torch.autograd.grad(out, (cost, p, q), cloud(*out.shape, seed=9).to(dtype))

    options = {"eps": EPS, "reach": reach, "backend": "native", "tol": 0.0, "max_iter": 200}
    names = ["value", "f", "g", "plan"]
    ours = run(lambda *parts: outputs(gk.sinkhorn_from_cost(*parts, **options))[name], torch.float32)
    eager = run(lambda *parts: unrolled_sinkhorn(*parts, EPS, reach, 200)[names.index(name)], torch.float32)
    truth = run(lambda *parts: unrolled_sinkhorn(*parts, EPS, reach, 200)[names.index(name)], torch.float64)
    for what, *gradients in zip(["cost", "a", "b"], ours, eager, truth):
        assert_as_accurate(f"gradient of {name} to {what}", *gradients)


@REACHES
@BACKENDS
class TestByFiniteDifferences:
    def check(self, function, *parts):
        return torch.autograd.gradcheck(function, parts, atol=1e-6, fast_mode=False)

    def test_potentials_and_value(self, backend, reach):
        options = {"eps": EPS, "reach": reach, "backend": backend} | TIGHT

        def run(cost, p, q):
            t = gk.sinkhorn_from_cost(cost, p.softmax(-1), q.softmax(-1), **options)
            return t.value, t.f, t.g

        assert self.check(run, *inputs(3, 4, 1))

    def test_products(self, backend, reach):
        options = {"eps": EPS, "reach": reach, "backend": backend} | TIGHT

        def run(cost, v, u):
            t = gk.sinkhorn_from_cost(cost, **options)
            return t.apply(v), t.apply_t(u), t.barycentric(v)

        parts = inputs(3, 4, 1)[0], cloud(1, 4, 2, seed=5), cloud(1, 3, 2, seed=6)
        assert self.check(run, *(part.detach().requires_grad_() for part in parts))

    def test_value_twice(self, backend, reach):
        options = {"eps": EPS, "reach": reach, "backend": backend} | TIGHT

        def run(cost, p, q):
            return gk.sinkhorn_from_cost(cost, p.softmax(-1), q.softmax(-1), **options).value

        assert torch.autograd.gradgradcheck(run, inputs(3, 3, 1), atol=1e-6)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "dot", "lp"])
def test_points_by_finite_differences(cost):
    x, y = cloud(4, 3, seed=0).requires_grad_(), cloud(5, 3, seed=1).requires_grad_()

    def run(x, y):
        t = gk.sinkhorn(x, y, eps=EPS, cost=cost, p=3.0, backend="native", **TIGHT)
        return t.value, t.f, t.barycentric(y)

    assert torch.autograd.gradcheck(run, (x, y), atol=1e-6)


class TestConjugateGradients:
    """Of a large plan the gradient through the potentials needs products alone, and is a dense solve's."""

    def gradients(self, dtype, reach, B=2, N=23, M=31):
        cost, p, q = (part.detach().to(dtype).requires_grad_() for part in inputs(N, M, B))
        a, b = p.softmax(-1) + 0, q.softmax(-1) + 0
        with torch.no_grad():
            a[:, 2], b[:, 4] = 0, 0
            a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
        a, b = a.requires_grad_(), b.requires_grad_()
        t = gk.sinkhorn_from_cost(cost, a, b, eps=EPS, reach=reach, backend="native", tol=1e-6, max_iter=5000)
        loss = t.apply(cloud(B, M, 3, seed=5).to(dtype)).sin().sum() + t.f.cos().sum() + t.value.sum()
        return torch.autograd.grad(loss, (cost, a, b))

    @REACHES
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
    def test_is_that_of_the_dense_solve(self, dtype, reach, monkeypatch):
        dense = self.gradients(dtype, reach)
        monkeypatch.setattr(kernels, "DENSE", 8)
        monkeypatch.setattr(kernels, "STEPS_OF_DENSE", 1)
        with monkeypatch.context() as only:
            only.setattr(potentials, "through_potentials", None)
            found = self.gradients(dtype, reach)
        # where it would take too many steps, the dense solve follows
        monkeypatch.setattr(kernels, "STEPS_OF_DENSE", 1000)
        after = self.gradients(dtype, reach)
        for one, exact, other in zip(found, dense, after, strict=True):
            assert torch.equal(other, exact)
            assert torch.allclose(one, exact, rtol=1e-9, atol=1e-5 if dtype == torch.float32 else 1e-10)

    def test_twice(self, monkeypatch):
        def hessian():
            cost = inputs(7, 11, 1)[0]
            t = gk.sinkhorn_from_cost(cost, eps=EPS, backend="native", **TIGHT)
            (first,) = torch.autograd.grad(t.f.sin().sum() + t.plan().cos().sum(), cost, create_graph=True)
            return torch.autograd.grad((first * cloud(1, 7, 11, seed=4)).sum(), cost)[0]

        dense = hessian()
        monkeypatch.setattr(kernels, "DENSE", 8)
        assert torch.allclose(hessian(), dense, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine", "dot"])
def test_a_cloud_with_itself(cost):
    # both of its gradients are one product
    x, a = cloud(2, 13, 5, seed=0).requires_grad_(), weights(2, 13, seed=1)
    moves = cloud(2, 13, 5, seed=3)

    def both(x, y):
        t = gk.sinkhorn(x, y, a, a, eps=EPS, cost=cost, backend="native", **TIGHT)
        first = torch.autograd.grad(
            (t.value * cloud(2, seed=2)).sum() + t.f.sin().sum(), x, create_graph=True
        )[0]
        return first, torch.autograd.grad((first * moves).sum(), x)[0]

    # a view is another tensor to autograd, and goes by two products
    for one, two in zip(both(x, x), both(x, x.view_as(x)), strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-11)


@REACHES
def test_divergence_by_finite_differences(reach):
    x, y = cloud(3, 2, seed=0).requires_grad_(), cloud(4, 2, seed=1).requires_grad_()

    def run(x, y):
        return gk.sinkhorn_divergence(x, y, eps=EPS, reach=reach, **TIGHT)

    assert torch.autograd.gradcheck(run, (x, y), atol=1e-6)
    assert torch.autograd.gradgradcheck(run, (x, y), atol=1e-5)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "lp"])
def test_divergence_is_flat_at_equal_clouds(cost):
    x = cloud(6, 3, seed=0)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(gk.sinkhorn_divergence(x, y, eps=2.0, cost=cost, **TIGHT), y)
    assert gradient.abs().max() < 1e-10


def test_gradient_of_value_to_weights_is_the_potential():
    cost, p, q = inputs()
    a, b = p.softmax(-1).detach().requires_grad_(), q.softmax(-1).detach().requires_grad_()
    t = gk.sinkhorn_from_cost(cost, a, b, eps=EPS, **TIGHT)
    to_cost, to_a, to_b = torch.autograd.grad(t.value.sum(), (cost, a, b))
    assert torch.allclose(to_cost, t.plan())
    assert torch.allclose(to_a, t.f)
    assert torch.allclose(to_b, t.g)


@BACKENDS
def test_zero_weights_forbidden_pairs_and_padding_give_finite_gradients(backend):
    cost = cloud(2, 6, 7, seed=0).abs()
    cost[:, 4, 1:3] = math.inf
    cost[1, :, 6] = math.inf
    a, b = weights(2, 6, seed=1), weights(2, 7, seed=2)
    b[1, 6] = 0
    b = b / b.sum(-1, keepdim=True)
    lengths = torch.tensor([6, 6]), torch.tensor([7, 7])
    for options in ({}, {"lengths": lengths}):
        leaves = [part.clone().requires_grad_() for part in (cost, a, b)]
        t = gk.sinkhorn_from_cost(*leaves, eps=EPS, backend=backend, **TIGHT, **options)
        finite = t.f.masked_fill(t.f.isinf(), 0).sin().sum() + t.g.masked_fill(t.g.isinf(), 0).sin().sum()
        gradients = torch.autograd.grad(t.value.sum() + finite + t.plan().square().sum(), leaves)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert (gradients[0][cost.isinf()] == 0).all()


@BACKENDS
def test_ragged_gradients_are_those_of_separate_problems(backend):
    x, y = cloud(2, 6, 3, seed=0), cloud(2, 5, 3, seed=1)
    n, m = torch.tensor([6, 2]), torch.tensor([3, 5])
    x[1, 2:], y[0, 3:] = math.nan, math.nan
    x.requires_grad_(), y.requires_grad_()

    def loss(x, y, **options):
        t = gk.sinkhorn(x, y, eps=EPS, backend=backend, **TIGHT, **options)
        return (t.value + t.f.sin().sum(-1) + t.g.cos().sum(-1) * 0 + t.plan().square().sum((-2, -1))).sum()

    to_x, to_y = torch.autograd.grad(loss(x, y, lengths=(n, m)), (x, y))
    for k in range(2):
        own = [part[k, :size].detach().requires_grad_() for part, size in ((x, n[k]), (y, m[k]))]
        alone = torch.autograd.grad(loss(*own), own)
        assert torch.allclose(to_x[k, : n[k]], alone[0], atol=1e-10)
        assert torch.allclose(to_y[k, : m[k]], alone[1], atol=1e-10)
        assert (to_x[k, n[k] :] == 0).all()
        assert (to_y[k, m[k] :] == 0).all()


def test_euclidean_has_a_second_derivative_where_torch_has_one():
    """Torch 2.11 cannot differentiate cdist twice, and says so; 2.15 can."""
    x, y = cloud(3, 2, seed=0).requires_grad_(), cloud(4, 2, seed=1)

    def value(x):
        return gk.sinkhorn(x, y, eps=EPS, cost="euclidean", tol=1e-12, max_iter=100_000).value

    (gradient,) = torch.autograd.grad(value(x), x, create_graph=True)
    try:
        torch.autograd.grad(gradient.sum(), x)
    except RuntimeError as error:
        assert "_cdist_backward" in str(error)  # noqa: PT017  not every torch raises it
    else:
        assert torch.autograd.gradgradcheck(value, (x,))
