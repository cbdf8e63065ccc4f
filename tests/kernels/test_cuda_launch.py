"""How kernels are started (csrc/cuda/start.h), on a stand-in of CUDA's runtime."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SUCCESS, INVALID, MEMORY, ILLEGAL_ADDRESS = 0, 1, 2, 5  # of the stand-in's errors


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    target = tmp_path_factory.mktemp("launch") / "cuda_launch.so"
    compiler = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-pthread", "-fPIC", "-shared"]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    source = HERE / "cuda_launch.cpp"
    subprocess.run([*compiler, *warnings, f"-I{HERE.parents[1] / 'csrc'}", source, "-o", target], check=True)
    return ctypes.CDLL(str(target))


def test_threads_do_not_lower_each_others_memory(library):
    assert library.two_sizes_at_once() == 1


def test_a_kernel_is_made_ready_once_a_device(library):
    assert library.settings() == 2 * 2


def test_a_kernel_may_be_first_launched_in_a_capture(library):
    assert library.first_launch_in_a_capture() == 1


def test_arguments_are_converted_to_parameters(library):
    assert library.given() == 5 + 2


@pytest.mark.parametrize(
    ("left", "of_running", "memory", "status", "before"),
    [
        (SUCCESS, SUCCESS, 0, SUCCESS, False),
        (MEMORY, SUCCESS, 0, SUCCESS, False),  # somebody's failure that does not stop us
        (SUCCESS, SUCCESS, 1 << 20, INVALID, False),  # our own
        (MEMORY, SUCCESS, 1 << 20, INVALID, False),
        (SUCCESS, ILLEGAL_ADDRESS, 0, ILLEGAL_ADDRESS, True),  # a kernel that ran before
        (ILLEGAL_ADDRESS, ILLEGAL_ADDRESS, 0, ILLEGAL_ADDRESS, True),
    ],
)
def test_who_failed(library, left, of_running, memory, status, before):
    told, rest = divmod(library.after(left, of_running, memory), 100)
    assert (told, rest // 10) == (status, before)
    # the next to ask finds no failure that was ours, and has been told
    assert rest % 10 == (SUCCESS if status == INVALID else left or of_running)
