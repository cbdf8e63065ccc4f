"""geodesic_cosine agrees with its definition, and has the properties its docstring claims."""

import math

import numpy as np
import pytest
import torch

import geokernels as gk
from geokernels import reference
from geokernels.kernels import sizes
from geokernels.reference import path
from geokernels.testing import assert_as_accurate, cloud, orthonormal

BACKENDS = pytest.mark.parametrize("backend", ["native", "reference"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])

# ragged on purpose: one of everything, ranks that differ, sizes that divide no vector; then CLIP's views
# against each other, and against the templates of a prompt; last, the largest ranks that are compiled
SIZES = [
    (1, 1, 1, 1),
    (1, 7, 1, 1),
    (3, 5, 2, 2),
    (4, 33, 5, 3),
    (4, 33, 3, 5),
    (17, 100, 33, 33),
    (16, 512, 16, 16),
    (16, 512, 16, 8),
    (5, 200, 64, 60),
]
# beyond 32 directions, which are not found by rotations
SIZES += [(3, 60, 36, 34), (5, 140, 65, 65), (3, 200, 128, 70), (2, 280, 256, 256)]


def problem(N, D, K, L, kind="plain"):
    """Rows and bases: independent; the same basis twice; 1e-3 apart; or with zero columns."""
    x, y = cloud(2, N, D, seed=0), cloud(2, N, D, seed=1)
    p, q = orthonormal(2, D, K, seed=2), orthonormal(2, D, L, seed=3)
    if kind in ("equal", "close"):
        q = p
    if kind == "close":
        q = torch.linalg.qr(p + 1e-3 * cloud(2, D, K, seed=4)).Q
    if kind == "zero columns":
        p[..., -1], q[0, :, 0] = 0, 0
    return x, y, p, q


def angled(*angles, features=11):
    """Two bases whose principal vectors are known, in general position."""
    turn, n = orthonormal(features, features, seed=8), len(angles)
    angles = torch.tensor(angles, dtype=torch.float64)
    p = turn[:, :n]
    return p, p * angles.cos() + turn[:, n : 2 * n] * angles.sin()


def quadrature(p, q, points=40):
    """The kernel as the integral that defines it, by Gauss and Legendre's rule."""
    flow = gk.geodesic_flow(p, q)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    bases = (flow.at((node + 1) / 2) for node in nodes)
    return sum(weight / 2 * basis @ basis.mT for weight, basis in zip(weights, bases, strict=True))


def judge(name, ours, single, exact_single, exact):
    """Our error against PyTorch's at the same precision."""
    if ours.dtype == torch.float32:
        assert_as_accurate(name, ours, single, exact)
        return
    # nothing wider judges double precision: the judge errs like PyTorch, whose error is estimated from one
    # run in single precision; hence three times the usual factor
    scaled = exact + (single - exact_single) * 2.0**-29
    assert_as_accurate(name, ours, scaled, exact, factor=6)


@pytest.mark.parametrize("kind", ["plain", "equal", "close", "zero columns"])
@pytest.mark.parametrize(("N", "D", "K", "L"), SIZES, ids=str)
@DTYPES
def test_matches_reference(N, D, K, L, kind, dtype):
    if dtype == torch.float64 and sizes.ON_CPU_IN_FLOAT64.directions < K:
        pytest.skip("the library's solver")
    inputs = [part.to(dtype) for part in problem(N, D, K, L, kind)]
    upstream = cloud(2, N, seed=5)

    def run(f, inputs, **kw):
        leaves = [part.clone().requires_grad_() for part in inputs]
        out = f(*leaves, **kw)
        return out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype))

    ours = run(gk.geodesic_cosine, inputs, backend="native")
    single = run(reference.geodesic_cosine, [part.float() for part in inputs])
    exact_single = run(reference.geodesic_cosine, [part.float().double() for part in inputs])
    exact = run(reference.geodesic_cosine, [part.double() for part in inputs])
    for name, *found in zip(["cosine", *"xypq"], ours, single, exact_single, exact, strict=True):
        judge(name, *found)


