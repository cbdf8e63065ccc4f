"""The CUDA kernels that gradients of transport are made of, run on the host, agree with the definition."""

import ctypes
import math

import pytest
import torch

from geokernels.kernels import transport
from geokernels.kernels.costs import PRODUCTS
from geokernels.reference import potentials
from geokernels.testing import assert_as_accurate, cloud

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
ASCENDING, DESCENDING, BY_CHANCE = 0, 1, 7


@pytest.fixture(scope="module")
def call(emulated):
    library = emulated("cuda_gradients")

    def run(name, tensors, shape, *numbers, order=ASCENDING):
        dtype = tensors[0].dtype
        # torch.empty is NaN in tests; one more number than there is room for must stay so
        out = torch.empty(math.prod(shape) + 1, dtype=dtype)
        held = [part.contiguous() for part in tensors]
        pointers = [ctypes.c_void_p(part.data_ptr()) for part in (*held, out)]
        kinds = [ctypes.c_double if isinstance(number, float) else ctypes.c_int64 for number in numbers]
        values = [kind(number) for kind, number in zip(kinds, numbers)]
        run = getattr(library, f"{name}_{'float' if dtype == torch.float32 else 'double'}")
        run(*pointers, *values, ctypes.c_int64(order))
        assert out[-1].isnan()
        return out[:-1].view(shape)

    return run


@pytest.fixture
def density(call):
    return lambda cost, f, g, eps, **how: call(
        "density", (cost, f, g), cost.shape, *cost.shape, float(eps), **how
    )


@pytest.fixture
def gradient(call):
    def run(weight, x, y, kind, **how):
        return call("gradient", (weight, x, y), x.shape, *weight.shape, x.shape[-1], int(kind), **how)

    return run


# a point, less than a warp, CLIP's token count, more than one round of columns
@pytest.mark.parametrize(("B", "N", "M"), [(1, 1, 1), (3, 7, 21), (2, 77, 77), (1, 3, 300)], ids=str)
@DTYPES
def test_density_is_that_of_the_definition(density, B, N, M, dtype):
    cost, f, g = cloud(B, N, M, seed=0), cloud(B, N, seed=1), cloud(B, M, seed=2)
    if N > 1:
        cost[0, 0, 0], cost[0, 1, 2], f[0, 2], g[0, -1], g[-1, 3] = (
            math.inf,
            math.nan,
            math.inf,
            -math.inf,
            1e4,
        )
    rounded = [part.to(dtype) for part in (cost, f, g)]
    ours = density(*rounded, 0.5)
    eager, truth = (potentials.density(*parts, 0.5) for parts in (rounded, [r.double() for r in rounded]))
    assert torch.equal(ours == 0, eager == 0)
    ordinary = eager < 1e30
    assert_as_accurate("density", *(part[ordinary] for part in (ours, eager, truth)))
    assert torch.allclose(ours[~ordinary], eager[~ordinary], rtol=1e-3)


# a point, features of two blocks, points of two blocks, CLIP's token count and one more tile of y than fits
SIZES = [(1, 1, 1, 1), (3, 5, 7, 100), (2, 100, 9, 64), (1, 77, 77, 70), (2, 6, 33, 3)]


@pytest.mark.parametrize("cost", PRODUCTS)
@pytest.mark.parametrize(("B", "N", "M", "D"), SIZES, ids=str)
@DTYPES
def test_gradient_is_that_of_the_costs(gradient, B, N, M, D, cost, dtype):
    # far from the origin: what cancels is no larger than the clouds
    exact = cloud(B, N, M, seed=0), cloud(B, N, D, seed=1) + 5, cloud(B, M, D, seed=2) + 5
    rounded = [part.to(dtype) for part in exact]
    kind = PRODUCTS[cost]
    ours = gradient(*rounded, kind)
    eager = transport._dense_point_gradient(*rounded, kind)
    truth = transport._dense_point_gradient(*(part.double() for part in rounded), kind)
    assert_as_accurate("gradient", ours, eager, truth)


@pytest.mark.parametrize("order", [DESCENDING, BY_CHANCE])
def test_order_of_threads_changes_no_bit(gradient, density, order):
    parts = [cloud(*shape, seed=0).float() for shape in ((1, 90, 70), (1, 90, 70), (1, 70, 70))]
    assert torch.equal(gradient(*parts, 2), gradient(*parts, 2, order=order))
    cost, f, g = (cloud(*shape, seed=0).float() for shape in ((2, 9, 40), (2, 9), (2, 40)))
    assert torch.equal(density(cost, f, g, 0.5), density(cost, f, g, 0.5, order=order))
