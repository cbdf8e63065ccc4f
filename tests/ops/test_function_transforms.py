"""torch.func, dual numbers and Hessians through everything public: forward mode agrees with reverse mode."""

import pytest
import torch
from torch import func
from torch.autograd import forward_ad, functional

import geokernels as gk
from geokernels import losses
from geokernels.compat import pot
from geokernels.compat.geomloss import SamplesLoss
from geokernels.testing import cloud, orthonormal, weights

pytestmark = [
    pytest.mark.cpu,
    # torch scripts decompositions when it first makes a dual number
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
    # torch.compile instantiates the functions that it looks into
    pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning"),
]

EXACT = {"eps": 0.5, "tol": 1e-12, "max_iter": 5000}
COSTS = ["sqeuclidean", "euclidean", "cosine", "dot", "lp"]


def moves_of(*inputs, seed=7):
    chance = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(x.shape, generator=chance, dtype=x.dtype) for x in inputs)


def assert_transposed(run, *inputs, moves=None, rtol=1e-6, atol=1e-9):
    """Hold the tangent of ``run``, by torch.func and by dual numbers, to its gradient."""
    moves = moves_of(*inputs) if moves is None else moves
    found, tangent = func.jvp(run, inputs, moves)
    up = moves_of(found, seed=8)[0]
    leaves = [x.clone().requires_grad_() for x in inputs]
    grads = torch.autograd.grad(run(*leaves), leaves, up, allow_unused=True)
    pulled = sum((g * v).sum() for g, v in zip(grads, moves, strict=True) if g is not None)
    assert tangent.abs().max() > 1e-6
    torch.testing.assert_close((up * tangent).sum(), pulled, rtol=rtol, atol=atol)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, v) for x, v in zip(inputs, moves, strict=True)]
        again = forward_ad.unpack_dual(run(*duals)).tangent
    torch.testing.assert_close(again, tangent, rtol=1e-10, atol=1e-12)