class TestWeights:
    def test_are_the_closed_forms(self):
        angle = torch.tensor([0.4, 0.9, 1.3, math.pi / 2], dtype=torch.float64)
        found, sinc = path.weights(angle.cos()), angle.sin() / angle
        torch.testing.assert_close(found.sum, (1 + sinc) / (4 * (1 + angle.cos())))
        torch.testing.assert_close(found.difference, (1 - sinc) / (4 * (1 - angle.cos())))

    def test_have_their_limits_at_angle_zero(self):
        found = path.weights(torch.ones(1, dtype=torch.float64))
        assert found.sum.item() == 1 / 4
        assert abs(found.difference.item() - 1 / 12) < 1e-17

    def test_divided_differences(self):
        cosines = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
        apart = ~torch.eye(5, dtype=torch.bool)
        for i, slope in enumerate(path.divided_differences(cosines)):
            w = path.weights(cosines)[i]
            quotient = (w[:, None] - w) / (cosines[:, None] - cosines)
            torch.testing.assert_close(slope[apart], quotient[apart], rtol=1e-11, atol=0)
            at = cosines.clone().requires_grad_()
            (derivative,) = torch.autograd.grad(path.weights(at)[i].sum(), at)
            torch.testing.assert_close(slope.diagonal(), derivative)


class TestFlow:
    @pytest.mark.parametrize(("K", "L"), [(3, 3), (2, 4), (4, 2)], ids=str)
    def test_leads_from_one_subspace_to_the_other(self, K, L):
        p, q = orthonormal(2, 11, K, seed=2), orthonormal(2, 11, L, seed=3)
        flow = gk.geodesic_flow(p, q)
        torch.testing.assert_close(flow.at(0.0) @ flow.at(0.0).mT, p @ p.mT)
        torch.testing.assert_close(flow.at(1.0) @ flow.at(1.0).mT, q @ q.mT)
        torch.testing.assert_close(flow.angles[..., : min(K, L)], gk.principal_angles(p, q))

    def test_stays_orthonormal(self):
        flow = gk.geodesic_flow(*(b[0] for b in problem(1, 11, 3, 3)[2:]))
        times = torch.linspace(0, 1, 5).double()
        basis = flow.at(times)
        torch.testing.assert_close(basis.mT @ basis, torch.eye(3).double().expand(5, -1, -1))

    @pytest.mark.parametrize(
        "angles", [(0.3, 0.9), (0.0, 1e-9), (0.7, 0.7), (math.pi / 2, 0.2), (1e-4, 0.249)], ids=str
    )
    def test_kernel_is_the_integral(self, angles):
        p, q = angled(*angles)
        torch.testing.assert_close(gk.geodesic_flow(p, q).kernel(), quadrature(p, q), rtol=0, atol=1e-14)

    def test_is_a_constant(self):
        p, q = (b.requires_grad_() for b in angled(0.3, 0.9))
        assert not gk.geodesic_flow(p, q).start.requires_grad


