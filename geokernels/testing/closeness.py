"""What 'equal' means here: no worse than PyTorch at the same precision."""

import torch
from torch import Tensor

from ..kernels.proof_checks import allowed

ROUNDINGS = 8  # slack in units of rounding error, for when PyTorch happens to be exact


def assert_as_accurate(name: str, ours: Tensor, eager: Tensor, exact: Tensor, *, factor: float = 2.0) -> None:
    """Fail unless our error is at most ``factor`` times that of eager PyTorch.

    Args:
        name: What is compared, for the message.
        ours: From the kernel.
        eager: From the reference, in the same dtype as ``ours``.
        exact: From the reference, in float64.
        factor: How much worse than eager PyTorch is still equal.
    """
    assert ours.shape == exact.shape, f"{name}: {ours.shape}"
    assert ours.dtype == eager.dtype, f"{name}: {ours.dtype}"
    assert torch.isfinite(ours).all(), f"{name}: not finite"
    error, most = allowed(ours, eager, exact, factor, ROUNDINGS)
    assert error <= most, f"{name}: error {error:.2e} exceeds {most:.2e}"
