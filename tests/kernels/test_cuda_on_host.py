"""The host's stand-in for CUDA finds what it says it finds."""

import ctypes
import subprocess
import sys

import pytest
import torch

ASCENDING, DESCENDING = 0, 1


@pytest.fixture(scope="module")
def faults(emulated):
    return emulated("cuda_faults")


def passed_on(faults, wait, order):
    out = torch.full((64,), -1, dtype=torch.int32)
    faults.pass_on_in_order(ctypes.c_void_p(out.data_ptr()), int(wait), order)
    return out


def test_a_race_depends_on_the_order_of_threads(faults):
    assert not torch.equal(passed_on(faults, False, ASCENDING), passed_on(faults, False, DESCENDING))
    assert torch.equal(passed_on(faults, True, ASCENDING), passed_on(faults, True, DESCENDING))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_sums_reach_every_thread(faults, order):
    out = torch.empty(64, dtype=torch.float64)
    faults.sum(ctypes.c_void_p(out.data_ptr()), order)
    lanes = (torch.arange(64) % 8 + 1).double()
    assert torch.equal(out, 63 * 32 + 1e6 * lanes * 31 * 16.0)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("half_a_warp_shuffles", "threads wait for others that will never come"),
        ("one_thread_leaves_before_the_barrier", "threads wait for others that will never come"),
        ("writes_beyond_its_memory", "wrote beyond the memory of its block"),
    ],
)
def test_faults_end_the_process(faults, fault, sentence):
    code = f"import ctypes; ctypes.CDLL({faults._name!r}).{fault}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert sentence in done.stderr
