"""What tests by Triton's interpreter hold kernels to: NaN as GPUs have it."""

import math

import pytest
import torch

triton = pytest.importorskip("triton")
tl = triton.language

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def extremes_kernel(x, out, BLOCK: tl.constexpr):
    o = tl.arange(0, BLOCK)
    b_x = tl.load(x + o)
    tl.store(out + o, tl.minimum(b_x, 3.0))
    tl.store(out + BLOCK + o, tl.maximum(b_x, 3.0))
    tl.store(out + 2 * BLOCK, tl.min(b_x, 0))
    tl.store(out + 2 * BLOCK + 1, tl.max(b_x, 0))
    tl.store(out + 2 * BLOCK + 2, tl.max(b_x * float("nan"), 0))


def test_minima_and_maxima_drop_nan_unless_all_are():
    x = torch.tensor([math.nan, 1.0, 2.0, 5.0], device=DEVICE)
    out = torch.empty(11, device=DEVICE)
    extremes_kernel[(1,)](x, out, 4)
    assert out[:-1].tolist() == [3, 1, 2, 3, 3, 3, 3, 5, 1, 5]
    assert out[-1].isnan()
