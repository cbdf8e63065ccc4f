"""The CUDA kernels of angles and the geodesic cosine, run on the host, agree with the definitions."""

import pytest
import torch

from geokernels import reference
from geokernels.testing import assert_as_accurate, cloud, orthonormal

from .emulated_geodesic import DTYPES, SMALLEST, Kernels, compare

ORDERS = DESCENDING, BY_CHANCE = 1, 7
NATIVE = torch.ops.geokernels  # on the CPU


@pytest.fixture(scope="module")
def library(emulated):
    return emulated("cuda_geodesic")


@pytest.fixture
def kernels(library):
    return Kernels(library)


@pytest.mark.parametrize("kind", ["plain", "equal", "close", "zero columns"])
@pytest.mark.parametrize(
    ("N", "D", "K", "L"),
    [(1, 1, 1, 1), (3, 5, 2, 2), (4, 33, 5, 3), (4, 33, 3, 5), (11, 60, 33, 33), (16, 64, 16, 8)],
    ids=str,
)
@DTYPES
def test_cosine_matches_reference(kernels, N, D, K, L, kind, dtype):
    x, y = cloud(2, N, D, seed=0), cloud(2, N, D, seed=1)
    p, q = orthonormal(2, D, K, seed=2), orthonormal(2, D, L, seed=3)
    if kind in ("equal", "close"):
        q = p
    if kind == "close":
        q = torch.linalg.qr(p + 1e-3 * cloud(2, D, K, seed=4)).Q
    if kind == "zero columns":
        p[..., -1], q[0, :, 0] = 0, 0
    upstream = cloud(2, N, seed=5)

    def run(f, inputs):
        leaves = [part.clone().requires_grad_() for part in inputs]
        out = f(*leaves)
        return out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype))

    inputs = [part.to(dtype) for part in (x, y, p, q)]
    compare(["cosine", *"xypq"], run, kernels.cosine, reference.geodesic_cosine, inputs)


@pytest.mark.parametrize("kind", ["plain", "equal", "close", "right", "zero columns"])
@pytest.mark.parametrize(("D", "K", "L"), [(1, 1, 1), (9, 2, 5), (40, 17, 3), (33, 12, 12)], ids=str)
@DTYPES
def test_angles_match_reference(kernels, D, K, L, kind, dtype):
    whole, other = orthonormal(2, D, min(K + L, D), seed=2), orthonormal(2, D, L, seed=3)
    p, q = whole[..., :K], {"plain": other, "right": whole[..., -L:]}.get(kind, whole[..., :L])
    if kind == "close":
        q = torch.linalg.qr(q + 1e-4 * other).Q
    if kind == "zero columns":
        p, q = p.clone(), other.clone()
        p[..., -1], q[0, :, 0] = 0, 0
    p, q = p.to(dtype), q.to(dtype)
    found, truth = kernels.angles(p, q), reference.principal_angles(p.double(), q.double())
    if dtype == torch.float32:
        assert_as_accurate("angles", found, reference.principal_angles(p, q), truth)
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=32 * D * torch.finfo(dtype).eps)


@DTYPES
def test_sixty_four_directions(kernels, dtype):
    x, y = cloud(1, 5, 130, seed=0), cloud(1, 5, 130, seed=1)
    p, q = orthonormal(1, 130, 64, seed=2), orthonormal(1, 130, 64, seed=3)

    def run(f, inputs):
        leaves = [part.clone().requires_grad_() for part in inputs]
        out = f(*leaves)
        return out.detach(), *torch.autograd.grad(out.sum(), leaves)

    inputs = [part.to(dtype) for part in (x, y, p, q)]
    compare(["cosine", *"xypq"], run, kernels.cosine, reference.geodesic_cosine, inputs)