@BACKENDS
class TestProperties:
    @pytest.mark.parametrize(("K", "L"), [(3, 3), (2, 4), (4, 2)], ids=str)
    def test_kernel_is_the_integral_over_the_path(self, backend, K, L):
        x, y, p, q = (part[0] for part in problem(5, 11, K, L))
        kernel = quadrature(p, q)
        xx, xy, yy = (((a @ kernel) * b).sum(-1) for a, b in ((x, x), (x, y), (y, y)))
        found = gk.geodesic_cosine(x, y, p, q, backend=backend)
        torch.testing.assert_close(found, xy / (xx * yy).sqrt(), rtol=0, atol=1e-14)

    def test_follows_the_flow(self, backend):
        x, y, p, q = problem(5, 11, 3, 4)
        along = gk.geodesic_cosine_along(x, y, gk.geodesic_flow(p, q))
        torch.testing.assert_close(gk.geodesic_cosine(x, y, p, q, backend=backend), along)

    def test_only_spans_count(self, backend):
        x, y, p, q = problem(5, 11, 3, 4)
        turned = gk.geodesic_cosine(
            x, y, p @ orthonormal(3, 3, seed=6), q @ orthonormal(4, 4, seed=7), backend=backend
        )
        torch.testing.assert_close(turned, gk.geodesic_cosine(x, y, p, q, backend=backend))

    def test_turns_with_everything(self, backend):
        x, y, p, q = problem(5, 11, 3, 4)
        turn = orthonormal(11, 11, seed=6)
        turned = gk.geodesic_cosine(x @ turn, y @ turn, turn.mT @ p, turn.mT @ q, backend=backend)
        torch.testing.assert_close(turned, gk.geodesic_cosine(x, y, p, q, backend=backend))

    def test_symmetric_in_the_rows_and_in_the_direction_of_the_path(self, backend):
        x, y, p, q = problem(5, 11, 3, 4)
        cosine = gk.geodesic_cosine(x, y, p, q, backend=backend)
        torch.testing.assert_close(gk.geodesic_cosine(y, x, p, q, backend=backend), cosine)
        torch.testing.assert_close(gk.geodesic_cosine(x, y, q, p, backend=backend), cosine)

    def test_length_does_not_count(self, backend):
        x, y, p, q = problem(5, 11, 3, 4)
        cosine = gk.geodesic_cosine(x, y, p, q, backend=backend)
        torch.testing.assert_close(gk.geodesic_cosine(3 * x, -y / 7, p, q, backend=backend), -cosine)

    def test_one_subspace_is_the_ordinary_cosine(self, backend):
        x, y, p, _ = problem(5, 11, 3, 4)
        ordinary = torch.cosine_similarity(x @ p, y @ p, dim=-1)
        torch.testing.assert_close(gk.geodesic_cosine(x, y, p, p, backend=backend), ordinary)

    @pytest.mark.parametrize("angle", [0.0, 1e-5, 0.4, 1.2, math.pi / 2])
    def test_between_two_lines(self, backend, angle):
        a, q = angled(angle)
        found = gk.geodesic_cosine(a.mT, q.mT, a, q, backend=backend).item()
        sinc = math.sin(angle) / angle if angle else 1.0
        double = math.sin(2 * angle) / (2 * angle) if angle else 1.0
        assert found == pytest.approx((math.cos(angle) + sinc) / (1 + double), abs=1e-14)
        assert found >= 2 / math.pi - 1e-14

    def test_zero_columns_change_nothing(self, backend):
        x, y, p, q = problem(5, 11, 3, 4)
        padded = torch.cat([torch.zeros(2, 11, 2).double(), p], -1)
        cosine = gk.geodesic_cosine(x, y, p, q, backend=backend)
        torch.testing.assert_close(gk.geodesic_cosine(x, y, padded, q, backend=backend), cosine)

    def test_rows_without_direction(self, backend):
        x, y, p, q = (part[0] for part in problem(5, 11, 3, 3))
        x[0], y[1] = 0, 0
        x[2] = orthonormal(11, 11, seed=6)[:, 0]
        x[2] -= torch.cat([p, q], -1) @ torch.linalg.lstsq(torch.cat([p, q], -1), x[2]).solution
        leaves = [part.requires_grad_() for part in (x, y, p, q)]
        out = gk.geodesic_cosine(*leaves, backend=backend)
        assert (out[:3] == 0).all()
        to_x, to_y, to_p, to_q = torch.autograd.grad(out.sum(), leaves)
        assert (to_x[:3] == 0).all()
        assert (to_y[:3] == 0).all()
        assert all(torch.isfinite(grad).all() and grad.abs().max() > 0 for grad in (to_x, to_y, to_p, to_q))

    def test_eps_is_a_squared_length(self, backend):
        x, y, p, _ = (part[0] for part in problem(5, 11, 3, 3))
        x, y = x / (x @ p).norm(dim=-1, keepdim=True), 100 * y
        assert (gk.geodesic_cosine(x, y, p, p, eps=0.99, backend=backend) != 0).all()
        assert (gk.geodesic_cosine(x, y, p, p, eps=1.01, backend=backend) == 0).all()

    def test_right_angles_give_something_finite(self, backend):
        leaves = [*(part[0] for part in problem(5, 11, 3, 3)[:2]), *angled(math.pi / 2, math.pi / 2, 0.3)]
        leaves = [part.requires_grad_() for part in leaves]
        out = gk.geodesic_cosine(*leaves, backend=backend)
        assert (out.abs() <= 1 + 1e-12).all()
        assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(out.sum(), leaves))

    def test_batches_broadcast(self, backend):
        x, y, p, q = problem(5, 11, 3, 4)
        shared = gk.geodesic_cosine(x, y[0], p[1], q, backend=backend)
        repeated = gk.geodesic_cosine(x, y[:1].repeat(2, 1, 1), p[1:].repeat(2, 1, 1), q, backend=backend)
        torch.testing.assert_close(shared, repeated)
        nested = gk.geodesic_cosine(x.view(2, 1, 5, 11), y, p, q, backend=backend)
        assert nested.shape == (2, 2, 5)
        assert gk.geodesic_cosine(*(part[:0] for part in (x, y, p, q)), backend=backend).shape == (0, 5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
    def test_half_precision_is_computed_in_single(self, backend, dtype):
        inputs = [part.to(dtype) for part in problem(5, 11, 3, 4)]
        single = gk.geodesic_cosine(*(part.float() for part in inputs), backend=backend)
        half = gk.geodesic_cosine(*inputs, backend=backend)
        assert half.dtype == dtype
        assert torch.equal(half, single.to(dtype))


@BACKENDS
class TestGradients:
    """To features through both bases, as the losses need them; the bases themselves stay orthonormal."""

    def check(self, backend, a, b, rank=None, **how):
        def cosine(x, y, a, b):
            p, q = (gk.subspace_basis(z, rank, rtol=1e-9, backend=backend).basis for z in (a, b))
            return gk.geodesic_cosine(x, y, p, q, backend=backend)

        x, y = cloud(3, a.shape[-1], seed=0), cloud(3, a.shape[-1], seed=1)
        leaves = [part.clone().requires_grad_() for part in (x, y, a, b)]
        assert torch.autograd.gradcheck(cosine, leaves, **how)

    def test_in_general_position(self, backend):
        self.check(backend, cloud(3, 8, seed=2), cloud(3, 8, seed=3))

    def test_of_leading_directions(self, backend):
        self.check(backend, cloud(4, 7, seed=2), cloud(5, 7, seed=3), rank=2)

    @pytest.mark.parametrize(("N", "M"), [(2, 4), (4, 2)], ids=str)
    def test_between_ranks(self, backend, N, M):
        self.check(backend, cloud(N, 8, seed=2), cloud(M, 8, seed=3))

    @pytest.mark.parametrize(("N", "M"), [(35, 35), (34, 2), (3, 40)], ids=str)
    def test_of_many_directions(self, backend, N, M):
        self.check(backend, cloud(N, 44, seed=2), cloud(M, 44, seed=3), fast_mode=True)

    def test_of_many_directions_at_equal_angles(self, backend):
        p, q = angled(*[0.0] * 10, *[0.6] * 12, *[1.1] * 13, features=75)
        self.check(backend, p.mT.contiguous(), q.mT.contiguous(), fast_mode=True)

    @pytest.mark.parametrize("angles", [(0.0, 0.0), (0.6, 0.6), (0.0, 0.6), (1e-7, 0.6)], ids=str)
    def test_at_equal_and_zero_angles(self, backend, angles):
        p, q = angled(*angles, features=6)
        self.check(backend, p.mT.contiguous(), q.mT.contiguous())

    def test_where_a_row_lies_in_its_own_basis(self, backend):
        def loss(z, y, b):
            p, q = (gk.subspace_basis(part, backend=backend).basis for part in (z, b))
            return gk.geodesic_cosine(z, y.expand_as(z), p, q, backend=backend)

        leaves = [cloud(3, 7, seed=2), cloud(1, 7, seed=3), cloud(3, 7, seed=4)]
        assert torch.autograd.gradcheck(loss, [part.requires_grad_() for part in leaves])

    def test_zero_columns_receive_nothing(self, backend):
        leaves = [part.requires_grad_() for part in problem(5, 11, 3, 3, "zero columns")]
        out = gk.geodesic_cosine(*leaves, backend=backend)
        _, _, to_p, to_q = torch.autograd.grad(out.sum(), leaves)
        assert (to_p[..., -1] == 0).all()
        assert (to_q[0, :, 0] == 0).all()
        assert (to_p[..., :-1] != 0).any()

    def test_only_what_is_asked(self, backend):
        inputs = problem(5, 11, 3, 4)
        every = [part.clone().requires_grad_() for part in inputs]
        expected = torch.autograd.grad(gk.geodesic_cosine(*every, backend=backend).sum(), every)
        for i in range(4):
            leaves = [part.clone().requires_grad_(i == j) for j, part in enumerate(inputs)]
            (found,) = torch.autograd.grad(gk.geodesic_cosine(*leaves, backend=backend).sum(), leaves[i])
            torch.testing.assert_close(found, expected[i])

    def test_bases_have_first_derivatives_only(self, backend):
        leaves = [part.requires_grad_() for part in problem(5, 11, 3, 4)]
        out = gk.geodesic_cosine(*leaves, backend=backend)
        (grad,) = torch.autograd.grad(out.sum(), leaves[2], create_graph=True)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            grad.sum().backward()


def test_any_rank_has_a_cosine():
    # beyond 256 directions by a library solver, and nobody has to ask for it
    x, y, p, q = problem(3, 280, 270, 4)
    found = gk.geodesic_cosine(x, y, p, q)
    torch.testing.assert_close(found, gk.geodesic_cosine_along(x, y, gk.geodesic_flow(p, q)))


class TestAlong:
    def test_any_order(self):
        flow = gk.geodesic_flow(*angled(0.3, 0.9, 0.0))

        def cosine(x, y):
            return gk.geodesic_cosine_along(x, y, flow)

        leaves = [cloud(2, 11, seed=seed).requires_grad_() for seed in (0, 1)]
        assert torch.autograd.gradcheck(cosine, leaves)
        assert torch.autograd.gradgradcheck(cosine, leaves)

    def test_small_angles_in_single_precision(self):
        x, y, p, q = (part[0] for part in problem(5, 33, 3, 3, "close"))
        exact = gk.geodesic_cosine(x, y, p, q)
        flow = gk.geodesic_flow(p.float(), q.float())
        torch.testing.assert_close(gk.geodesic_cosine_along(x.float(), y.float(), flow), exact.float())


X, P = torch.ones(2, 3), torch.eye(3)[:, :2]
REFUSALS = [
    (lambda: gk.geodesic_cosine(X[0], X[0], P, P), ValueError, r"x must have shape \(\.\.\., N, D\)"),
    (
        lambda: gk.geodesic_cosine(X, X[:1], P, P),
        ValueError,
        r"y must have the rows of x, .*\(2, 3\), got \(1, 3\)",
    ),
    (lambda: gk.geodesic_cosine(X, X, P.mT, P), ValueError, r"p must have .* D = 3 and K > 0, got \(2, 3\)"),
    (lambda: gk.geodesic_cosine(X, X, P, P[:, :0]), ValueError, r"q must have .* got \(3, 0\)"),
    (lambda: gk.geodesic_cosine(X, X.double(), P, P), TypeError, "y must have the dtype of x, torch.float32"),
    (lambda: gk.geodesic_cosine(X, X, P, P.double()), TypeError, "q must have the dtype of x"),
    (lambda: gk.geodesic_cosine(X, X * math.nan, P, P), ValueError, "y must be finite, got NaN"),
    (lambda: gk.geodesic_cosine(X, X, P * math.inf, P), ValueError, "p must be finite"),
    (
        lambda: gk.geodesic_cosine(X, X, P, P, eps=-1.0),
        ValueError,
        "eps must be a finite number, .* got -1.0",
    ),
    (
        lambda: gk.geodesic_cosine(X.expand(2, 2, 3), X, P.expand(3, 3, 2), P),
        ValueError,
        r"batch shapes must broadcast, got x \(2,\), y \(\), p \(3,\), q \(\)",
    ),
    (
        lambda: gk.geodesic_cosine(
            torch.ones(1, 299), torch.ones(1, 299), torch.eye(299), torch.eye(299), backend="native"
        ),
        gk.BackendError,
        "native: the compiled kernel takes bases of up to 256 columns, not 299",
    ),
    (
        lambda: gk.geodesic_cosine(X, X, P, P, backend="quick"),
        gk.BackendError,
        "has no backend 'quick'; it has native, triton, reference",
    ),
    (lambda: gk.geodesic_flow(P, P[:2]), ValueError, r"q must have .* D = 3 .* got \(2, 2\)"),
    (
        lambda: gk.geodesic_cosine_along(X[:, :2], X[:, :2], gk.geodesic_flow(P, P)),
        ValueError,
        r"flow.start must have .* D = 2 .* got \(3, 2\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), REFUSALS, ids=[case[2][:40] for case in REFUSALS])
def test_refusals_are_sentences(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
