"""Bases and principal angles agree with their definitions, and have the properties their docstrings claim."""

import math

import pytest
import torch

import geokernels as gk
from geokernels import reference
from geokernels.kernels import direct, sizes
from geokernels.testing import assert_as_accurate, cloud, orthonormal

BACKENDS = ["native", "reference"]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])

# ragged on purpose: one row, one feature, more rows than features, sizes that divide no vector; then CLIP's;
# then those of more than 32 directions, which are not found by rotations
SIZES = [(1, 1), (1, 7), (7, 1), (3, 5), (40, 9), (17, 33), (16, 512)]
SIZES += [(33, 40), (65, 130), (128, 200), (160, 129), (260, 300)]


def rows(N, D, kind="plain", batch=2):
    """Feature rows: independent; around a common mean, as CLIP's are; or of condition 1e4."""
    x = cloud(batch, N, D, seed=N + D)
    if kind == "around a mean":
        return x / 10 + cloud(batch, 1, D, seed=1)
    if kind == "ill-conditioned":
        return x * 10.0 ** (-4 * torch.arange(N, dtype=x.dtype) / max(N - 1, 1))[:, None]
    return x


def projector(basis):
    return basis @ basis.mT


def judge(name, ours, single, exact_single, exact):
    """Our error against PyTorch's at the same precision."""
    if ours.dtype == torch.float32:
        assert_as_accurate(name, ours, single, exact)
        return
    # nothing wider judges double precision: the judge errs like PyTorch, whose error is estimated from one
    # run in single precision; hence three times the usual factor
    scaled = exact + (single - exact_single) * 2.0**-29
    assert_as_accurate(name, ours, scaled, exact, factor=6)


@pytest.mark.parametrize("kind", ["plain", "around a mean", "ill-conditioned"])
@pytest.mark.parametrize(("N", "D"), SIZES, ids=str)
@DTYPES
def test_matches_reference(N, D, kind, dtype):
    if dtype == torch.float64 and sizes.ON_CPU_IN_FLOAT64.rows < N:
        pytest.skip("the library's solver")
    x = rows(N, D, kind).to(dtype)
    on_span, on_values = cloud(2, D, D, seed=3), cloud(2, min(N, D), seed=4)

    def run(f, x, **kw):
        x = x.clone().requires_grad_()
        found = f(x, rtol=0.0, **kw)
        span = projector(found.basis)
        out = (span * on_span.to(x)).sum() + (found.values * on_values.to(x)).sum()
        return span.detach(), found.values.detach(), *torch.autograd.grad(out, x)

    ours = run(gk.subspace_basis, x, backend="native")
    single = run(reference.subspace_basis, x.float())
    exact_single = run(reference.subspace_basis, x.float().double())
    exact = run(reference.subspace_basis, x.double())
    for name, *found in zip(["span", "values", "grad"], ours, single, exact_single, exact, strict=True):
        judge(name, *found)


