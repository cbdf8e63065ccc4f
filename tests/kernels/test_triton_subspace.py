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


def test_rank_and_dependent_rows():
    x = there(cloud(1, 3, 8, seed=0).repeat(1, 2, 1))
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
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_reach_the_values(bad):
    from geokernels.kernels.triton.subspace import decompose_rows

    x = there(cloud(2, 3, 5, seed=0))
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
    with pytest.raises(gk.BackendError, match="up to 32 rows, not 33"):
        gk.subspace_basis(torch.zeros(33, 40, device=DEVICE), backend="triton")


def test_operator_is_well_registered_and_maps():
    from geokernels.kernels.triton.subspace import decompose_rows

    x = there(cloud(2, 3, 5, seed=0))
    torch.library.opcheck(torch.ops.geokernels.triton_decompose_rows.default, (x,))
    for once, mapped in zip(decompose_rows(x), torch.vmap(decompose_rows)(x), strict=True):
        assert torch.equal(once, mapped)
