"""Sinkhorn's values agree with their definition, and have the properties the docstrings claim."""

import math
from types import MappingProxyType

import pytest
import torch
from scipy.optimize import linprog

import geokernels as gk
from geokernels import reference
from geokernels.testing import assert_as_accurate, cloud, weights

# ragged on purpose: one point, sizes that divide no vector, the most rows of one group, and several groups
SHAPES = [(1, 1, 1, 1), (2, 1, 5, 3), (3, 17, 33, 4), (1, 77, 77, 16), (1, 256, 130, 8)]
SHAPES += [(1, 257, 40, 4), (2, 30, 700, 4), (1, 521, 333, 4)]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
BACKENDS = pytest.mark.parametrize("backend", ["native", "reference"])
REACHES = pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])


def problem(B=2, N=11, M=14, D=3, seed=0, dtype=torch.float64):
    """Costs of mean 1 between two clouds, and weights of which the first is zero."""
    cost = torch.cdist(cloud(B, N, D, seed=seed), 0.5 + cloud(B, M, D, seed=seed + 1)) ** 2
    parts = cost / cost.mean(), weights(B, N, seed=seed + 2), weights(B, M, seed=seed + 3)
    return [part.to(dtype) for part in parts]


@REACHES
@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(shape, dtype, reach):
    B, N, M, D = shape
    exact = problem(B, N, M, D)
    rounded = [part.to(dtype) for part in exact]
    # fixed work, so that both have made the same number of half-steps
    options = {"eps": 0.2, "reach": reach, "max_iter": 60, "tol": 0.0}
    ours = gk.sinkhorn_from_cost(*rounded, **options, backend="native")
    eager = gk.sinkhorn_from_cost(*rounded, **options, backend="reference")
    truth = gk.sinkhorn_from_cost(*(r.double() for r in rounded), **options, backend="reference")
    for name in ("value", "f", "g"):
        assert_as_accurate(name, *(getattr(t, name) for t in (ours, eager, truth)))
    assert_as_accurate("plan", ours.plan(), eager.plan(), truth.plan())
    if dtype == torch.float64:
        assert torch.allclose(ours.error, truth.error, rtol=1e-6, atol=1e-13)


@REACHES
def test_stops_where_the_reference_stops(reach):
    options = {"eps": 0.1, "reach": reach, "tol": 1e-4}
    ours, truth = (
        gk.sinkhorn_from_cost(*problem(B=5), **options, backend=k) for k in ("native", "reference")
    )
    assert torch.equal(ours.iterations, truth.iterations)
    assert torch.allclose(ours.error, truth.error, rtol=1e-9)
    assert ours.converged.all()


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "dot", "lp"])
@DTYPES
def test_costs_from_points(cost, dtype):
    x, y = (10 + cloud(2, 9, 4, seed=0)).to(dtype), (10 + cloud(2, 12, 4, seed=1)).to(dtype)
    difference = x[:, :, None].double() - y[:, None].double()
    exact = {
        "sqeuclidean": difference.square().sum(-1),
        "euclidean": difference.norm(dim=-1),
        "cosine": 1 - torch.cosine_similarity(x[:, :, None].double(), y[:, None].double(), dim=-1),
        "dot": -(x[:, :, None].double() * y[:, None].double()).sum(-1),
        "lp": difference.abs().pow(1.5).sum(-1),
    }[cost]
    found = reference.pairwise_cost(x, y, cost, 1.5)
    # the centred Gram form rounds at the scale of the cloud's own extent, not of its distance from 0
    scale = exact.abs().max().clamp_min(1)
    assert (found.double() - exact).abs().max() < 20 * torch.finfo(dtype).eps * scale
    options = {"eps": 0.5 * exact.abs().mean().item(), "tol": 1e-4}
    solved = gk.sinkhorn(x, y, cost=cost, p=1.5, **options)
    direct = gk.sinkhorn_from_cost(exact.to(dtype), **options)
    assert torch.allclose(solved.value, direct.value, rtol=1e-4)


