r"""Singular value decomposition of a few rows, a program a problem, by Jacobi rotations.

    x = sum_i s_i u_i b_i^T,   V^T x = diag(s) b

x           [B, N, D]
left        [B, N, R]   u_i, the columns of V; R = min(N, D)
values      [B, R]      s_i, descending
directions  [B, R, D]   b_i as rows; zero where s_i is

The rows themselves are turned until they are orthogonal (decompose.py), all of them in the registers of a
program; no Gram matrix squares the condition. NaN and infinities reach the values. Sums depend on the sizes
alone.

Limits: N at most 32, and N D at most 16384, both rounded up to powers of two.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import derivatives
from ..batching import lead_with_mapped_dimension
from .decompose import orthogonalised
from .registration import device_of, operator, wrap_triton


@triton.jit
def basis_kernel(
    x, left, values, directions, rounding, settled, N, D, R, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """One problem; rows are columns here, beyond N of zeros that stay alone."""
    i_problem = tl.program_id(0).to(tl.int64)
    o_d, o_n = tl.arange(0, ROWS), tl.arange(0, BLOCK)
    inside = (o_d[:, None] < D) & (o_n[None, :] < N)
    b_x = tl.load(x + i_problem * N * D + o_n[None, :] * D + o_d[:, None], mask=inside, other=0.0)
    # a power of two brings the largest number near 1: squares neither overflow nor vanish
    largest = tl.max(tl.max(tl.abs(b_x), 0), 0)
    exponent = tl.floor(tl.log2(tl.where(largest > 0, largest, 1.0)))
    factor = tl.exp2(-tl.minimum(tl.maximum(exponent, -120.0), 120.0))
    b_x, b_v = orthogonalised(b_x * factor, rounding, settled, ROWS, BLOCK)
    length = tl.sqrt(tl.sum(b_x * b_x, 0))
    # NaN is largest, so that every row has a place
    key = tl.where(length == length, length, float("inf"))
    before = (key[:, None] > key[None, :]) | ((key[:, None] == key[None, :]) & (o_n[:, None] < o_n[None, :]))
    place = tl.sum(before.to(tl.int32), 0)
    kept = place < R
    tl.store(values + i_problem * R + place, length / factor, mask=kept)
    at_left = i_problem * N * R + o_n[:, None] * R + place[None, :]
    tl.store(left + at_left, b_v, mask=(o_n[:, None] < N) & kept[None, :])
    inverse = tl.where(length > 0, 1 / tl.where(length > 0, length, 1.0), length * 0.0)
    at = (i_problem * R + place[None, :]) * D + o_d[:, None]
    tl.store(directions + at, b_x * inverse[None, :], mask=kept[None, :] & (o_d[:, None] < D))


def cut_of(N: int, D: int) -> tuple[int, int, int]:
    """The tile of a program, features by rows, and how many warps hold it; by what does not spill."""
    rows, block = max(triton.next_power_of_2(D), 16), max(triton.next_power_of_2(N), 2)
    return rows, block, 16 if rows * block > 4096 else 4


@operator("triton_decompose_rows")
def decompose_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``left``, ``values`` and ``directions`` of ``x`` ``(..., N, D)``, without a derivative."""
    *batch, N, D = x.shape
    R = min(N, D)
    x = x.reshape(-1, N, D).contiguous()
    shapes = (N, R), (R,), (R, D)
    outs = [x.new_empty((*batch, *shape)) for shape in shapes]
    rows, block, warps = cut_of(N, D)
    rounding = torch.finfo(x.dtype).eps
    settled = (rounding / (4 * N)) ** 0.5
    with device_of(x):
        wrap_triton(basis_kernel)[(x.shape[0],)](
            x, *outs, rounding, settled, N, D, R, rows, block, num_warps=warps
        )
    return tuple(outs)


@decompose_rows.register_fake
def _(x):
    *batch, N, D = x.shape
    R = min(N, D)
    return x.new_empty((*batch, N, R)), x.new_empty((*batch, R)), x.new_empty((*batch, R, D))


# the definition of the basis, which calls it, has the derivative
derivatives.without_derivative("triton_decompose_rows")
lead_with_mapped_dimension("triton_decompose_rows")