@pytest.mark.parametrize("backend", BACKENDS)
class TestProperties:
    @pytest.mark.parametrize(("N", "D"), SIZES[:-1], ids=str)
    def test_columns_are_orthonormal_and_span_the_rows(self, backend, N, D):
        x = rows(N, D)
        basis, values = gk.subspace_basis(x, backend=backend)
        torch.testing.assert_close(basis.mT @ basis, torch.eye(min(N, D)).double().expand(2, -1, -1))
        torch.testing.assert_close(x @ projector(basis), x)
        torch.testing.assert_close(values, torch.linalg.svdvals(x))

    def test_rank_keeps_the_leading_directions(self, backend):
        x = rows(9, 12)
        every, some = gk.subspace_basis(x, backend=backend), gk.subspace_basis(x, 4, backend=backend)
        assert torch.equal(some.basis, every.basis[..., :4])
        assert torch.equal(some.values, every.values[..., :4])

    def test_turns_with_the_features(self, backend):
        x, turn = rows(5, 8), orthonormal(8, 8, seed=5)
        before, after = gk.subspace_basis(x, backend=backend), gk.subspace_basis(x @ turn, backend=backend)
        torch.testing.assert_close(after.values, before.values)
        torch.testing.assert_close(projector(after.basis), turn.mT @ projector(before.basis) @ turn)

    @pytest.mark.parametrize("scale", [2.0**-100, 2.0**100], ids=["tiny", "huge"])
    def test_does_not_overflow(self, backend, scale):
        x = rows(5, 8).float()
        before, after = gk.subspace_basis(x, backend=backend), gk.subspace_basis(x * scale, backend=backend)
        torch.testing.assert_close(after.values / scale, before.values)
        torch.testing.assert_close(projector(after.basis), projector(before.basis))

    def test_largest_component_is_positive(self, backend):
        low, high = gk.subspace_basis(rows(5, 8), backend=backend).basis.aminmax(dim=-2)
        assert (high >= -low).all()

    def test_centering(self, backend):
        x = rows(5, 8)
        by_rows = gk.subspace_basis(x, center="rows", backend=backend)
        torch.testing.assert_close(by_rows.basis.sum(-2), torch.zeros(2, 5).double())
        by_batch = gk.subspace_basis(x, center="batch", backend=backend)
        assert (by_batch.basis[..., 4] == 0).all()  # the mean takes one dimension
        torch.testing.assert_close(by_batch.values, torch.linalg.svdvals(x - x.mean(-2, keepdim=True)))

    def test_dependent_rows_leave_zero_columns(self, backend):
        x = rows(3, 8).repeat(1, 2, 1).requires_grad_()
        basis, values = gk.subspace_basis(x, backend=backend)
        assert (basis[..., 3:] == 0).all()
        assert (values[..., 3:] < 1e-14).all()
        torch.testing.assert_close(x @ projector(basis), x)
        (grad,) = torch.autograd.grad((projector(basis) * cloud(8, 8, seed=6)).sum(), x)
        assert torch.isfinite(grad).all()
        assert grad.abs().max() > 0.01

    def test_no_rows_to_speak_of(self, backend):
        x = torch.zeros(2, 3, 4, requires_grad=True)
        basis, values = gk.subspace_basis(x, backend=backend)
        assert (basis == 0).all()
        assert (values == 0).all()
        assert (torch.autograd.grad(basis.sum() + values.sum(), x)[0] == 0).all()

    def test_rtol_decides_what_is_noise(self, backend):
        x = torch.diag(torch.tensor([1.0, 0.1, 0.01]))
        kept = gk.subspace_basis(x, rtol=0.05, backend=backend).basis
        assert (kept != 0).any(0).tolist() == [True, True, False]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
    def test_half_precision_is_computed_in_single(self, backend, dtype):
        x = rows(5, 8).to(dtype)
        half, single = gk.subspace_basis(x, backend=backend), gk.subspace_basis(x.float(), backend=backend)
        assert half.basis.dtype == half.values.dtype == dtype
        assert torch.equal(half.basis, single.basis.to(dtype))

    def test_no_batch_and_any_batch(self, backend):
        x = rows(5, 8, batch=6)
        together = gk.subspace_basis(x.view(2, 3, 5, 8), backend=backend)
        assert together.basis.shape == (2, 3, 8, 5)
        alone = gk.subspace_basis(x[4], backend=backend)
        torch.testing.assert_close(alone.basis, together.basis[1, 1])
        assert gk.subspace_basis(x[:0], backend=backend).basis.shape == (0, 8, 5)


