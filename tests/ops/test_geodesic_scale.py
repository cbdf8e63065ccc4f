"""The geodesic cosine does not depend on how long its rows are, while their components are numbers."""

import pytest
import torch

import geokernels as gk
from geokernels.losses import geodesic_consistency_loss, geodesic_regularisation_loss
from geokernels.testing import cloud, orthonormal

FLOAT, DOUBLE = torch.float32, torch.float64


def sides(dtype):
    """Rows and bases of sizes that divide no vector."""
    rows = (cloud(2, 5, 37, seed=seed).to(dtype) for seed in (0, 1))
    return *rows, orthonormal(2, 37, 3, seed=2).to(dtype), orthonormal(2, 37, 4, seed=3).to(dtype)


def with_gradients(x, y, p, q, scale_x, scale_y, **kw):
    leaves = [part.clone().requires_grad_() for part in (x * scale_x, y * scale_y, p, q)]
    cosines = gk.geodesic_cosine(*leaves, **kw)
    to_x, to_y, *to_bases = torch.autograd.grad(cosines.square().sum(), leaves)
    return cosines.detach(), to_x * scale_x, to_y * scale_y, *to_bases


@pytest.mark.parametrize("backend", ["native", "reference", "triton"])
@pytest.mark.parametrize(
    ("dtype", "scale_x", "scale_y"),
    [
        (FLOAT, 2e19, 2e19),
        (FLOAT, 2e19, 1.0),
        (FLOAT, 1.0, 2e19),
        (FLOAT, 1e35, 1e-3),
        (DOUBLE, 1e200, 1.0),
        (DOUBLE, 1e300, 1e160),
    ],
    ids=str,
)
def test_long_rows_count_like_others(backend, dtype, scale_x, scale_y):
    if backend == "triton" and dtype is DOUBLE:
        pytest.skip("Triton's kernels are float32")
    found = with_gradients(*sides(dtype), scale_x, scale_y, backend=backend)
    wanted = with_gradients(*sides(dtype), 1.0, 1.0, backend=backend)
    for part, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-4 if dtype is FLOAT else 1e-12, atol=1e-6)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_short_rows_count_where_no_length_is_too_short(backend):
    found = with_gradients(*sides(FLOAT), 1e-25, 1e-30, backend=backend, eps=0.0)
    wanted = with_gradients(*sides(FLOAT), 1.0, 1.0, backend=backend, eps=0.0)
    for part, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_rows_whose_length_is_no_number_count_too(backend):
    x, y, p, q = sides(FLOAT)
    largest = 3.4e38 / x.abs().max()
    found = gk.geodesic_cosine(x * largest, y, p, q, backend=backend)
    torch.testing.assert_close(found, gk.geodesic_cosine(x, y, p, q, backend=backend), rtol=1e-4, atol=1e-6)


def test_along_a_flow_too():
    x, y, p, q = sides(FLOAT)
    flow = gk.geodesic_flow(p, q)
    found = gk.geodesic_cosine_along(x * 2e19, y * 1e30, flow)
    torch.testing.assert_close(found, gk.geodesic_cosine_along(x, y, flow), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_losses_of_long_rows(backend):
    now, other = (cloud(5, 37, seed=seed).float() for seed in (0, 1))
    texts = [cloud(4, 37, seed=seed).float() for seed in (2, 3)]
    step = geodesic_regularisation_loss(now, other, backend=backend)
    change = geodesic_consistency_loss(now, other, *texts, backend=backend)
    for scale in (2e19, 1e30):
        found = geodesic_regularisation_loss(now * scale, other * scale, backend=backend)
        torch.testing.assert_close(found, step)
        found = geodesic_consistency_loss(now * scale, other * scale, *texts, backend=backend)
        torch.testing.assert_close(found, change)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_bases_whose_products_overflow_are_named(backend):
    x, y, p, q = sides(FLOAT)
    with pytest.raises(ValueError, match="p and q must have orthonormal columns, got one of length 1e\\+20"):
        gk.geodesic_cosine(x, y, p * 1e20, q * 1e20, backend=backend)
    with pytest.raises(ValueError, match="p and q must have orthonormal columns"):
        gk.principal_angles(p * 1e20, q * 1e20, backend=backend)