def test_rows_without_direction(kernels):
    x, y, p = cloud(1, 3, 7, seed=0), cloud(1, 3, 7, seed=1), orthonormal(1, 7, 2, seed=2)
    x[0, 1] = 0
    leaves = [part.requires_grad_() for part in (x, y, p, orthonormal(1, 7, 2, seed=3))]
    out = kernels.cosine(*leaves)
    assert out[0, 1] == 0
    grads = torch.autograd.grad(out.sum(), leaves)
    assert (grads[0][0, 1] == 0).all()
    assert all(grad.isfinite().all() for grad in grads)


def test_right_angles_give_something_finite(kernels):
    # one of several values there, as the geodesic is not unique
    turn = orthonormal(9, 9, seed=8)[None]
    p, q = turn[..., :4], torch.cat([turn[..., :1], turn[..., 5:8]], -1)
    x, y = cloud(1, 5, 9, seed=0), cloud(1, 5, 9, seed=1)
    leaves = [part.clone().requires_grad_() for part in (x, y, p, q)]
    out = kernels.cosine(*leaves)
    assert (out.abs() <= 1 + 1e-12).all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), leaves))


class TestEmpty:
    """Operators called directly take sizes of which one is 0, as those of the CPU do."""

    @pytest.mark.parametrize("sizes", [(0, 5, 2, 3), (2, 0, 2, 3), (2, 5, 0, 3), (2, 5, 2, 0)], ids=str)
    def test_angles(self, kernels, sizes):
        B, D, K, L = sizes
        p, q = cloud(B, D, K, seed=0), cloud(B, D, L, seed=1)
        torch.testing.assert_close(kernels.angles(p, q), NATIVE.principal_angles(p.mT, q.mT))

    @pytest.mark.parametrize(
        "sizes",
        [
            (0, 4, 5, 2, 3),
            (2, 0, 5, 2, 3),
            (2, 4, 0, 2, 3),
            (2, 4, 5, 0, 3),
            (2, 4, 5, 2, 0),
            (2, 4, 5, 0, 0),
        ],
        ids=str,
    )
    def test_cosine(self, kernels, sizes):
        B, N, D, K, L = sizes
        x, y, p, q = (cloud(B, rows, D, seed=rows) for rows in (N, N, K, L))
        leaves = [part.requires_grad_() for part in (x, y, p.mT, q.mT)]
        out = kernels.cosine(*leaves, eps=1e-6)
        of_cpu = NATIVE.geodesic_cosine(*(part.detach() for part in (x, y, p, q)), 1e-6)
        torch.testing.assert_close(out, of_cpu[0])
        upstream = torch.ones_like(out)
        inputs = [part.detach() for part in (x, y, p, q)]
        grads = NATIVE.geodesic_cosine_backward(upstream, *inputs, *of_cpu[1:], 1e-6, *[True] * 4)
        ours = torch.autograd.grad(out, leaves, upstream)
        for mine, its in zip((ours[0], ours[1], ours[2].mT, ours[3].mT), grads, strict=True):
            torch.testing.assert_close(mine, its)


class TestOrder:
    """Races would change bits with the order in which threads run; so would blocks that share memory."""

    def results(self, kernels):
        x, y = cloud(3, 9, 20, seed=0).float(), cloud(3, 9, 20, seed=1).float()
        leaves = [
            part.requires_grad_() for part in (x, y, *(cloud(3, 9, 20, seed=s).float() for s in (2, 3)))
        ]
        (p, _), (q, _) = (kernels.basis(part, rank=7, rtol=1e-6) for part in leaves[2:])
        out = kernels.cosine(*leaves[:2], p, q)
        angles = kernels.angles(p.detach(), q.detach())
        return out, angles, *torch.autograd.grad(out.sum(), leaves)

    @pytest.mark.parametrize("limit", [SMALLEST, 0], ids=["shared memory", "device memory"])
    def test_changes_no_bit(self, library, limit):
        first = self.results(Kernels(library))
        for order in ORDERS:
            again = self.results(Kernels(library, limit, order))
            assert all(map(torch.equal, first, again))
