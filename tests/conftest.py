"""What holds for every test: uninitialised memory is NaN, chance is seeded, threads are few."""

import pytest
import torch


@pytest.fixture(autouse=True)
def poison_uninitialised_memory():
    """Fill torch.empty with NaN, so that a kernel that skips an output element cannot pass by luck."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def simd_level():
    """Set the SIMD level inside a test; the widest is back afterwards."""
    from geokernels.kernels import native

    yield native.set_simd_level
    if not native.missing:
        native.set_simd_level(native.build_info()["simd_levels"][-1])
