"""Every CUDA kernel fits the shared memory of every GPU, for which somebody answers."""

import ctypes
import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc" / "cuda"
SMALLEST = 99 * 1024  # bytes of a block, of compute capability 8.6, 8.9 and 12.0
TWO_BLOCKS = 100 * 1024 // 2 - 1024  # of two blocks of one of their multiprocessors

PLANS = "test_cuda_subspace.py"  # what is cut to the memory that a device has
# who tests what each kernel asks for; "none" where that is nothing
ANSWERED = {
    "assignment_kernel": "here",
    "density_kernel": "none",
    "expand_directions_kernel": PLANS,
    "geodesic_cosine_backward_kernel": PLANS,
    "geodesic_cosine_kernel": PLANS,
    "measure_angles_kernel": PLANS,
    "orthonormal_chunks_kernel": PLANS,
    "point_gradient_kernel": "here",
    "sinkhorn_kernel": "test_cuda_transport.py",
    "split_rows_kernel": PLANS,
    "subspace_basis_backward_kernel": PLANS,
    "subspace_basis_kernel": PLANS,
    "subspace_shares_kernel": PLANS,
}


def test_somebody_answers_for_every_kernel():
    text = "".join(path.read_text() for path in sorted(CSRC.iterdir()))
    kernels = re.findall(r"__global__[^;{]*?\b(\w+)\s*\([^()]*\)\s*\{", text)
    assert len(kernels) == text.count("__global__")
    assert set(kernels) == set(ANSWERED)


@pytest.mark.parametrize(
    "kernel",
    [
        "point_gradient_kernel_float",
        "point_gradient_kernel_double",
        "assignment_kernel_of_a_warp",
        "assignment_kernel_of_warps",
    ],
)
def test_fixed_sizes_leave_room_for_two_blocks(emulated, kernel):
    size = getattr(emulated("cuda_sizes"), kernel)
    size.restype = ctypes.c_int64
    assert 0 < size() <= TWO_BLOCKS <= SMALLEST
