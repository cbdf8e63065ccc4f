"""Costs that the CUDA Sinkhorn kernel makes of points, on the host, are those of the definition."""

import math

import pytest
import torch

from geokernels import reference
from geokernels.kernels import transport
from geokernels.kernels.costs import PRODUCTS
from geokernels.testing import assert_as_accurate, cloud

from .emulated_transport import BY_CHANCE, DESCENDING, DTYPES, STORED, bits, define, solver


@pytest.fixture(scope="module")
def solve(emulated):
    return solver(emulated("cuda_transport"))


class TestPoints:
    """Costs made by the kernel: in float32 on the tensor cores, whose rounding to tf32 is emulated."""

    def run(self, solve, x, y, kind, n=None, m=None, **settings):
        settings = {"eps": 8.0, "tol": 0.0, "max_iter": 3} | settings
        computed = torch.float32 if x.dtype in STORED else x.dtype
        cost = x.new_empty(*x.shape[:-1], y.shape[-2], dtype=computed)
        return cost, *solve(cost, None, None, n, m, x=x, y=y, kind=PRODUCTS[kind], **settings)

    def points(self, N, M, D, dtype, kind):
        x, y = cloud(2, N, D, seed=0).to(dtype), cloud(2, M, D, seed=1).to(dtype)
        if kind == "cosine":
            x, y = (torch.nn.functional.normalize(part, dim=-1) for part in (x, y))
        return x, y

    # every layout; features that divide no tile, and more than one tile of them
    @pytest.mark.parametrize("N, M, D", [(5, 7, 3), (64, 40, 33), (77, 77, 70), (99, 128, 32), (140, 40, 5)])
    @pytest.mark.parametrize("kind", PRODUCTS)
    @DTYPES
    def test_costs_match_reference(self, solve, N, M, D, kind, dtype):
        x, y = self.points(N, M, D, dtype, kind)
        cost, value, f, *_ = self.run(solve, x, y, kind)
        eager = reference.transport.pairwise_cost(x, y, kind)
        exact = reference.transport.pairwise_cost(x.double(), y.double(), kind)
        assert_as_accurate("cost", cost, eager, exact)
        settings = {"eps": 8.0, "reach": math.inf, "max_iter": 3, "tol": 0.0}
        again = solve(cost, eps=8.0, tol=0.0, max_iter=3)
        assert torch.equal(value, again[0])
        assert torch.equal(f, again[1])
        truth = define(exact, **settings)
        torch.testing.assert_close(value.double(), truth[0], rtol=1e-5, atol=1e-5)

    # a number at a time, and in pieces; in one panel of rows, and in several
    @pytest.mark.parametrize(("N", "D"), [(20, 6), (20, 8), (140, 8)])
    def test_a_distant_origin_costs_no_digits(self, solve, N, D):
        x, y = self.points(N, 30, D, torch.float32, "sqeuclidean")
        exact = reference.transport.pairwise_cost((x + 1024).double(), (y + 1024).double())
        cost, *_ = self.run(solve, x + 1024, y + 1024, "sqeuclidean")
        assert (cost - exact).abs().max() < 1e-4

    # squares are 1, 2, 3.6, 4.4 and 100 times the costs: up to 4 times, points are multiplied as they are
    @pytest.mark.parametrize("times", [1, 2, 3.6, 4.4, 100])
    @pytest.mark.parametrize("dtype", [torch.float32, *STORED], ids=["f32", "f16", "bf16"])
    def test_no_origin_costs_more_digits_than_float32_has(self, solve, dtype, times):
        x, y = self.points(16, 24, 256, torch.float32, "sqeuclidean")
        x, y = ((part + (times - 1) ** 0.5).to(dtype) for part in (x, y))
        cost, *_ = self.run(solve, x, y, "sqeuclidean", eps=1e3)
        eager = reference.transport.pairwise_cost(x.float(), y.float())
        exact = reference.transport.pairwise_cost(x.double(), y.double())
        assert_as_accurate("cost", cost, eager, exact)
        # three roundings of the squares, which are at most four times the costs
        assert (cost - exact).abs().max() <= 12 * 2.0**-23 * exact.mean()

    def test_pieces_and_single_numbers_agree(self, solve):
        # the same points where they do and do not lie on multiples of 16 bytes
        x, y = self.points(20, 30, 40, torch.float32, "dot")
        for dtype in (torch.float32, *STORED):
            near = [part.to(dtype).contiguous() for part in (x, y)]
            room = [torch.empty(part.numel() + 1, dtype=dtype) for part in near]
            apart = [place[1:].view(part.shape).copy_(part) for place, part in zip(room, near, strict=True)]
            assert apart[0].data_ptr() % 16 != 0
            found, again = (self.run(solve, *points, "dot")[0] for points in (near, apart))
            torch.testing.assert_close(found, again, rtol=0, atol=1e-5)

    def test_products_are_worth_three_of_tf32(self, solve):
        x, y = self.points(16, 16, 64, torch.float32, "dot")
        cost, *_ = self.run(solve, x, y, "dot")
        error = (cost.double() + x.double() @ y.double().mT).abs()
        lengths = x.double().norm(dim=-1)[..., :, None] * y.double().norm(dim=-1)[..., None, :]
        # one product of tf32 alone is off by 2^-11 of the lengths
        assert (error / lengths).max() < 2.0**-20

    @pytest.mark.parametrize("dtype", [torch.float32, *STORED], ids=["f32", "f16", "bf16"])
    def test_long_sums_do_not_drift(self, solve, dtype):
        # nearly parallel rows: the cores round sums toward zero, always to the same side
        x, y = self.points(16, 16, 768, torch.float32, "dot")
        x, y = ((1 + part / 16).to(dtype) for part in (x, y))
        cost, *_ = self.run(solve, x, y, "dot", eps=1e3)
        error = (cost.double() + x.double() @ y.double().mT).abs()
        lengths = x.double().norm(dim=-1)[..., :, None] * y.double().norm(dim=-1)[..., None, :]
        assert (error / lengths).max() < 2.0**-20

    @pytest.mark.parametrize("kind", PRODUCTS)
    @pytest.mark.parametrize("dtype", STORED, ids=["f16", "bf16"])
    def test_half_precision_is_read_as_it_is(self, solve, kind, dtype):
        x, y = self.points(20, 30, 40, torch.float32, kind)
        x, y = x.to(dtype), y.to(dtype)
        x[0, 0, :3] = torch.tensor([0.0, -6e-8, 6e-5])  # zero, and numbers without a leading one in float16
        cost, value, *_ = self.run(solve, x, y, kind)
        wide, its_value, *_ = self.run(solve, x.float(), y.float(), kind)
        # products need not be split, and lose less
        close = {"rtol": 0, "atol": 3e-5 if kind == "sqeuclidean" else 1e-5}
        torch.testing.assert_close(cost, wide, **close)
        torch.testing.assert_close(value, its_value, rtol=1e-5, atol=close["atol"])
        exact = reference.transport.pairwise_cost(x.double(), y.double(), kind)
        if kind == "cosine":  # of what are no longer quite directions
            exact = 1 - x.double() @ y.double().mT
        assert_as_accurate("cost", cost, wide, exact)

    def test_ragged(self, solve):
        x, y = self.points(20, 40, 6, torch.float64, "sqeuclidean")
        n, m = torch.tensor([20, 3]), torch.tensor([7, 40])
        x[1, 3:] = y[0, 7:] = math.nan
        cost, value, f, *_ = self.run(solve, x, y, "sqeuclidean", n, m)
        for k in range(2):
            alone = reference.transport.pairwise_cost(x[k, : n[k]], y[k, : m[k]])
            torch.testing.assert_close(cost[k, : n[k], : m[k]], alone)
        assert (cost[1, 3:] == math.inf).all()
        assert (cost[0, :, 7:] == math.inf).all()
        assert value.isfinite().all()
        assert (f[1, 3:] == 0).all()

    # in one panel of rows, and in several
    @pytest.mark.parametrize(("N", "M"), [(20, 30), (40, 140)])
    def test_order_changes_no_bit(self, solve, N, M):
        x, y = self.points(N, M, 40, torch.float32, "sqeuclidean")
        first = self.run(solve, x, y, "sqeuclidean", blocks=1)
        for order in (DESCENDING, BY_CHANCE):
            again = self.run(solve, x, y, "sqeuclidean", order=order)
            assert all(map(torch.equal, bits(first), bits(again)))

    @pytest.mark.parametrize("kind", PRODUCTS)
    def test_gradient_without_a_kernel(self, kind):
        # what derivatives of the operator go through on a GPU
        x, y = self.points(5, 7, 3, torch.float64, kind)
        weight, leaf = cloud(2, 5, 7, seed=2), x.clone().requires_grad_()
        # of directions: that they are is somebody else's derivative
        cost = 1 - leaf @ y.mT if kind == "cosine" else reference.transport.pairwise_cost(leaf, y, kind)
        (expected,) = torch.autograd.grad((weight * cost).sum(), leaf)
        torch.testing.assert_close(transport._dense_point_gradient(weight, x, y, PRODUCTS[kind]), expected)
