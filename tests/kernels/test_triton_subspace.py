"""Triton's decomposition of rows, on the GPU or in the interpreter, and the bases that are made with it."""

import pytest
import torch

import geokernels as gk
from geokernels.kernels import triton
from geokernels.testing import assert_as_accurate, cloud

DEVICE = "cpu" if triton.interpreted else "cuda"


def there(x, dtype=None):
    return x.to(DEVICE, dtype or (torch.float64 if triton.interpreted else torch.float32))


def test_the_kernel_runs_here():
    # no test of this file may be skipped for want of a GPU
    assert triton.refuse_rows(torch.zeros(1, 1, device=DEVICE)) is None


def span_and_gradient(x, backend, **options):
    leaf = x.clone().requires_grad_()
    basis, values = gk.subspace_basis(leaf, backend=backend, **options)
    span = basis @ basis.mT
    upstream = cloud(*span.shape, seed=3).to(span), cloud(*values.shape, seed=4).to(values)
    (grad,) = torch.autograd.grad([span, values], leaf, upstream)
    return span.detach(), values.detach(), grad


# one row, more rows than features, more features than a tile, more rows than the least tile
@pytest.mark.parametrize(("N", "D"), [(1, 3), (5, 2), (4, 40), (18, 20)], ids=str)
@pytest.mark.parametrize("kind", ["plain", "ill-conditioned"])
def test_is_as_accurate_as_eager(N, D, kind):
    x = cloud(2, N, D, seed=N + D)
    if kind == "ill-conditioned":
        x = x * 10.0 ** (-3 * torch.arange(N, dtype=x.dtype) / max(N - 1, 1))[:, None]
    exact = span_and_gradient(x.float().double(), "reference", rtol=0.0)
    eager = span_and_gradient(x.float(), "reference", rtol=0.0)
    ours = span_and_gradient(there(x, torch.float32), "triton", rtol=0.0)
    for name, *parts in zip(["span", "values", "gradient"], ours, eager, exact, strict=True):
        assert_as_accurate(name, parts[0].cpu(), *parts[1:])


@pytest.mark.skipif(not triton.interpreted, reason="Triton compiles for the panels of the package")
def test_panels_of_two_blocks_among_several(monkeypatch):
    from geokernels.kernels.triton import decompose, subspace

    x = there(cloud(1, 17, 20, seed=0))
    exact = torch.linalg.svdvals(x)
    monkeypatch.setattr(decompose, "MOST_WIDTH", 16)  # 4 blocks of 8 columns
    left, values, directions = subspace.decompose_rows(x)
    near = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(values, exact, **near)
    torch.testing.assert_close((left * values[..., None, :]) @ directions, x, **near)
    one = torch.eye(17, dtype=x.dtype)[None]
    torch.testing.assert_close(left.mT @ left, one, **near)
    torch.testing.assert_close(directions @ directions.mT, one, **near)


@pytest.mark.long
@pytest.mark.parametrize(("N", "D"), [(128, 140), (100, 128)], ids=str)
def test_the_most_rows(N, D):
    x = there(cloud(1, N, D, seed=0), torch.float32)
    exact, eager, ours = (
        span_and_gradient(rows, backend, rank=N // 2)
        for rows, backend in ((x.cpu().double(), "reference"), (x.cpu(), "reference"), (x, "triton"))
    )
    for name, *parts in zip(["span", "values", "gradient"], ours, eager, exact, strict=True):
        assert_as_accurate(name, parts[0].cpu(), *parts[1:])


@pytest.mark.parametrize("D", [8, 24], ids=["short rows", "long rows"])
def test_rank_and_dependent_rows(D):
    x = there(cloud(1, 3, D, seed=0).repeat(1, 2, 1))
    for backend in ("triton", "reference"):
        basis, values = gk.subspace_basis(x, 5, backend=backend)
        assert (basis[..., 3:] == 0).all()
        assert (values[..., 3:] < 1e-5).all()
        torch.testing.assert_close(x @ basis @ basis.mT, x)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100], ids=["tiny", "huge"])
def test_does_not_overflow(scale):
    x = there(cloud(1, 4, 6, seed=0), torch.float32)
    before, after = (gk.subspace_basis(x * by, backend="triton") for by in (1, scale))
    torch.testing.assert_close(after.basis, before.basis)
    torch.testing.assert_close(after.values / scale, before.values)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_reach_the_values(bad):
    D = 20 if bad < 0 else 5  # long rows, and short ones
    from geokernels.kernels.triton.subspace import decompose_rows

    x = there(cloud(2, 3, D, seed=0))
    plain = decompose_rows(x)[1]
    x[1, 2, 4] = bad
    values = decompose_rows(x)[1]
    assert torch.equal(values[0], plain[0])
    assert not values[1].isfinite().all()


def test_nothing_at_all():
    basis, values = gk.subspace_basis(there(torch.zeros(1, 3, 4)), backend="triton")
    assert (basis == 0).all()
    assert (values == 0).all()


def test_refusals():
    with pytest.raises(gk.BackendError, match="up to 128 rows, not 129"):
        gk.subspace_basis(torch.zeros(129, 40, device=DEVICE), backend="triton")


def test_operator_is_well_registered_and_maps():
    from geokernels.kernels.triton.subspace import decompose_rows

    x = there(cloud(2, 3, 5, seed=0))
    torch.library.opcheck(torch.ops.geokernels.triton_decompose_rows.default, (x,))
    for once, mapped in zip(decompose_rows(x), torch.vmap(decompose_rows)(x), strict=True):
        assert torch.equal(once, mapped)
