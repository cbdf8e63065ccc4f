"""The CUDA Sinkhorn kernel, run on the host thread by thread, agrees with the definition."""

import ctypes
import itertools
import math

import pytest
import torch

from geokernels import reference
from geokernels.kernels import transport
from geokernels.kernels.costs import PRODUCTS, PointCost
from geokernels.reference.potentials import density
from geokernels.testing import assert_as_accurate, cloud, weights

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
ASCENDING, DESCENDING, BY_CHANCE = 0, 1, 7
STORED = {torch.float16: 1, torch.bfloat16: 2}


class Options(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("problems", "rows", "columns")]
    _fields_ += [(name, ctypes.c_double) for name in ("eps", "reach", "tol")]
    _fields_ += [(name, ctypes.c_int64) for name in ("max_iter", "blocks", "near_groups", "order")]
    _fields_ += [(name, ctypes.c_int64) for name in ("features", "kind", "stored", "width")]


@pytest.fixture(scope="module")
def solve(emulated):
    library = emulated("cuda_transport")

    def run(cost, a=None, b=None, n=None, m=None, start=None, *, eps, reach=math.inf, tol, max_iter=1000,
            blocks=None, near_groups=99, order=ASCENDING, x=None, y=None, kind=0, v=None):  # fmt: skip
        B, N, M = cost.shape
        features, stored = (0, 0) if x is None else (x.shape[-1], STORED.get(x.dtype, 0))
        width = 0 if v is None else v.shape[-1]
        numbers = eps, reach, tol, max_iter, blocks or B, near_groups, order, features, kind, stored, width
        options = Options(B, N, M, *numbers)
        # torch.empty is NaN in tests; one more number than there is room for must stay so
        outs = [cost.new_empty(size + 1) for size in (B, B * N, B * M, B)]
        iterations = torch.full((B,), -1)
        carried = None if v is None else cost.new_empty(B * N * width + 1)
        parts = x, y, cost, v, carried, a, b, start, n, m
        held = [None if part is None else part.contiguous() for part in parts]
        pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in (*held, *outs, iterations)]
        name = "sinkhorn_float" if cost.dtype == torch.float32 else "sinkhorn_double"
        getattr(library, name)(ctypes.byref(options), *pointers)
        assert all(out[-1].isnan() for out in outs)
        value, f, g, error = (out[:-1].view(*shape) for out, shape in zip(outs, ((B,), (B, N), (B, M), (B,))))
        if v is None:
            return value, f, g, error, iterations
        assert carried[-1].isnan()
        return value, f, g, error, iterations, carried[:-1].view(B, N, width)

    return run


def problem(N, M, B=2, seed=0):
    x, y = cloud(B, N, 3, seed=seed), cloud(B, M, 3, seed=seed + 1)
    cost = torch.cdist(x, y).square()
    return cost / cost.mean(), weights(B, N, seed=seed + 2), weights(B, M, seed=seed + 3)


def bits(found):
    return [part.view(torch.int32 if part.dtype == torch.float32 else torch.int64) for part in found]


def define(cost, a=None, b=None, n=None, m=None, **settings):
    """The solution by the definition."""
    lengths = None if n is None else (n, m)
    return reference.solve(cost, reference.Problem(a=a, b=b, lengths=lengths, **settings))


# every layout: one point, less than a warp, CLIP's token count, more than fits registers, and the largest
SHAPES = [(1, 1), (17, 33), (64, 40), (77, 77), (100, 128), (256, 130)]