def test_value_is_the_minimum_for_small_eps():
    cost, a, b = problem(B=1, N=5, M=6)
    rows, columns = torch.eye(5).repeat_interleave(6, 1), torch.eye(6).repeat(1, 5)
    constraints, marginals = torch.cat([rows, columns]), torch.cat([a[0], b[0]])
    best = linprog(
        cost[0].flatten().cpu().numpy(), A_eq=constraints.cpu().numpy(), b_eq=marginals.cpu().numpy()
    ).fun
    solved = gk.sinkhorn_from_cost(cost, a, b, eps=1e-3, tol=1e-7, max_iter=100_000)
    assert abs(solved.value.item() - best) < 30 * 1e-3
    assert abs((solved.plan() * cost).sum().item() - best) < 1e-3


@BACKENDS
class TestLaws:
    def solve(self, backend, *parts, **options):
        return gk.sinkhorn_from_cost(
            *parts, **({"eps": 0.1, "tol": 1e-9, "max_iter": 10_000, "backend": backend} | options)
        )

    def test_marginals(self, backend):
        cost, a, b = problem()
        t = self.solve(backend, cost, a, b)
        assert t.converged.all()
        plan = t.plan()
        rows, columns = (plan.sum(-1) - a).abs().sum(-1), (plan.sum(-2) - b).abs().sum(-1)
        assert ((rows + columns) <= 1.01e-9).all()
        assert torch.allclose(rows + columns, t.error, atol=1e-13)

    def test_unbalanced_marginals_follow_the_potentials(self, backend):
        cost, a, b = problem()
        t = self.solve(backend, cost, a, 2 * b, reach=0.5)
        assert t.converged.all()
        assert torch.allclose(t.plan().sum(-1), a * torch.exp(-t.f / 0.5), atol=1e-9)
        assert torch.allclose(t.plan().sum(-2), 2 * b * torch.exp(-t.g / 0.5), atol=1e-9)

    @REACHES
    def test_duality_gap_closes(self, backend, reach):
        cost, a, b = problem()
        t = self.solve(backend, cost, a, b, reach=reach, tol=1e-12)

        def divergence(p, q):
            return torch.where(p > 0, p * (p / q).log(), 0) - p + q

        plan = t.plan()
        primal = (plan * cost).sum((-2, -1))
        primal = primal + 0.1 * divergence(plan, a[..., :, None] * b[..., None, :]).nan_to_num(0).sum(
            (-2, -1)
        )
        if reach is not None:
            primal = primal + reach * divergence(plan.sum(-1), a).nan_to_num(0).sum(-1)
            primal = primal + reach * divergence(plan.sum(-2), b).nan_to_num(0).sum(-1)
        assert torch.allclose(t.value, primal, rtol=1e-9)

    def test_permutation(self, backend):
        cost, a, b = problem()
        rows, columns = torch.randperm(11), torch.randperm(14)
        t = self.solve(backend, cost, a, b)
        s = self.solve(backend, cost[:, rows][:, :, columns], a[:, rows], b[:, columns])
        assert torch.allclose(s.plan(), t.plan()[:, rows][:, :, columns], atol=1e-12)
        assert torch.allclose(s.f, t.f[:, rows], atol=1e-10)

    def test_scaling_cost_and_eps_together(self, backend):
        cost, a, b = problem()
        t, s = self.solve(backend, cost, a, b), self.solve(backend, 7 * cost, a, b, eps=0.7)
        assert torch.allclose(s.plan(), t.plan(), atol=1e-12)
        assert torch.allclose(s.value, 7 * t.value)

    def test_adding_a_constant(self, backend):
        cost, a, b = problem()
        t, s = self.solve(backend, cost, a, b), self.solve(backend, cost + 5, a, b)
        assert torch.allclose(s.plan(), t.plan(), atol=1e-10)
        assert torch.allclose(s.value, t.value + 5)
        assert torch.allclose(s.f, t.f + 2.5)

    def test_gauge(self, backend):
        cost, a, b = problem()
        t = self.solve(backend, cost, a, b)
        assert torch.allclose((a * t.f).sum(-1), (b * t.g).sum(-1))

    def test_zero_weight_is_absence(self, backend):
        cost, a, b = problem()
        t, s = self.solve(backend, cost, a, b), self.solve(backend, cost[:, 1:, 1:], a[:, 1:], b[:, 1:])
        assert torch.allclose(t.value, s.value, rtol=1e-12)
        assert torch.allclose(t.f[:, 1:], s.f, atol=1e-12)
        assert (t.plan()[:, 0] == 0).all()
        # its potential is what the other side's says
        expected = -0.1 * torch.logsumexp((t.g[:, 1:] - cost[:, 0, 1:]) / 0.1 + b[:, 1:].log(), -1)
        assert torch.allclose(t.f[:, 0], expected, atol=1e-9)

    def test_warm_start_ends_at_once(self, backend):
        cost, a, b = problem()
        cold = self.solve(backend, cost, a, b)
        warm = self.solve(backend, cost, a, b, init=(cold.f, cold.g))
        assert (cold.iterations > 5).all()
        assert (warm.iterations == 1).all()
        assert torch.allclose(warm.f, cold.f, atol=1e-8)

    def test_batch_of_one_is_the_unbatched_problem(self, backend):
        cost, a, b = problem(B=3)
        t = self.solve(backend, cost, a, b)
        for k in range(3):
            alone = self.solve(backend, cost[k], a[k], b[k])
            assert alone.value.shape == ()
            assert torch.allclose(alone.f, t.f[k], atol=1e-13)
            assert alone.iterations == t.iterations[k]

    def test_each_problem_stops_by_itself(self, backend):
        cost, a, b = problem(B=3)
        cost = cost * torch.tensor([0.1, 1.0, 4.0])[:, None, None]
        t = self.solve(backend, cost, a, b)
        assert t.iterations[0] < t.iterations[1] < t.iterations[2]
        assert t.converged.all()

    def test_ragged_equals_separate(self, backend):
        cost, a, b = problem(B=3)
        n, m = torch.tensor([11, 4, 1]), torch.tensor([2, 14, 1])
        for k in range(3):
            a[k, : n[k]], b[k, : m[k]] = 1 / n[k].item(), 1 / m[k].item()
            cost[k, n[k] :], cost[k, :, m[k] :], a[k, n[k] :], b[k, m[k] :] = math.nan, math.nan, 9, math.nan
        t = self.solve(backend, cost, a, b, lengths=(n, m))
        uniform = self.solve(backend, cost, lengths=(n, m))
        for k in range(3):
            alone = self.solve(backend, cost[k, : n[k], : m[k]])
            assert torch.allclose(t.f[k, : n[k]], alone.f, atol=1e-12)
            assert torch.allclose(uniform.value[k], alone.value, atol=1e-12)
            assert torch.allclose(t.plan()[k, : n[k], : m[k]], alone.plan(), atol=1e-12)
            assert (t.f[k, n[k] :] == 0).all()
            assert (t.plan()[k, n[k] :] == 0).all()
            assert (t.plan()[k, :, m[k] :] == 0).all()

    def test_products_are_those_of_the_plan(self, backend):
        cost, a, b = problem()
        t = self.solve(backend, cost, a, b)
        v, u = cloud(2, 14, 5, seed=7), cloud(2, 11, 5, seed=8)
        assert torch.allclose(t.apply(v), t.plan() @ v)
        assert torch.allclose(t.apply(v[..., 0]), (t.plan() @ v)[..., 0])
        assert torch.allclose(t.apply_t(u), t.plan().mT @ u)
        ratio = t.plan() @ v / t.plan().sum(-1, keepdim=True)
        assert torch.allclose(t.barycentric(v)[:, 1:], ratio[:, 1:])
        assert torch.isfinite(t.barycentric(v)).all()

    def test_forbidden_pairs_carry_nothing(self, backend):
        cost, a, b = problem(N=6, M=6)
        cost[:, 2:, :1] = math.inf
        a, b = torch.full((2, 6), 1 / 6.0).double(), torch.full((2, 6), 1 / 6.0).double()
        t = self.solve(backend, cost, a, b, max_iter=5000)
        assert t.converged.all()
        assert (t.plan()[:, 2:, :1] == 0).all()

    def test_a_point_without_partner_keeps_its_mass_when_unbalanced(self, backend):
        cost, a, b = problem(N=6, M=6)
        cost[:, 2] = math.inf
        t = self.solve(backend, cost, a, b, reach=0.5)
        assert t.converged.all()
        assert (t.f[:, 2] == math.inf).all()
        assert (t.plan()[:, 2] == 0).all()
        keep = torch.arange(6) != 2
        rest = self.solve(backend, cost[:, keep], a[:, keep], b, reach=0.5)
        # the mass that stays costs reach, and the product of the weights is larger by it
        left = a[:, 2] * (0.5 + 0.1 * b.sum(-1))
        assert torch.allclose(t.value, rest.value + left)

    def test_coinciding_points(self, backend):
        x = torch.ones(1, 5, 3).double()
        t = gk.sinkhorn(x, x, eps=0.1, backend=backend)
        assert torch.allclose(t.plan(), torch.full((1, 5, 5), 1 / 25).double())
        assert t.value.abs() < 1e-14

    def test_one_point(self, backend):
        t = gk.sinkhorn(torch.zeros(1, 2), torch.ones(1, 2), eps=0.1, backend=backend)
        assert torch.allclose(t.plan(), torch.ones(1, 1))
        assert torch.allclose(t.value, torch.tensor(2.0))

    def test_no_problems(self, backend):
        t = self.solve(backend, torch.zeros(0, 3, 4))
        assert t.value.shape == (0,)
        assert t.plan().shape == (0, 3, 4)

    def test_infeasible_never_claims_convergence(self, backend):
        # rows 0 and 1 may go to column 0 alone, which cannot take both
        cost = torch.tensor([[0.0, math.inf], [0.0, math.inf], [0.0, 0.0]])
        t = self.solve(backend, cost, max_iter=300)
        assert not t.converged
        assert torch.isfinite(t.error)


