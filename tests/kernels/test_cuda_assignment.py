"""The CUDA assignment, run on the host thread by thread, is that of the CPU, ties and all."""

import ctypes
import math

import pytest
import torch

from geokernels.testing import cloud

ASCENDING, DESCENDING, BY_CHANCE = 0, 1, 7
WARPS = pytest.mark.parametrize("warps", [1, 2])  # the GPU has one or eight; two take less time here


@pytest.fixture(scope="module")
def assign(emulated):
    library = emulated("cuda_assignment")

    def run(cost, *, warps=1, blocks=None, far=False, order=ASCENDING):
        B, N, M = cost.shape
        cost = cost.double().contiguous()
        chosen = torch.full((B * N + 1,), -7)
        numbers = B, N, M, warps, blocks or B, int(far), order
        addresses = (ctypes.c_void_p(part.data_ptr()) for part in (cost, chosen))
        library.assignment(*addresses, *map(ctypes.c_int64, numbers))
        assert chosen[-1] == -7
        return chosen[:-1].view(B, N)

    return run


def costs(name, B, N, M, seed=0):
    """Costs of a kind that is hard in its own way."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(B, N, M, generator=generator, dtype=torch.float64)
    if name == "random":
        return uniform
    if name == "points":
        return torch.cdist(cloud(B, N, 4, seed=seed), cloud(B, M, 4, seed=seed + 1)).square()
    if name == "tied":
        return (4 * uniform).floor()  # many equally cheap assignments
    if name == "equal":
        return torch.zeros(B, N, M, dtype=torch.float64)
    if name == "negative":
        return -10 * uniform
    if name == "sparse":
        forbidden = torch.rand(B, N, M, generator=generator) < 0.7
        uniform[forbidden] = math.inf  # some of these have no assignment
        return uniform
    if name == "machol":
        i, j = torch.arange(1.0, N + 1).double(), torch.arange(1.0, M + 1).double()
        return (i[:, None] * j).expand(B, N, M).clone()  # every row is sent along a long path
    assert name == "huge"
    return 1e300 * uniform


KINDS = ["random", "points", "tied", "equal", "negative", "sparse", "machol", "huge"]


# one row, fewer columns than lanes, more than threads of a block and than a round of its loads, rectangles
@pytest.mark.parametrize(("N", "M"), [(1, 1), (1, 5), (9, 9), (12, 40), (70, 70), (20, 300)], ids=str)
@pytest.mark.parametrize("name", KINDS)
@WARPS
def test_is_that_of_the_cpu(assign, name, N, M, warps):
    cost = costs(name, 1 if N == 70 else 3, N, M, seed=N)
    expected = torch.ops.geokernels.assignment(cost)
    assert torch.equal(assign(cost, warps=warps), expected)


def test_of_blocks_as_a_gpu_has_them(assign):
    cost = torch.stack([costs(name, 1, 24, 24)[0] for name in ("points", "tied")])
    assert torch.equal(assign(cost, warps=8), torch.ops.geokernels.assignment(cost))


@pytest.mark.parametrize("name", KINDS)
def test_is_that_of_the_cpu_where_it_looks_at_some_columns(assign, name):
    # of rows above 768 columns the CPU keeps the nearest: it must not show
    cost = costs(name, 1, 40, 800, seed=2)
    assert torch.equal(assign(cost, warps=8), torch.ops.geokernels.assignment(cost))


@WARPS
def test_where_none_is_possible(assign, warps):
    cost = costs("random", 3, 20, 20)
    cost[1, :, 3:] = math.inf  # three columns for twenty rows
    cost[2, 5] = math.inf
    chosen = assign(cost, warps=warps)
    assert (chosen[1:] == -1).all()
    assert torch.equal(chosen, torch.ops.geokernels.assignment(cost))


@WARPS
def test_nan_is_a_pair_that_is_forbidden(assign, warps):
    # a GPU's values are not looked at beforehand
    cost = costs("random", 2, 20, 25)
    cost[0, 3, :24] = math.nan
    cost[1, 4] = math.nan
    chosen = assign(cost, warps=warps)
    assert torch.equal(chosen, torch.ops.geokernels.assignment(cost))
    assert chosen[0, 3] == 24
    assert (chosen[1] == -1).all()


@WARPS
def test_blocks_take_problems_in_turn_with_their_state_far(assign, warps):
    cost = costs("sparse", 5, 12, 18)
    expected = torch.ops.geokernels.assignment(cost)
    assert torch.equal(assign(cost, warps=warps, blocks=2, far=True), expected)
    assert torch.equal(assign(cost, warps=warps, blocks=2), expected)


@pytest.mark.parametrize("order", [DESCENDING, BY_CHANCE])
@WARPS
def test_order_of_threads_changes_nothing(assign, warps, order):
    cost = costs("tied", 2, 33, 60)
    assert torch.equal(assign(cost, warps=warps, order=order), torch.ops.geokernels.assignment(cost))