@pytest.mark.parametrize("backend", BACKENDS)
class TestGradients:
    @pytest.mark.parametrize(
        ("N", "D", "rank", "center"),
        [
            (3, 6, None, "none"),
            (3, 6, 2, "rows"),
            (7, 4, 2, "none"),
            (4, 4, None, "batch"),
            (1, 5, None, "none"),
        ],
        ids=str,
    )
    def test_by_finite_differences(self, backend, N, D, rank, center):
        def span(x):
            basis, values = gk.subspace_basis(x, rank, center=center, rtol=1e-9, backend=backend)
            return projector(basis), values

        assert torch.autograd.gradcheck(span, rows(N, D).requires_grad_())

    @pytest.mark.parametrize(("N", "D", "rank"), [(36, 40, None), (36, 40, 33), (45, 37, None)], ids=str)
    def test_of_many_rows_by_finite_differences(self, backend, N, D, rank):
        def span(x):
            basis, values = gk.subspace_basis(x, rank, rtol=1e-9, backend=backend)
            return projector(basis), values

        assert torch.autograd.gradcheck(span, rows(N, D, batch=1).requires_grad_(), fast_mode=True)

    def test_at_equal_values(self, backend):
        def span(x):
            return projector(gk.subspace_basis(x, backend=backend).basis)

        assert torch.autograd.gradcheck(span, orthonormal(2, 7, 3, seed=7).mT.contiguous().requires_grad_())

    def test_where_the_gap_is_closed(self, backend):
        x = orthonormal(7, 3, seed=7).mT.contiguous().requires_grad_()
        basis = gk.subspace_basis(x, 2, backend=backend).basis
        (grad,) = torch.autograd.grad((projector(basis) * cloud(7, 7, seed=6)).sum(), x)
        assert torch.isfinite(grad).all()

    def test_only_once(self, backend):
        x = rows(3, 6).requires_grad_()
        values = gk.subspace_basis(x, backend=backend).values
        (grad,) = torch.autograd.grad(values.sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            grad.sum().backward()


@pytest.mark.parametrize(("N", "D"), [(129, 30), (30, 129), (140, 150), (600, 610)], ids=str)
def test_any_number_of_rows_has_a_basis(N, D):
    x = cloud(N, D, seed=1).float().requires_grad_()
    basis, values = gk.subspace_basis(x, 3, backend="native")
    torch.testing.assert_close(values, torch.linalg.svdvals(x)[:3], rtol=1e-5, atol=0)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(3), rtol=0, atol=2e-5)
    (grad,) = torch.autograd.grad(values.sum(), x)
    exact = torch.autograd.grad(torch.linalg.svdvals(x)[:3].sum(), x)[0]
    torch.testing.assert_close(grad, exact, rtol=1e-3, atol=1e-4)


def test_as_many_rows_in_double_precision_as_are_as_exact_as_the_library():
    x = cloud(161, 170, seed=1)
    assert direct.basis(x, None, None) is None
    with pytest.raises(gk.BackendError, match="takes up to 160 rows, not 161"):
        gk.subspace_basis(x, backend="native")
    torch.testing.assert_close(gk.subspace_basis(x).values, torch.linalg.svdvals(x))


class TestProject:
    def test_is_a_product(self):
        x, basis = rows(5, 8), orthonormal(8, 3, seed=1)
        torch.testing.assert_close(gk.project(x, basis), x @ basis)

    def test_batches_broadcast(self):
        assert gk.project(rows(5, 8), orthonormal(3, 1, 8, 4, seed=1)).shape == (3, 2, 5, 4)


def pair_of_subspaces(*angles, features=11):
    """Two bases with the given principal angles, in general position."""
    turn, n = orthonormal(features, features, seed=8), len(angles)
    angles = torch.tensor(angles, dtype=torch.float64)
    p, away = turn[:, :n], turn[:, n : 2 * n]
    q = p * angles.cos() + away * angles.sin()
    return p @ orthonormal(n, n, seed=9), q @ orthonormal(n, n, seed=10)


