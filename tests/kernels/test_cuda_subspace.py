"""The CUDA kernels of subspaces, run on the host, agree with the definitions and fit every GPU's memory."""

import math

import pytest
import torch

from geokernels import reference
from geokernels.testing import cloud

from .emulated_geodesic import DTYPES, LARGEST, LIMITS, SMALLEST, Kernels, compare

NATIVE = torch.ops.geokernels  # on the CPU


@pytest.fixture(scope="module")
def library(emulated):
    return emulated("cuda_geodesic")


@pytest.fixture
def kernels(library):
    return Kernels(library)


# one of everything, more rows than features, an odd number of rows, more pairs than warps
@pytest.mark.parametrize("kind", ["plain", "around a mean", "ill-conditioned"])
@pytest.mark.parametrize(("N", "D"), [(1, 1), (1, 7), (7, 1), (3, 5), (40, 9), (17, 33)], ids=str)
@DTYPES
def test_basis_matches_reference(kernels, N, D, kind, dtype):
    x = cloud(2, N, D, seed=N + D)
    if kind == "around a mean":
        x = x / 10 + cloud(2, 1, D, seed=1)
    if kind == "ill-conditioned":
        x = x * 10.0 ** (-4 * torch.arange(N, dtype=x.dtype) / max(N - 1, 1))[:, None]
    on_span, on_values = cloud(2, D, D, seed=3), cloud(2, min(N, D), seed=4)

    def run(f, inputs):
        x = inputs[0].clone().requires_grad_()
        basis, values = f(x, rtol=0.0)
        span = basis @ basis.mT
        out = (span * on_span.to(x)).sum() + (values * on_values.to(x)).sum()
        return span.detach(), values.detach(), *torch.autograd.grad(out, x)

    compare(["span", "values", "grad"], run, kernels.basis, reference.subspace_basis, [x.to(dtype)])


def difficult(kind, N, D):
    """Rows of which a basis is hard to find, in float64."""
    x, half = cloud(1, N, D, seed=N + D), N // 2
    falling = 10.0 ** (-14 * torch.arange(N, dtype=x.dtype) / max(N - 1, 1))
    if kind == "around a mean":
        x = x / 1000 + cloud(1, 1, D, seed=1)
    if kind == "falling":
        x = x * falling[:, None]
    if kind == "rising":
        x = x * falling.flip(0)[:, None]
    if kind in ("twice", "nearly twice"):
        x[:, half : 2 * half] = x[:, :half] + x[:, half : 2 * half] * (1e-7 if kind == "nearly twice" else 0)
    if kind == "some zero":
        x[:, ::3] = 0
    if kind == "of rank 2":
        x = cloud(1, N, 2, seed=5) @ cloud(1, 2, D, seed=6)
    return x * {"large": 1e19, "small": 1e-19}.get(kind, 1)


def faults(x, left, directions, values):
    """How far a decomposition of x is from one, in units of the largest value and of rounding."""
    x, left, directions, values = (part[0].double() for part in (x, left, directions, values))
    exact = torch.linalg.svdvals(x)
    kept = values > max(x.shape) * torch.finfo(torch.float32).eps * values[0]
    aslant = [
        (rows[kept] @ rows[kept].mT - torch.eye(int(kept.sum()), dtype=rows.dtype)).abs().max()
        for rows in (left, directions)
    ]
    rest = (left.mT * values @ directions - x).norm() / exact[0]
    return torch.stack([rest, *aslant, (values - exact).abs().max() / exact[0]])


# turned in registers, in memory, more rows than features, an odd number; and in two to five chunks
@pytest.mark.parametrize(
    ("N", "D", "limit"),
    [(16, 64, SMALLEST), (24, 40, SMALLEST), (40, 9, SMALLEST), (12, 300, 20_000), (5, 1500, 12_000)],
    ids=str,
)
@pytest.mark.parametrize(
    "kind",
    [
        "around a mean",
        "falling",
        "rising",
        "twice",
        "nearly twice",
        "some zero",
        "of rank 2",
        "large",
        "small",
    ],
)
@DTYPES
def test_difficult_rows(library, kind, N, D, limit, dtype):
    check_decomposition(Kernels(library, limit), difficult(kind, N, D).to(dtype))