@DTYPES
def test_small_eps_reaches_the_same_error(dtype):
    cost = torch.cdist(cloud(1, 77, 16, seed=0), cloud(1, 77, 16, seed=1)) ** 2
    cost = (cost / cost.mean()).to(dtype)
    options = {"eps": 5e-4, "max_iter": 400, "tol": 0.0}
    ours = gk.sinkhorn_from_cost(cost, **options, backend="native")
    truth = gk.sinkhorn_from_cost(cost.double(), **options, backend="reference")
    # in float32 the potentials themselves round by eps(float32) * |f| / eps, relatively
    assert torch.allclose(ours.error.double(), truth.error, rtol=0.05 if dtype == torch.float32 else 1e-8)
    assert torch.allclose(ours.value.double(), truth.value, rtol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("extra", [0.0, 300.0], ids=["far", "farther"])
def test_unbalanced_far_points(extra):
    # a pair that hardly anything reaches: its row of the kernel matrix underflows unless it is scaled
    cost = torch.rand(1, 8, 9, generator=torch.Generator().manual_seed(0)) + 0.1
    cost[0, 0] += 20 + extra
    cost[0, :, 1] += 30
    options = {"eps": 0.05, "reach": 1.0, "max_iter": 300, "tol": 1e-6}
    ours = gk.sinkhorn_from_cost(cost, **options, backend="native")
    truth = gk.sinkhorn_from_cost(cost.double(), **options, backend="reference")
    assert torch.allclose(ours.f.double(), truth.f, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours.g.double(), truth.g, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours.value.double(), truth.value, rtol=1e-5)


def test_error_is_that_of_the_potentials_returned():
    # float32 cannot hold potentials well enough for this eps: it must say so rather than quote the iterate
    cost, a, b = problem(B=1, N=40, M=40, dtype=torch.float32)
    t = gk.sinkhorn_from_cost(100 * cost, a, b, eps=0.05, tol=1e-7, max_iter=50_000)
    E = torch.exp((t.f.double()[:, :, None] + t.g.double()[:, None] - 100 * cost.double()) / 0.05)
    plan = a.double()[:, :, None] * b.double()[:, None] * E
    actual = (plan.sum(-1) - a).abs().sum(-1) + (plan.sum(-2) - b).abs().sum(-1)
    assert 0.3 * actual < t.error < 3 * actual + 1e-6
    assert not t.converged


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_half_precision_is_computed_in_float32(dtype):
    x, y = cloud(2, 9, 4, seed=0).to(dtype), cloud(2, 7, 4, seed=1).to(dtype)
    a, b = weights(2, 9, seed=2).to(dtype), weights(2, 7, seed=3).to(dtype)
    half = gk.sinkhorn(x, y, a, b, eps=0.5)
    wide = [part.float() for part in (x, y, a, b)]
    wide[3] = wide[3] * (wide[2].sum(-1, keepdim=True) / wide[3].sum(-1, keepdim=True))
    single = gk.sinkhorn(*wide, eps=0.5)
    assert half.value.dtype == torch.float32
    assert torch.equal(half.value, single.value)
    assert half.converged.all()
    assert half.barycentric(y).dtype == dtype


class TestDivergence:
    def test_zero_between_equal_clouds(self):
        x = cloud(2, 12, 3, seed=0)
        assert (gk.sinkhorn_divergence(x, x, eps=0.3) == 0).all()

    @DTYPES
    @pytest.mark.parametrize("cost", ["sqeuclidean", "cosine", "dot"])
    def test_zero_between_copies(self, cost, dtype):
        # the costs of a cloud with itself are made by halves, and of equal clouds alike
        for N in (3, 13, 64):
            x = cloud(2, N, 21, seed=N).to(dtype)
            assert (gk.sinkhorn_divergence(x, x.clone(), eps=0.3, cost=cost) == 0).all()

    @REACHES
    def test_symmetric_and_positive(self, reach):
        x, y = cloud(2, 12, 3, seed=0), cloud(2, 9, 3, seed=1)
        a, b = weights(2, 12, seed=2), weights(2, 9, seed=3)
        options = {"eps": 0.3, "tol": 1e-10, "reach": reach}
        there, back = (
            gk.sinkhorn_divergence(x, y, a, b, **options),
            gk.sinkhorn_divergence(y, x, b, a, **options),
        )
        assert (there > 0).all()
        assert torch.allclose(there, back)

    def test_translation_costs_its_square(self):
        x = cloud(12, 3, seed=0)
        shift = torch.tensor([1.0, 2.0, 2.0]).double()
        assert torch.allclose(gk.sinkhorn_divergence(x, x + shift, eps=3, tol=1e-9), shift.square().sum())

    def test_ragged(self):
        x, y = cloud(2, 8, 3, seed=0), cloud(2, 9, 3, seed=1)
        lengths = torch.tensor([8, 3]), torch.tensor([4, 9])
        ragged = gk.sinkhorn_divergence(x, y, eps=0.3, lengths=lengths, tol=1e-9)
        for k in range(2):
            alone = gk.sinkhorn_divergence(x[k, : lengths[0][k]], y[k, : lengths[1][k]], eps=0.3, tol=1e-9)
            assert torch.allclose(ragged[k], alone)

    def test_masses_count_when_unbalanced(self):
        x = cloud(6, 2, seed=0)
        a = torch.full((6,), 1 / 6).double()
        half = gk.sinkhorn_divergence(x, x, a, a / 2, eps=0.2, reach=1.0, tol=1e-10)
        assert half > 0
        assert gk.sinkhorn_divergence(x, x, a, a, eps=0.2, reach=1.0, tol=1e-10) == 0


class TestManyRows:
    """Costs whose rows are swept in groups keep to what holds for one group."""

    options = MappingProxyType({"eps": 0.1, "tol": 1e-9, "max_iter": 10_000, "backend": "native"})

    def test_ragged_equals_separate(self):
        cost, a, b = problem(B=3, N=401, M=310)
        n, m = torch.tensor([401, 257, 3]), torch.tensor([2, 310, 260])
        for k in range(3):
            a[k, : n[k]], b[k, : m[k]] = 1 / n[k].item(), 1 / m[k].item()
            cost[k, n[k] :], cost[k, :, m[k] :], a[k, n[k] :], b[k, m[k] :] = math.nan, math.nan, 9, math.nan
        t = gk.sinkhorn_from_cost(cost, a, b, lengths=(n, m), **self.options)
        for k in range(3):
            alone = gk.sinkhorn_from_cost(cost[k, : n[k], : m[k]], **self.options)
            assert torch.allclose(t.f[k, : n[k]], alone.f, atol=1e-11)
            assert torch.allclose(t.plan()[k, : n[k], : m[k]], alone.plan(), atol=1e-11)
            assert (t.f[k, n[k] :] == 0).all()
            assert (t.plan()[k, :, m[k] :] == 0).all()

    def test_zero_weights_and_points_without_partner(self):
        cost, a, b = problem(B=1, N=301, M=290)
        cost[:, 140], cost[:, :, 7], a[:, 299], b[:, 3] = math.inf, math.inf, 0, 0
        a, b = a / a.sum(), b / b.sum()
        options = self.options | {"reach": 0.5}
        ours, truth = (
            gk.sinkhorn_from_cost(cost, a, b, **options | {"backend": k}) for k in ("native", "reference")
        )
        for name in ("value", "f", "g", "error"):
            assert torch.allclose(getattr(ours, name), getattr(truth, name), rtol=1e-8, atol=1e-10)
        assert ours.f[0, 140] == ours.g[0, 7] == math.inf
        keep = cost.clone()
        keep[:, 140], keep[:, :, 7] = 1.0, 1.0
        ours, truth = (
            gk.sinkhorn_from_cost(keep, a, b, **self.options | {"backend": k})
            for k in ("native", "reference")
        )
        assert torch.allclose(ours.f, truth.f, atol=1e-9)
        assert torch.allclose(ours.g, truth.g, atol=1e-9)

    def test_from_known_potentials(self):
        cost, a, b = problem(B=1, N=300, M=270)
        cold = gk.sinkhorn_from_cost(cost, a, b, **self.options)
        warm = gk.sinkhorn_from_cost(cost, a, b, init=(cold.f, cold.g), **self.options)
        assert cold.iterations > 5
        assert warm.iterations == 1
        assert torch.allclose(warm.f, cold.f, atol=1e-8)

    @REACHES
    def test_value_below_eps(self, reach):
        cost, a, b = problem(B=1, N=300, M=270)
        options = self.options | {"eps": 1e4, "reach": reach and 1e4}
        ours, truth = (
            gk.sinkhorn_from_cost(cost, a, b, **options | {"backend": k}) for k in ("native", "reference")
        )
        assert torch.allclose(ours.value, truth.value, rtol=1e-9)

    def test_infeasible_never_claims_convergence(self):
        cost = torch.zeros(300, 2)
        cost[:200, 1] = math.inf
        t = gk.sinkhorn_from_cost(cost, eps=0.1, max_iter=300, backend="native")
        assert not t.converged
        assert torch.isfinite(t.error)


def test_an_unknown_backend_is_refused():
    cost = cloud(300, 20, seed=0).abs()
    with pytest.raises(gk.BackendError, match="has no backend 'fast'"):
        gk.sinkhorn_from_cost(cost, eps=1.0, backend="fast")
