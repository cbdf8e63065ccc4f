"""The CUDA Sinkhorn kernel, run on the host thread by thread, agrees with the definition."""

import ctypes
import itertools
import math

import pytest
import torch

from geokernels import reference
from geokernels.kernels.costs import PointCost
from geokernels.reference.potentials import density
from geokernels.testing import assert_as_accurate, cloud

from .emulated_transport import BY_CHANCE, DESCENDING, DTYPES, bits, define, problem, solver


@pytest.fixture(scope="module")
def solve(emulated):
    return solver(emulated("cuda_transport"))


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