class TestPrincipalAngles:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        "angles",
        [
            (0.3, 0.9, 1.2),
            (1e-10, 1e-7, 0.5),
            (0.0, 0.0, 0.0),
            (0.7, 0.7, 0.7),
            (0.2, math.pi / 2, math.pi / 2),
        ],
        ids=str,
    )
    def test_finds_them(self, angles, backend):
        found = gk.principal_angles(*pair_of_subspaces(*angles), backend=backend)
        torch.testing.assert_close(found, torch.tensor(angles).double(), rtol=1e-6, atol=1e-15)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(("K", "L"), [(2, 4), (4, 2), (1, 3)], ids=str)
    def test_ranks_may_differ(self, K, L, backend):
        p, q = orthonormal(9, K, seed=1), orthonormal(9, L, seed=2)
        torch.testing.assert_close(
            gk.principal_angles(p, q, backend=backend).cos(), torch.linalg.svdvals(p.mT @ q)
        )
        torch.testing.assert_close(
            gk.principal_angles(p, q, backend=backend), gk.principal_angles(q, p, backend=backend)
        )

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_zero_column_is_at_a_right_angle(self, backend):
        p, q = pair_of_subspaces(0.3, 0.9)
        right = torch.tensor([0.3, 0.9, math.pi / 2]).double()
        none = torch.zeros(11, 1).double()
        wider_p, wider_q = torch.cat([p, none], -1), torch.cat([none, q], -1)
        torch.testing.assert_close(
            gk.principal_angles(wider_p, wider_q, backend=backend), right, rtol=1e-6, atol=0
        )
        torch.testing.assert_close(
            gk.principal_angles(p, wider_q, backend=backend), right[:2], rtol=1e-6, atol=0
        )

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_single_precision_sees_small_angles(self, backend):
        p, q = (b.float() for b in pair_of_subspaces(1e-5, 0.5))
        assert (
            abs(gk.principal_angles(p, q, backend=backend)[0].item() - 1e-5) < 5e-7
        )  # arccos would see 0 or 3e-4

    def test_gradient_by_finite_differences(self):
        def angles(x, y):
            return gk.principal_angles(gk.subspace_basis(x).basis, gk.subspace_basis(y).basis)

        x, y = rows(3, 8).requires_grad_(), rows(3, 8)[:, :2].flip(-1).contiguous().requires_grad_()
        assert torch.autograd.gradcheck(angles, (x, y))

    def test_the_compiled_ones_have_no_gradient(self):
        p, q = (part.requires_grad_() for part in pair_of_subspaces(0.3, 0.9))
        with pytest.raises(gk.BackendError, match="the compiled angles have no derivative"):
            gk.principal_angles(p, q, backend="native")

    def test_symmetric_functions_at_repeated_angles(self):
        def distance(x, y):
            return gk.principal_angles(gk.subspace_basis(x).basis, gk.subspace_basis(y).basis).square().sum()

        p, q = pair_of_subspaces(0.7, 0.7, 0.7)
        leaves = (p.mT.contiguous().requires_grad_(), q.mT.contiguous().requires_grad_())
        assert torch.autograd.gradcheck(distance, leaves)


ONES = torch.ones(2, 3)
REFUSALS = [
    (lambda: gk.subspace_basis(ONES[0]), ValueError, r"x must have shape \(\.\.\., N, D\), got \(3,\)"),
    (lambda: gk.subspace_basis([[1.0]]), TypeError, "x must be a tensor, got list"),
    (lambda: gk.subspace_basis(ONES.int()), TypeError, "x must be float16, .*got torch.int32"),
    (lambda: gk.subspace_basis(ONES[:0]), ValueError, r"x must have at least one row .*\(0, 3\)"),
    (lambda: gk.subspace_basis(ONES * math.nan), ValueError, "x must be finite, got NaN"),
    (lambda: gk.subspace_basis(ONES * math.inf), ValueError, "x must be finite, got infinite values"),
    (lambda: gk.subspace_basis(ONES, 3), ValueError, r"rank must be from 1 to min\(N, D\) = 2, got 3"),
    (lambda: gk.subspace_basis(ONES, 0), ValueError, r"rank must be from 1 to min\(N, D\) = 2, got 0"),
    (lambda: gk.subspace_basis(ONES, rtol=-1), ValueError, "rtol must be from 0 to below 1, got -1"),
    (
        lambda: gk.subspace_basis(ONES, center="D"),
        ValueError,
        "center must be one of none, rows, batch, got 'D'",
    ),
    (lambda: gk.project(ONES, torch.ones(4, 1)), ValueError, r"basis must have .* D = 3 .* got \(4, 1\)"),
    (lambda: gk.project(ONES, torch.ones(3, 1).double()), TypeError, "basis must have the dtype of x"),
    (
        lambda: gk.principal_angles(torch.ones(2, 3, 1), torch.ones(4, 3, 1)),
        ValueError,
        r"batch shapes must broadcast, got p \(2,\), q \(4,\)",
    ),
    (lambda: gk.principal_angles(torch.ones(3, 1), torch.ones(3, 0)), ValueError, r"K > 0, got \(3, 0\)"),
]


@pytest.mark.parametrize(("call", "error", "sentence"), REFUSALS, ids=[case[2][:40] for case in REFUSALS])
def test_refusals_are_sentences(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
