"""Transport where eps is far above the costs, far below them, and where reach is far above both."""

import math
import re

import pytest
import torch

import geokernels as gk
from geokernels.testing import cloud, unrolled_sinkhorn, weights

BACKENDS = pytest.mark.parametrize("backend", ["native", "reference"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
REACHES = pytest.mark.parametrize("reach", [None, 1.0, 1e6], ids=str)
SIZES = pytest.mark.parametrize("size", [(30, 40), (260, 70)], ids=["small", "large"])


def clouds(N, M):
    x, y = cloud(N, 3, seed=0), cloud(M, 3, seed=1) + 1
    return x, y, weights(N, seed=2), weights(M, seed=3)


def squares(x, y):
    return torch.cdist(x, y).square()


def expected(cost, a, b, eps):
    """The balanced value for eps far above the costs, but for terms of the order of 1 / eps^2."""
    means = [(cost * b).sum(-1, keepdim=True), (a[:, None] * cost).sum(0, keepdim=True)]
    mean = (means[0][:, 0] * a).sum()
    left = cost - means[0] - means[1] + mean
    return mean - (a[:, None] * b * left.square()).sum() / (2 * eps)


class TestEpsFarAboveTheCosts:
    @pytest.mark.parametrize("eps", [1e-3, 1e-1, 1.0, 10.0, 1e2, 1e3, 1e5, 1e8, 1e10, 1e12])
    @BACKENDS
    @DTYPES
    @SIZES
    def test_value_and_divergence(self, eps, backend, dtype, size):
        x, y, a, b = (part.to(dtype) for part in clouds(*size))
        options = {"eps": eps, "max_iter": 30, "tol": 0.0}
        if eps >= 1e3:
            options["tol"] = 1e-5 if dtype == torch.float32 else 1e-12
        t = gk.sinkhorn(x, y, a, b, **options, backend=backend)
        divergence = gk.sinkhorn_divergence(x, y, a, b, **options, backend=backend)
        x, y, a, b = (part.double() for part in (x, y, a, b))
        a, b = a / a.sum(), b / b.sum()
        problems = (x, y, a, b), (x, x, a, a), (y, y, b, b)
        if eps >= 1e3:
            assert t.converged
            values = [expected(squares(u, v), p, q, eps) for u, v, p, q in problems]
            slack = 300 / eps**2
        else:
            values = [gk.sinkhorn(*parts, **options, backend="reference").value for parts in problems]
            slack = 1e-5 if dtype == torch.float32 else 1e-11
        bound = 2e-6 if dtype == torch.float32 else 1e-11
        assert abs(t.value.double() - values[0]) <= bound * values[0] + slack
        assert (
            abs(divergence.double() - (values[0] - (values[1] + values[2]) / 2))
            <= 4 * bound * values[0] + slack
        )

    @pytest.mark.parametrize("reach", [0.3, 1.0, 1e6])
    @BACKENDS
    @DTYPES
    @SIZES
    def test_unbalanced(self, reach, backend, dtype, size):
        x, y, a, b = (part.to(dtype) for part in clouds(*size))
        mean = (a[:, None] * b * squares(x, y)).sum().double()
        before = -math.inf
        for eps in (1.0, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12):
            t = gk.sinkhorn(x, y, a, b, eps=eps, reach=reach, backend=backend)
            assert t.converged
            # the value rises with eps to the mean cost, which P = a b has without a penalty
            assert before * (1 - 1e-6) <= t.value <= mean * (1 + 1e-6)
            before = t.value
        assert abs(before - mean) <= 1e-6 * mean

    @BACKENDS
    @DTYPES
    @pytest.mark.parametrize("mass", [1e-12, 0.1, 3.0, 1e4])
    def test_masses_other_than_one(self, backend, dtype, mass):
        x, y, a, b = (part.to(dtype) for part in clouds(30, 40))
        cost = squares(x.double(), y.double())
        for eps, reach in ((1e3, None), (1e6, None), (1e6, 2.0), (5.0, 2.0)):
            t = gk.sinkhorn(x, y, mass * a, mass * b, eps=eps, reach=reach, backend=backend, tol=1e-6 * mass)
            wide = [part.double() * mass for part in (a, b)]
            truth, *_ = unrolled_sinkhorn(cost, *wide, eps, reach, iterations=60)
            assert abs(t.value - truth) <= 3e-6 * abs(truth) + 1e-7 * eps * mass * min(1, mass)

    def test_gradients_are_those_of_the_plan(self):
        x, y, _, _ = clouds(30, 40)
        x.requires_grad_()
        value = gk.sinkhorn(x, y, eps=1e9).value
        (found,) = torch.autograd.grad(value, x)
        torch.testing.assert_close(found, 2 * (x.detach() - y.mean(0)) / 30, rtol=1e-6, atol=1e-9)

    @BACKENDS
    def test_a_forbidden_pair_counts_as_such(self, backend):
        cost = squares(*clouds(5, 6)[:2])
        cost[1, 2] = math.inf
        values = [gk.sinkhorn_from_cost(cost, eps=eps, backend=backend).value / eps for eps in (1e5, 1e8)]
        # what is left of the cost is the divergence of a plan with a hole
        assert values[0] > 1e-3
        torch.testing.assert_close(*values, rtol=1e-2, atol=0)


class TestEpsFarBelowTheCosts:
    SENTENCE = re.escape("eps must be larger beside the costs, got")

    @pytest.mark.parametrize("eps", [10.0**-k for k in (3, 5, 6, 7, 8, 9, 10, 12, 15, 17, 20, 25, 30)])
    @REACHES
    @BACKENDS
    @DTYPES
    @SIZES
    def test_plans_are_bounded_or_refused(self, eps, reach, backend, dtype, size):
        x, y, a, b = (part.to(dtype) for part in clouds(*size))

        def solve():
            return gk.sinkhorn(x, y, a, b, eps=eps, reach=reach, backend=backend, max_iter=10)

        if eps < torch.finfo(dtype).eps:
            with pytest.raises(ValueError, match=self.SENTENCE):
                solve()
            return
        # in between it depends on the size of the potentials
        if eps < 100 * torch.finfo(dtype).eps:
            try:
                t = solve()
            except ValueError:
                return
        else:
            t = solve()
        assert t.plan().isfinite().all()
        assert t.plan().sum() < 1.5
        assert t.apply_t(torch.ones_like(a)).isfinite().all()

    @BACKENDS
    def test_says_what_helps(self, backend):
        x, y, _, _ = (part.float() for part in clouds(30, 40))
        with pytest.raises(ValueError, match="raise eps or scale them down, or give float64"):
            gk.sinkhorn(x, y, eps=1e-9, backend=backend)
        assert gk.sinkhorn(x.double(), y.double(), eps=1e-9, backend=backend, max_iter=5).plan().sum() < 1.1


class TestStoppedEarly:
    @pytest.mark.parametrize("eps", [1e-3, 1e-2, 1.0])
    @pytest.mark.parametrize("tol", [0.0, 1e-6])
    @pytest.mark.parametrize("anneal", [None, (10.0, 0.5)], ids=str)
    @BACKENDS
    @DTYPES
    @SIZES
    def test_columns_are_exact_and_rows_as_far_off_as_said(self, eps, tol, anneal, backend, dtype, size):
        x, y, a, b = (part.to(dtype) for part in clouds(*size))
        for max_iter in (1, 3):
            t = gk.sinkhorn(x, y, a, b, eps=eps, max_iter=max_iter, tol=tol, anneal=anneal, backend=backend)
            assert not t.converged
            plan = t.plan().double()
            # of a potential that a few thousand eps are held in
            rounding = 16 * torch.finfo(dtype).eps * max(1, t.f.abs().max(), t.g.abs().max()) / eps
            assert (plan.sum(0) - b).abs().sum() <= rounding * b.sum()
            assert abs(plan.sum() - b.sum()) <= rounding * b.sum()
            assert abs((plan.sum(1) - a).abs().sum() - t.error) <= 2 * rounding


class TestMassesThatOverflow:
    SENTENCE = (
        "reach must be larger beside the costs, got 0.1: the masses exp(-f / reach) overflow torch.float32"
    )

    @BACKENDS
    @SIZES
    def test_are_refused(self, backend, size):
        x, y, a, b = (part.float() for part in clouds(*size))
        x, y = x / x.norm(dim=-1, keepdim=True), y / y.norm(dim=-1, keepdim=True)
        options = {"eps": 0.05, "cost": "dot", "backend": backend, "max_iter": 100}
        with pytest.raises(ValueError, match=re.escape(self.SENTENCE)):
            gk.sinkhorn(40 * x, y, a, b, reach=0.1, **options)
        # in float64, or by a larger reach, these are numbers
        wide = (part.double() for part in (40 * x, y, a, b))
        assert gk.sinkhorn(*wide, reach=0.1, **options).value < -1e38
        assert gk.sinkhorn(40 * x, y, a, b, reach=1.0, **options).value.isfinite()


@BACKENDS
@DTYPES
@pytest.mark.parametrize("rows", [1, 7])
def test_a_point_that_reached_nobody_starts_anew(backend, dtype, rows):
    cost = squares(*clouds(rows, 9)[:2]).to(dtype)
    cost[:, 2] = math.inf
    options = {"eps": 0.5, "reach": 2.0, "backend": backend}
    t = gk.sinkhorn_from_cost(cost, **options)
    assert t.g[2] == math.inf
    warm = gk.sinkhorn_from_cost(cost, init=(t.f, t.g), **options)
    torch.testing.assert_close(warm.value, t.value)
    annealed = gk.sinkhorn_from_cost(cost, anneal=(5.0, 0.6), **options)
    torch.testing.assert_close(annealed.value, t.value, rtol=1e-4, atol=0)
    # what is forbidden no longer counts again
    cost[:, 2] = 1
    torch.testing.assert_close(
        gk.sinkhorn_from_cost(cost, init=(t.f, t.g), **options).value,
        gk.sinkhorn_from_cost(cost, **options).value,
        rtol=1e-4,
        atol=0,
    )


class TestReachFarAboveAll:
    @pytest.mark.parametrize("reach", [0.1, 1.0, 3.0, 10.0, 30.0, 1e2, 1e3, 1e4, 1e6, 1e9])
    @pytest.mark.parametrize("eps", [0.1, 0.05])
    @BACKENDS
    @DTYPES
    @SIZES
    def test_takes_no_more_than_twice_the_steps_of_hard_marginals(self, reach, eps, backend, dtype, size):
        x, y, a, b = (part.to(dtype) for part in clouds(*size))
        scale = squares(x, y).mean()
        options = {"eps": eps * float(scale), "backend": backend, "max_iter": 3000}
        hard = gk.sinkhorn(x, y, a, b, **options)
        t = gk.sinkhorn(x, y, a, b, reach=reach * float(scale), **options)
        assert hard.converged
        assert t.converged
        assert t.iterations <= 2 * hard.iterations

    @pytest.mark.parametrize("reach", [0.5, 20.0, 1e3, 1e5])
    @pytest.mark.parametrize("masses", [(1.0, 1.0), (1.0, 2.5), (1e-3, 10.0)], ids=str)
    @BACKENDS
    @SIZES
    def test_ends_where_both_marginals_follow_the_potentials(self, reach, masses, backend, size):
        x, y, a, b = clouds(*size)
        a, b = masses[0] * a, masses[1] * b
        options = {"eps": 1.0, "reach": reach, "tol": 1e-11, "max_iter": 5000}
        t = gk.sinkhorn(x, y, a, b, **options, backend=backend)
        assert t.converged
        plan = t.plan()
        for found, weight, potential in ((plan.sum(1), a, t.f), (plan.sum(0), b, t.g)):
            torch.testing.assert_close(found, weight * torch.exp(-potential / reach), rtol=1e-8, atol=1e-11)

    @BACKENDS
    def test_same_end_as_of_plain_half_steps(self, backend):
        x, y, a, b = clouds(20, 30)
        cost = squares(x, y)
        truth = unrolled_sinkhorn(cost, a, 2 * b, 1.0, 5.0, iterations=300)
        t = gk.sinkhorn_from_cost(cost, a, 2 * b, eps=1.0, reach=5.0, tol=1e-13, backend=backend)
        torch.testing.assert_close(t.value, truth[0])
        # a point without mass has no potential there
        torch.testing.assert_close(t.f[1:], truth[1][1:])
        torch.testing.assert_close(t.g[1:], truth[2][1:])
