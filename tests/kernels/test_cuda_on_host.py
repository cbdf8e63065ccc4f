"""The host's stand-in for CUDA finds what it says it finds."""

import ctypes
import itertools
import subprocess
import sys

import pytest
import torch

ORDERS = ASCENDING, DESCENDING, BY_CHANCE, OTHER_CHANCE = 0, 1, 7, 8
NOTHING, SHUFFLE, WARP_BARRIER, BLOCK_BARRIER = range(4)
RACE = "cuda_on_host: a race, in "


@pytest.fixture(scope="module")
def faults(emulated):
    return emulated("cuda_faults")


def call(faults, name, *numbers, size=1024, dtype=torch.int32):
    """What a kernel writes."""
    out = torch.zeros(size, dtype=dtype)
    getattr(faults, name)(ctypes.c_void_p(out.data_ptr()), *numbers)
    return out


def ends_with(faults, sentence, name, *numbers):
    """Call a kernel in a process of its own, which must end with a sentence."""
    call = f"ctypes.CDLL({faults._name!r}).{name}(ctypes.create_string_buffer(4096), *{numbers})"
    done = subprocess.run([sys.executable, "-c", f"import ctypes; {call}"], capture_output=True, text=True)
    assert done.returncode != 0
    assert sentence in done.stderr


class TestRaces:
    """Barriers order what threads do, each for those who wait at it; nothing else does, whatever came out."""

    @pytest.mark.parametrize("order", ORDERS)
    def test_none_where_a_barrier_lies_between(self, faults, order):
        passed = (torch.arange(64) + 40) % 64
        assert torch.equal(call(faults, "pass_on_in_order", BLOCK_BARRIER, 40, order, size=64), passed)
        assert torch.equal(call(faults, "overwrite_in_order", BLOCK_BARRIER, 40, order, size=64), passed)
        call(faults, "pass_on_in_order", NOTHING, 0, order)  # a thread and itself

    @pytest.mark.parametrize("order", [ASCENDING, DESCENDING, BY_CHANCE])
    @pytest.mark.parametrize("between", [NOTHING, SHUFFLE, WARP_BARRIER], ids=["nothing", "shuffle", "warp"])
    def test_where_none_lies_between(self, faults, between, order):
        # thread 31 reads what 32 has written, of another warp
        ends_with(faults, RACE, "pass_on_in_order", between, 1, order)
        ends_with(faults, RACE, "overwrite_in_order", between, 1, order)

    def test_a_warp_barrier_orders_a_warp(self, faults):
        assert call(faults, "warp_passes_on", WARP_BARRIER)[:32].tolist() == [*range(1, 32), 0]
        ends_with(faults, RACE, "warp_passes_on", SHUFFLE)

    def test_between_blocks(self, faults):
        assert call(faults, "blocks", 2)[:6].tolist() == [0, 0, 1, 1, 2, 2]
        ends_with(faults, RACE, "blocks", 1)
        ends_with(faults, RACE, "block_after_block")

    def test_none_between_launches(self, faults):
        assert call(faults, "launch_after_launch")[32:64].tolist() == [*range(31, -1, -1)]

    def test_of_halves_of_a_word(self, faults):
        assert call(faults, "half_words", 0, dtype=torch.int16)[:32].tolist() == [*range(32)]
        ends_with(faults, RACE, "half_words", 1)


class TestTurns:
    def of(self, faults, order):
        return call(faults, "turns", order, size=384).tolist()

    @pytest.mark.parametrize(("order", "step"), [(ASCENDING, 1), (DESCENDING, -1)])
    def test_by_number_block_after_block(self, faults, order, step):
        turns = self.of(faults, order)
        for block, own in zip([0, 1, 2][::step], (turns[:128], turns[128:256], turns[256:]), strict=True):
            assert own[:64] == [100 * block + i for i in range(64)][::step]
            assert sorted(own[64:]) == sorted(own[:64])

    def test_by_chance_anew_after_each_barrier_with_blocks_interleaved(self, faults):
        turns = self.of(faults, BY_CHANCE)
        assert turns != self.of(faults, OTHER_CHANCE)
        blocks = [turn // 100 for turn in turns]
        assert sum(one != other for one, other in itertools.pairwise(blocks)) > 3
        for block in range(3):
            own = [turn % 100 for turn in turns if turn // 100 == block]
            assert sorted(own[:64]) == sorted(own[64:]) == [*range(64)]
            assert own[:64] != own[64:]


@pytest.mark.parametrize("order", ORDERS)
def test_sums_reach_every_thread(faults, order):
    out = call(faults, "sum", order, size=64, dtype=torch.float64)
    lanes = (torch.arange(64) % 8 + 1).double()
    assert torch.equal(out, 63 * 32 + 1e6 * lanes * 31 * 16.0)


def test_nan_is_dropped_or_kept_as_on_a_gpu(faults):
    given = torch.arange(32.0)
    given[5] = torch.nan
    out = torch.zeros(72)
    faults.choose(ctypes.c_void_p(out.data_ptr()), ctypes.c_void_p(given.data_ptr()))
    kept = given.clone()
    for lanes in (16, 8, 4, 2, 1):
        others = kept[torch.arange(32) ^ lanes]
        kept = torch.where(others > kept, others, kept)
    assert kept[5].isnan()
    assert kept[4] == 30  # 31 would have come from lane 5 alone
    torch.testing.assert_close(out[:32], kept, rtol=0, atol=0, equal_nan=True)
    assert (out[32:64] == 31).all()
    nan = torch.nan
    chosen = torch.tensor([1, 1, 1, nan, 1, nan, 1, 0])
    torch.testing.assert_close(out[64:], chosen, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("half_a_warp_shuffles", "threads wait for others that will never come"),
        ("half_a_warp_waits_and_half_shuffles", "threads wait in one place for different things"),
        ("one_thread_leaves_before_the_barrier", "threads wait for others that will never come"),
        ("writes_beyond_its_memory", "an access beyond the memory of its block"),
        ("reads_beyond_its_memory", "an access beyond the memory of its block"),
        ("reads_what_nobody_wrote", "a read of memory that nobody has written"),
    ],
)
def test_faults_end_the_process(faults, fault, sentence):
    ends_with(faults, sentence, fault)