class TestTransport:
    @pytest.mark.parametrize("backend", ["native", "reference"])
    @pytest.mark.parametrize("reach", [None, 2.0])
    @pytest.mark.parametrize("cost", COSTS)
    @pytest.mark.parametrize("part", ["value", "plan"])
    def test_small_clouds(self, part, cost, reach, backend):
        def run(x, y):
            found = gk.sinkhorn(x, y, cost=cost, p=1.5, reach=reach, backend=backend, **EXACT)
            return found.value if part == "value" else found.plan()

        assert_transposed(run, cloud(2, 6, 3, seed=0), cloud(2, 5, 3, seed=1))

    @pytest.mark.parametrize("reach", [None, 2.0])
    @pytest.mark.parametrize("cost", COSTS)
    def test_large_clouds_are_streamed(self, cost, reach):
        def run(x, y, b):
            found = gk.sinkhorn(x, y, None, b, cost=cost, p=1.5, reach=reach, **EXACT)
            return torch.cat([found.value[None], found.f[:5], found.barycentric(y)[:9, 0]])

        b = weights(40, seed=2)
        inputs = 0.5 * cloud(260, 2, seed=0), 0.5 * cloud(40, 2, seed=1), b
        moves = moves_of(*inputs)
        # equal masses stay equal
        moves = *moves[:2], (moves[2] - moves[2].mean()) * 0.01
        assert_transposed(run, *inputs, moves=moves, rtol=1e-4, atol=1e-6)

    def test_given_costs_weights_and_forbidden_pairs(self):
        cost = cloud(2, 4, 5, seed=0).abs()
        forbidden = torch.zeros(4, 5, dtype=torch.bool)
        forbidden[1, 2] = True

        def run(cost, a, b):
            cost = cost.masked_fill(forbidden, torch.inf)
            found = gk.sinkhorn_from_cost(cost, a, b, reach=1.5, **EXACT)
            return torch.cat([found.value[:, None], found.f, found.g, found.plan().flatten(1)], -1)

        assert_transposed(run, cost, weights(2, 4, seed=1), weights(2, 5, seed=2))

    def test_ragged_problems(self):
        lengths = torch.tensor([3, 6]), torch.tensor([5, 2])

        def run(x, y):
            return gk.sinkhorn(x, y, lengths=lengths, **EXACT).barycentric(y)

        assert_transposed(run, cloud(2, 6, 3, seed=0), cloud(2, 5, 3, seed=1))

    def test_by_finite_differences(self):
        x, y = cloud(6, 3, seed=0), cloud(5, 3, seed=1)
        (v,) = moves_of(x)

        def value(x):
            return gk.sinkhorn(x, y, **EXACT).value

        step = 1e-5
        difference = (value(x + step * v) - value(x - step * v)) / (2 * step)
        torch.testing.assert_close(func.jvp(value, (x,), (v,))[1], difference, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("cost", ["euclidean", "lp"])
    @pytest.mark.parametrize("N", [6, 257])
    def test_points_that_coincide_stand_still_for_each_other(self, N, cost):
        x = cloud(N, 2, seed=0)
        p = 1.0
        assert_transposed(lambda x, y: gk.sinkhorn(x, y, cost=cost, p=p, **EXACT).value, x, x[:5].clone())

    def test_divergence_and_displacement(self):
        x, y = cloud(2, 6, 3, seed=0), cloud(2, 7, 3, seed=1)
        assert_transposed(lambda x, y: gk.sinkhorn_divergence(x, y, reach=1.0, **EXACT), x, y)
        times = torch.tensor([0.2, 0.7], dtype=x.dtype)
        assert_transposed(lambda x, y, t: gk.displacement(x, y, t), x, y, times)
        assert_transposed(lambda x, y: gk.displacement(x, y, times, plan="entropic", eps=0.5), x, y)


class TestSubspaces:
    @pytest.mark.parametrize("backend", ["native", "reference"])
    def test_bases(self, backend):
        def run(x):
            found = gk.subspace_basis(x, 3, backend=backend)
            return torch.cat([(found.basis @ found.basis.mT).flatten(1), found.values], -1)

        assert_transposed(run, cloud(2, 6, 9, seed=0))
        # equal values, and a direction that is none
        equal = torch.eye(4, 6, dtype=torch.float64)
        equal[3] = 0
        assert_transposed(lambda x: (b := gk.subspace_basis(x, 3, backend=backend).basis) @ b.mT, equal)

    @pytest.mark.parametrize("backend", ["native", "reference"])
    @pytest.mark.parametrize("K, L", [(3, 3), (2, 4)])
    def test_geodesic_cosine(self, K, L, backend):
        p, q = orthonormal(2, 9, K, seed=2), orthonormal(2, 9, L, seed=3)
        # an angle of zero, and a zero column
        q[0, :, 0] = p[0, :, 0]
        p[1, :, 1] = 0
        x, y = cloud(2, 5, 9, seed=0), cloud(2, 5, 9, seed=1)
        # a row without direction
        x[0, 0] = 0
        assert_transposed(lambda *args: gk.geodesic_cosine(*args, backend=backend), x, y, p, q)

    def test_angles_and_a_fixed_flow(self):
        x, y = cloud(3, 9, seed=0), cloud(4, 9, seed=1)
        bases = (orthonormal(9, 2, seed=2), orthonormal(9, 2, seed=3))
        flow = gk.geodesic_flow(*bases)
        assert_transposed(lambda x, y: gk.geodesic_cosine_along(x, y, flow), x, y[:3])

        def angles(x, y):
            return gk.principal_angles(gk.subspace_basis(x).basis, gk.subspace_basis(y).basis)

        assert_transposed(angles, x, y)

    def test_compiled_angles_refuse_whatever_derivative_is_asked_for(self):
        p, q = orthonormal(9, 2, seed=0), orthonormal(9, 3, seed=1)

        def run(p):
            return gk.principal_angles(p, q, backend="native").sum()

        for derivative in (
            func.grad(run),
            func.jacfwd(run),
            func.grad(lambda p: func.vmap(run)(p[None]).sum()),
        ):
            with pytest.raises(gk.BackendError, match="the compiled angles have no derivative"):
                derivative(p)


class TestFacesAndLosses:
    def test_losses(self):
        rows = [cloud(5, 12, seed=seed) for seed in range(4)]
        assert_transposed(losses.geodesic_consistency_loss, *rows)
        assert_transposed(losses.geodesic_regularisation_loss, *rows[:2])
        assert_transposed(losses.directional_loss, *rows)
        # constant but for the picture: the fused loss in reverse mode
        assert_transposed(lambda x: losses.geodesic_consistency_loss(x, *rows[1:]), rows[0])

    @pytest.mark.parametrize("N", [20, 260])
    def test_samples_loss(self, N):
        loss = SamplesLoss("sinkhorn", p=2, blur=0.7, tol=1e-12, max_iter=5000)
        assert_transposed(loss, cloud(N, 3, seed=0), cloud(9, 3, seed=1))

    def test_pot(self):
        a, b = weights(4, seed=0), weights(5, seed=1)

        def cost_of_plan(M):
            return pot.sinkhorn2(a, b, M, 0.5, stopThr=1e-12, numItermax=5000)

        assert_transposed(cost_of_plan, cloud(4, 5, seed=2).abs())


Y = cloud(4, 2, seed=9)
SECOND = {
    "value": lambda x: gk.sinkhorn(x, Y, **EXACT).value,
    "divergence": lambda x: gk.sinkhorn_divergence(x, Y, **EXACT),
    "potentials": lambda x: gk.sinkhorn(x, Y, reach=2.0, **EXACT).f.square().sum(),
    "definition": lambda x: gk.sinkhorn(x, Y, backend="reference", **EXACT).value,
}


@pytest.mark.parametrize("name", SECOND)
def test_hessians_agree_however_they_are_made(name):
    run, x = SECOND[name], cloud(3, 2, seed=0)
    exact = functional.hessian(run, x)
    assert exact.abs().max() > 1e-3
    for hessian in (
        func.hessian(run),
        func.jacrev(func.jacrev(run)),
        func.jacrev(func.jacfwd(run)),
        func.jacfwd(func.jacfwd(run)),
    ):
        torch.testing.assert_close(hessian(x), exact, rtol=1e-7, atol=1e-9)
    forward = functional.hessian(run, x, outer_jacobian_strategy="forward-mode", vectorize=True)
    torch.testing.assert_close(forward, exact, rtol=1e-7, atol=1e-9)


def test_curvature_of_large_clouds():
    x, y = cloud(258, 2, seed=0), cloud(5, 2, seed=1)
    (v,) = moves_of(x)

    def value(x):
        return gk.sinkhorn_divergence(x, y, **EXACT)

    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(value(leaf), leaf, create_graph=True)
    (exact,) = torch.autograd.grad((grad * v).sum(), leaf)
    torch.testing.assert_close(func.jvp(func.grad(value), (x,), (v,))[1], exact, rtol=1e-6, atol=1e-9)


P, Q = orthonormal(5, 2, seed=0), orthonormal(5, 2, seed=1)
FIRST = {
    "geodesic_cosine has first": lambda x: gk.geodesic_cosine(x, x + 1, P, Q).sum(),
    "subspace_basis has first": lambda x: gk.subspace_basis(x, 2).values.sum(),
}


@pytest.mark.parametrize("message", FIRST)
def test_a_second_derivative_that_is_not_there_is_refused(message):
    run, x = FIRST[message], cloud(4, 5, seed=2)
    for outer, inner in ((a, b) for a in (func.jacfwd, func.jacrev) for b in (func.jacfwd, func.jacrev)):
        with pytest.raises(NotImplementedError, match=message):
            outer(inner(run))(x)


def test_euclidean_has_first_tangents_only():
    x, y = cloud(3, 2, seed=0), cloud(4, 2, seed=1)

    def value(x):
        return gk.sinkhorn(x, y, eps=0.5, cost="euclidean").value

    for inner in (func.jacfwd, func.jacrev):
        with pytest.raises(NotImplementedError, match="'euclidean' and 'lp' has first derivatives only"):
            func.jacfwd(inner(value))(x)


class TestCompositions:
    """Reverse mode inside, outside and beside vmap; a derivative of one level leaves the others alone."""

    @pytest.fixture
    def value(self):
        y = cloud(5, 3, seed=1)
        return lambda x: gk.sinkhorn(x, y, **EXACT).value

    def test_gradients_of_a_batch(self, value):
        x = cloud(3, 6, 3, seed=0)
        leaf = x.clone().requires_grad_()
        (exact,) = torch.autograd.grad(torch.stack([value(part) for part in leaf]).sum(), leaf)
        for found in (
            func.vmap(func.grad(value))(x),
            func.grad(lambda x: func.vmap(value)(x).sum())(x),
            func.vmap(func.jacfwd(value))(x),
            func.vmap(func.jacrev(value))(x),
            func.vjp(lambda x: func.vmap(value)(x).sum(), x)[1](torch.tensor(1.0, dtype=x.dtype))[0],
        ):
            torch.testing.assert_close(found, exact)

    def test_jacobian_of_a_map(self):
        x, y = cloud(6, 3, seed=0), cloud(5, 3, seed=1)

        def run(x):
            return gk.sinkhorn(x, y, **EXACT).barycentric(y)

        exact = functional.jacobian(run, x)
        forward = functional.jacobian(run, x, strategy="forward-mode", vectorize=True)
        for found in (forward, func.jacfwd(run)(x), func.jacrev(run)(x), func.jacrev(run, chunk_size=4)(x)):
            torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-10)

    def test_modes_that_are_off_stay_off(self, value):
        x = cloud(6, 3, seed=0)
        with torch.no_grad():
            torch.testing.assert_close(func.grad(value)(x), func.jacfwd(value)(x))
        inside = func.grad(lambda x: torch.no_grad()(value)(x) + x.sum())(x)
        torch.testing.assert_close(inside, torch.ones_like(x))
        nested = func.grad(lambda x: func.grad(lambda y: (torch.no_grad()(value)(x) * y).sum())(x).sum())(x)
        assert not nested.any()

    def test_forward_over_a_graph_that_exists(self, value):
        leaf = cloud(6, 3, seed=0).requires_grad_()
        (v,) = moves_of(leaf)
        _, tangent = func.jvp(value, (leaf,), (v,))
        (grad,) = torch.autograd.grad(tangent, leaf)
        exact = functional.hvp(value, leaf.detach(), v)[1]
        torch.testing.assert_close(grad, exact, rtol=1e-7, atol=1e-9)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_single_and_half_precision(self, value, dtype):
        x, y = cloud(6, 3, seed=0), cloud(5, 3, seed=1)
        (v,) = moves_of(x)
        _, exact = func.jvp(lambda x: gk.sinkhorn(x, y, eps=0.5).value, (x,), (v,))
        narrow = y.to(dtype)
        _, found = func.jvp(lambda x: gk.sinkhorn(x, narrow, eps=0.5).value, (x.to(dtype),), (v.to(dtype),))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("name", ["cosine", "clouds"])