# few of which are independent, as emulating the turns of 128 takes long
@DTYPES
def test_the_most_rows(kernels, dtype):
    check_decomposition(kernels, difficult("of rank 2", 128, 700).to(dtype))


def check_decomposition(kernels, x):
    (_, N, D), R = x.shape, min(x.shape[1:])
    left, directions, values = x.new_empty(1, R, N), x.new_empty(1, R, D), x.new_empty(1, R)
    kernels.call("basis", x, (1, N, D, 0, 0, R), 0.0, x, left, directions, values)
    low, high = directions.aminmax(dim=-1)
    assert (high >= -low).all()
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    ours, of_lapack = faults(x, left, directions, values), faults(x, u.mT, v, s)
    assert (ours <= of_lapack + 16 * torch.finfo(x.dtype).eps).all(), (ours, of_lapack)


# the largest of each; the rows in chunks that fit on every GPU, or in device memory
@pytest.mark.parametrize(
    ("N", "D", "dtype", "limit"),
    [
        (64, 1024, torch.float32, SMALLEST),
        (64, 520, torch.float64, LARGEST),
        pytest.param(128, 140, torch.float32, LARGEST, marks=pytest.mark.long),
        pytest.param(128, 700, torch.float32, SMALLEST, marks=pytest.mark.long),
        pytest.param(128, 700, torch.float64, LARGEST, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_bases_and_gradients_of_many_rows(library, N, D, dtype, limit):
    kernels, rank = Kernels(library, limit), N // 2
    x = cloud(1, N, D, seed=0) + cloud(1, 1, D, seed=1)
    onto = cloud(1, D, 8, seed=2)

    def run(f, inputs):
        x = inputs[0].clone().requires_grad_()
        basis, values = f(x, rank=rank, rtol=0.0)
        seen = basis.mT @ onto.to(x)
        return values.detach(), *torch.autograd.grad(seen.square().sum() + values.square().sum(), x)

    compare(["values", "grad"], run, kernels.basis, reference.subspace_basis, [x.to(dtype)])


class TestMemory:
    """What each launch asks of a block's shared memory, on the GPUs that we build for."""

    ROWS = range(1, 129)
    FEATURES = 1, 7, 64, 100, 128, 130, 384, 512, 768, 1000, 1024, 1025, 2048, 4096, 10_000

    def plan(self, library, N, D, dtype, limit):
        like, found = torch.empty(0, dtype=dtype), torch.empty(7, dtype=torch.int64)
        Kernels(library, limit).call("plan", like, (1, N, D, N, N, 0), 0.0, found)
        names = "bases", "backward", "cosine", "directions", "chunks", "width", "left"
        return dict(zip(names, found.tolist(), strict=True))

    @DTYPES
    @pytest.mark.parametrize("limit", LIMITS)
    def test_every_cut_leaves_less(self, library, dtype, limit):
        for N in self.ROWS:
            for D in self.FEATURES:
                found = self.plan(library, N, D, dtype, limit)
                assert found["directions"] <= 8192
                if found["chunks"] == 1:
                    continue
                assert found["left"] < D, (N, D)
                assert found["width"] * (found["chunks"] - 1) < D <= found["width"] * found["chunks"], (N, D)

    def test_rows_of_features_stay_on_the_chip(self, library):
        # to 64 rows in float32 on every GPU; in float64 where there is room for two on Hopper
        for dtype, most, limit in ((torch.float32, 64, SMALLEST), (torch.float64, 64, LARGEST)):
            for N in range(1, most + 1):
                for D in self.FEATURES:
                    found = self.plan(library, N, D, dtype, limit)
                    while found["chunks"] > 1:
                        assert found["bases"] <= limit, (N, D, dtype)
                        found = self.plan(library, N, found["left"], dtype, limit)
                    assert found["bases"] <= limit, (N, D, dtype)
                    assert found["backward"] <= limit
                    assert found["cosine"] <= limit

    def test_two_blocks_share_a_multiprocessor(self, library):
        for N in range(1, 65):
            for D in self.FEATURES:
                found = self.plan(library, N, D, torch.float32, LARGEST)
                assert 2 * (found["bases"] + 1024) <= 228 * 1024, (N, D)


class TestBasis:
    def test_rank_and_dependent_rows(self, kernels):
        x = cloud(1, 3, 8, seed=0).repeat(1, 2, 1)
        basis, values = kernels.basis(x, rtol=1e-9)
        assert (basis[..., 3:] == 0).all()
        assert (values[..., 3:] < 1e-12).all()
        torch.testing.assert_close(x @ basis @ basis.mT, x)
        low, high = basis.aminmax(dim=-2)
        assert (high >= -low).all()

    @pytest.mark.parametrize("scale", [2.0**-100, 2.0**100], ids=["tiny", "huge"])
    def test_does_not_overflow(self, kernels, scale):
        x = cloud(1, 5, 8, seed=0).float()
        before, after = kernels.basis(x), kernels.basis(x * scale)
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1] / scale, before[1])

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_hands_on_what_is_not_finite(self, kernels, bad):
        x = cloud(2, 4, 6, seed=0)
        x[1, 2, 3] = bad
        _, values = kernels.basis(x)
        assert values[0].isfinite().all()
        assert not values[1].isfinite().all()

    def test_gradient_of_leading_directions(self, kernels):
        def span(x):
            basis, _ = kernels.basis(x, rank=2)
            return basis @ basis.mT

        assert torch.autograd.gradcheck(span, cloud(1, 4, 6, seed=0).requires_grad_())


class TestEmpty:
    """Operators called directly take sizes of which one is 0, as those of the CPU do."""

    @pytest.mark.parametrize("sizes", [(0, 3, 5), (2, 0, 5), (2, 3, 0), (2, 0, 0)], ids=str)
    def test_bases(self, kernels, sizes):
        x = cloud(*sizes, seed=0)
        (B, N, D), R = sizes, min(sizes[1:])
        left, directions, values = x.new_empty(B, R, N), x.new_empty(B, R, D), x.new_empty(B, R)
        kernels.call("basis", x, (B, N, D, 0, 0, R), 0.0, x, left, directions, values)
        for ours, cpu in zip((left, directions, values), NATIVE.subspace_basis(x, R, 0.0), strict=True):
            torch.testing.assert_close(ours, cpu)
        grad = torch.empty_like(x)
        kept = left, directions, values
        kernels.call("basis_backward", x, (B, N, D, 0, 0, R), 0.0, directions, values, *kept, grad)
        torch.testing.assert_close(grad, NATIVE.subspace_basis_backward(directions, values, *kept, R))


class TestOrder:
    """What a block has left of a problem lies where its next one begins."""

    # more rows than signs are found at once, more features than a unit, and than a chunk
    @pytest.mark.parametrize("limit", [SMALLEST, 12_000, 0], ids=["near", "in chunks", "far"])
    def test_of_problems_in_turn_changes_no_bit(self, library, limit):
        x, kernels = cloud(5, 24, 150, seed=0).float(), Kernels(library, limit)
        whole = self.basis_and_gradient(kernels, x)
        for k in range(5):
            alone = self.basis_and_gradient(kernels, x[k : k + 1])
            assert all(torch.equal(part[k : k + 1], own) for part, own in zip(whole, alone, strict=True))

    def basis_and_gradient(self, kernels, x):
        x = x.clone().requires_grad_()
        basis, values = kernels.basis(x, rank=9, rtol=1e-6)
        (grad,) = torch.autograd.grad(basis.square().sum() + basis.sum() + values.sum(), x)
        return basis.detach(), values.detach(), grad