@pytest.mark.parametrize("reach", [math.inf, 0.7], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize(("N", "M"), SHAPES, ids=str)
@DTYPES
def test_matches_reference(solve, N, M, dtype, reach):
    exact = problem(N, M)
    settings = {"eps": 0.2, "reach": reach, "max_iter": 15, "tol": 0.0}
    inputs = [part.to(dtype) for part in exact]
    ours = solve(*inputs, **settings)
    eager = define(*inputs, **settings)
    truth = define(*exact, **settings)
    for name, i in (("value", 0), ("f", 1), ("g", 2)):
        assert_as_accurate(name, ours[i], eager[i], truth[i])
    # one point may be exact sooner
    exact = ours[3] <= 64 * torch.finfo(dtype).eps
    assert (torch.where(exact, 15, ours[4]) == 15).all()


def test_absorbs_and_renews(solve):
    # eps far below the costs: K is made anew many times, by rows and by columns
    cost, a, b = problem(24, 33, B=1)
    settings = {"eps": 0.002, "tol": 1e-6, "max_iter": 150}
    value, f, g, error, iterations = solve(cost.float(), a.float(), b.float(), **settings)
    exact = define(cost, a, b, **settings)
    assert (iterations == exact[4]).all()
    torch.testing.assert_close(value.double(), exact[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(f.double(), exact[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(g.double(), exact[2], rtol=0, atol=1e-5)
    torch.testing.assert_close(error.double(), exact[3], rtol=0.1, atol=1e-6)


# every layout at both ends of its sizes
SIDES = [1, 64, 65, 80, 81, 96, 97, 128, 129, 256]


@pytest.mark.parametrize("kib", [99, 163, 227])
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_fits_the_shared_memory_of_every_gpu(emulated, dtype, kib):
    memory = getattr(emulated("cuda_transport"), f"memory_{dtype}")
    memory.restype = ctypes.c_int64
    room = 1024 * kib
    for rows, columns, points, carry in itertools.product(SIDES, SIDES, (0, 1), (0, 1)):
        asked = memory(*map(ctypes.c_int64, (rows, columns, room)), points, carry)
        assert 0 < asked <= room, (rows, columns, points, carry)
        # where nothing fits, that is said and not rounded up to what there is
        assert memory(*map(ctypes.c_int64, (rows, columns, 1024)), points, carry) > 1024


class TestOrder:
    """What a race would change: the bits, with the order in which threads run."""

    @pytest.mark.parametrize("near_groups", [99, 3, 0], ids=["near", "both", "far"])
    def test_of_threads_changes_no_bit(self, solve, near_groups):
        cost, a, b = (part.float() for part in problem(140, 70, B=1))
        settings = {"eps": 0.01, "tol": 1e-3, "max_iter": 12, "near_groups": near_groups}
        first = solve(cost, a, b, **settings)
        for order in (DESCENDING, BY_CHANCE):
            again = solve(cost, a, b, order=order, **settings)
            assert all(map(torch.equal, bits(first), bits(again)))

    def test_of_threads_changes_no_bit_in_registers(self, solve):
        cost, a, b = (part.float() for part in problem(33, 77, B=1))
        first = solve(cost, a, b, eps=0.01, reach=0.5, tol=1e-4, max_iter=60)
        for order in (DESCENDING, BY_CHANCE):
            again = solve(cost, a, b, eps=0.01, reach=0.5, tol=1e-4, max_iter=60, order=order)
            assert all(map(torch.equal, bits(first), bits(again)))

    @pytest.mark.parametrize("M", [20, 140])
    def test_of_blocks_changes_no_bit(self, solve, M):
        cost, a, b = (part.float() for part in problem(20, M, B=3))
        each = solve(cost, a, b, eps=0.1, tol=1e-4, near_groups=0)
        shared = solve(cost, a, b, eps=0.1, tol=1e-4, near_groups=0, blocks=2)
        assert all(map(torch.equal, bits(each), bits(shared)))


class TestDegenerate:
    def compare(self, solve, cost, a, b, n=None, m=None, **settings):
        settings = {"eps": 0.2, "reach": math.inf, "max_iter": 30, "tol": 1e-9} | settings
        ours = solve(cost, a, b, n, m, **settings)
        exact = define(cost, a, b, n, m, **settings)
        for part, wanted in zip(ours[:4], exact[:4], strict=True):
            torch.testing.assert_close(part, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)
        return ours

    @pytest.mark.parametrize("M", [33, 140])
    @pytest.mark.parametrize("reach", [math.inf, 0.7], ids=["balanced", "unbalanced"])
    def test_ragged_and_without_weight(self, solve, reach, M):
        cost, a, b = problem(21, M, B=3)
        n, m = torch.tensor([21, 1, 9]), torch.tensor([5, M, 30])
        for k in range(3):
            cost[k, n[k] :], cost[k, :, m[k] :], a[k, n[k] :], b[k, m[k] :] = math.inf, math.inf, 0, 0
        a[2, 3] = b[0, 1] = b[1, 7] = 0
        self.compare(solve, cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True), n, m, reach=reach)

    def test_uniform_without_weights(self, solve):
        cost, *_ = problem(9, 12)
        given = solve(cost, eps=0.2, tol=1e-9)
        exact = define(cost, eps=0.2, tol=1e-9)
        torch.testing.assert_close(given[1], exact[1], rtol=0, atol=1e-9)

    def test_start(self, solve):
        cost, a, b = problem(9, 12)
        g = solve(cost, a, b, eps=0.2, tol=1e-9)[2]
        assert (solve(cost, a, b, start=g, eps=0.2, tol=1e-8)[4] == 1).all()

    def test_start_where_a_point_reached_nobody(self, solve):
        cost, a, b = problem(9, 12)
        cost[0, :, 3] = math.inf
        options = {"eps": 0.2, "reach": 0.7, "tol": 1e-9}
        value, f, g, *_ = solve(cost, a, b, **options)
        assert g[0, 3] == math.inf
        again = solve(cost, a, b, start=g, **options)
        for found, before in zip(again, (value, f, g)):
            torch.testing.assert_close(found, before)

    @pytest.mark.parametrize("reach", [1e3, 1e6])
    def test_constant_under_a_large_reach(self, solve, reach):
        cost, a, b = problem(9, 12)
        options = {"eps": 1.0, "reach": reach, "tol": 0.0, "max_iter": 40}
        # far from 0, where the plan's entries are known to thousands of roundings
        cost, a, b = 3e4 + cost, a, 1.1 * b
        truth = solve(cost, a, b, **options)
        found = solve(cost.float(), a.float(), b.float(), **options)
        for part, exact in zip(found[1:3], truth[1:3]):
            assert (part - exact).abs().max() <= 64 * reach * 2.0**-23 + 1e-2

    def test_forbidden_pairs(self, solve):
        cost, a, b = problem(9, 12)
        cost[0, 2, :7] = math.inf
        cost[1, :5, 4] = math.inf
        self.compare(solve, cost, a, b)

    def test_point_that_reaches_nobody(self, solve):
        cost, a, b = problem(9, 12)
        cost[0, 2], cost[1, :, 3] = math.inf, math.inf
        value, f, g, error, _ = solve(cost, a, b, eps=0.2, tol=1e-6, max_iter=200)
        assert (value == math.inf).all()
        assert f[0, 2] == math.inf
        assert g[1, 3] == math.inf
        # what cannot go anywhere is missing at least on its own side
        assert (error >= torch.stack([a[0, 2], b[1, 3]])).all()
        assert (error <= 2).all()

    @pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
    def test_refuses_weights(self, solve, bad):
        cost, a, b = problem(9, 12)
        b[1, 4] = bad
        value, f, g, error, iterations = solve(cost, a, b, eps=0.2, tol=1e-6)
        assert value[0].isfinite()
        assert iterations[1] == 0
        assert all(part[1].isnan().all() for part in (value, f, g, error))

    def test_nan_cost_stops(self, solve):
        cost, a, b = problem(9, 12)
        cost[1, 3, 3] = math.nan
        *_, error, iterations = solve(cost, a, b, eps=0.2, tol=1e-6)
        assert error[1].isnan()
        assert iterations[1] == 1


class TestCarry:
    """Columns that the plan carries, in the same launch; in float32 on the tensor cores."""

    # every layout; more columns than a block takes at a time, and rows than a panel has
    @pytest.mark.parametrize(("N", "M"), [(1, 1), (17, 33), (77, 77), (100, 128), (140, 70)], ids=str)
    @pytest.mark.parametrize("width", [1, 70])
    @DTYPES
    def test_is_the_product_with_the_plan(self, solve, N, M, width, dtype):
        cost, a, b = (part.to(dtype) for part in problem(N, M))
        v = cloud(2, M, width, seed=5).to(dtype)
        settings = {"eps": 0.1, "tol": 0.0, "max_iter": 5}
        *found, carried = solve(cost, a, b, v=v, **settings)
        for part, alone in zip(found, solve(cost, a, b, **settings), strict=True):
            assert torch.equal(part, alone)
        f, g = found[1:3]
        eager = density(cost, f, g, 0.1) @ (b[..., None] * v)
        wide = [part.double() for part in (cost, f, g)]
        exact = density(*wide, 0.1) @ (b[..., None] * v).double()
        assert_as_accurate("carried", carried, eager, exact)

    def test_long_sums_do_not_drift(self, solve):
        cost, a, b = problem(16, 256, B=1)
        v = (1 + cloud(1, 256, 8, seed=5) / 16).float()
        _, f, g, *_, carried = solve(cost.float(), a.float(), b.float(), v=v, eps=30.0, tol=0.0, max_iter=3)
        exact = density(cost.float().double(), f.double(), g.double(), 30.0) @ (
            b.float().double()[..., None] * v.double()
        )
        assert ((carried - exact) / exact).abs().max() < 2.0**-20

    def test_degenerate(self, solve):
        # ragged, without weight, forbidden pairs, a point that reaches nobody, a problem without a solution
        cost, a, b = problem(9, 12, B=3)
        n, m = torch.tensor([9, 4, 9]), torch.tensor([12, 7, 12])
        cost[0, 2], cost[0, 4, 5], a[0, 1], b[0, 3] = math.inf, math.inf, 0, 0
        a[1, 4:], b[1, 7:], b[2, 4] = 0, 0, -1
        v = cloud(3, 12, 5, seed=5)
        v[1, 7:] = math.nan
        _, f, g, *_, carried = solve(cost, a, b, n, m, v=v, eps=0.2, tol=1e-9, max_iter=30)
        expected = density(cost, f, g, 0.2) @ (b[..., None] * v.nan_to_num())
        expected[1, 4:] = 0
        torch.testing.assert_close(carried, expected)
        assert (carried[0, 2] == 0).all()
        assert (carried[2] == 0).all()

    # one problem a block, and one block for both
    @pytest.mark.parametrize("M", [30, 140])
    def test_from_points_and_order_changes_no_bit(self, solve, M):
        x, y = cloud(2, 20, 6, seed=0).float(), cloud(2, M, 6, seed=1).float()
        settings = {"x": x, "y": y, "kind": PointCost.SQUARE, "v": y, "eps": 1.0, "tol": 1e-4}
        first = solve(x.new_empty(2, 20, M), **settings)
        eager = reference.transport.pairwise_cost(x.double(), y.double())
        expected = density(eager, *(part.double() for part in first[1:3]), 1.0) @ y.double() / M
        torch.testing.assert_close(first[-1].double(), expected, rtol=0, atol=1e-5)
        for order in (DESCENDING, BY_CHANCE):
            again = solve(x.new_empty(2, 20, M), blocks=1, order=order, **settings)
            assert all(map(torch.equal, bits(first), bits(again)))


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