def test_autocast_does_not_reach_tangents(name):
    p, q = (orthonormal(9, 3, seed=seed).float() for seed in (0, 1))
    x, z = cloud(4, 9, seed=2).float(), cloud(4, 9, seed=3).float()
    run = {
        "cosine": lambda x: gk.geodesic_cosine(x, z, p, q),
        "clouds": lambda x: gk.sinkhorn(x.repeat(70, 1), z, eps=5.0).barycentric(z),
    }[name]
    (v,) = moves_of(x)
    _, exact = func.jvp(run, (x,), (v,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, cast = func.jvp(run, (x,), (v,))
    torch.testing.assert_close(cast, exact)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_compiled_without_graph_breaks(backend):
    x, y = cloud(4, 2, seed=0), cloud(4, 2, seed=9)

    def run(x):
        return gk.sinkhorn(x, y, eps=1.0, max_iter=3, tol=0.0, backend=backend).value

    (v,) = moves_of(x)
    leaf = x.clone().requires_grad_()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(leaf), leaf)[0], torch.autograd.grad(run(leaf), leaf)[0]
    )
    if backend == "reference":  # torch.compile differentiates the steps themselves
        return

    def slope(x, v):
        return func.jvp(run, (x,), (v,))[1]

    compiled = torch.compile(slope, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, v), slope(x, v), rtol=1e-6, atol=1e-8)
