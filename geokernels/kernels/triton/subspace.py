r"""Singular value decomposition of a few rows, a program a problem, by Jacobi rotations.

    x = sum_i s_i u_i b_i^T,   V^T x = diag(s) b

x           [N, D]
left        [N, R]   u_i, the columns of V; R = min(N, D)
values      [R]      s_i, descending
directions  [R, D]   b_i as rows; zero where s_i is
q           [N, D]   orthonormal rows, zero where a row depends on those before it
work        [2 BLOCK, BLOCK]   decompose.py

Long rows are made orthonormal first, one after the other, in two rounds of products with those before it
(once leaves what rounding has): x^T = q^T C. The columns of the small C, or of x^T itself where rows are
short, are then turned until they are orthogonal, and what they became is combined from q again. No Gram
matrix squares the condition. NaN and infinities reach the values. Sums depend on the sizes alone.

Limits: N at most 128.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import derivatives
from ..batching import lead_with_mapped_dimension
from .decompose import CHUNK, orthogonalise, squares_of, warps_of, width_of
from .registration import device_of, of_launch, operator, wrap_triton

ENTRIES = 4096  # of a tile of rows
FACTORING = 8, 128  # warps and registers of rows made orthonormal
COMBINING = 4, None  # warps and registers of a block of features


@triton.jit
def moderating(largest):
    """A power of two that brings the largest number near 1: squares neither overflow nor vanish."""
    exponent = tl.floor(tl.log2(tl.where(largest > 0, largest, 1.0)))
    return tl.exp2(-tl.minimum(tl.maximum(exponent, -120.0), 120.0))


@triton.jit
def tile_of(q, o_n, n, o_d, D):
    """The first ``n`` of the rows ``q``, zero beyond."""
    mask = (o_n[:, None] < n) & (o_d[None, :] < D)
    return tl.load(q + o_n[:, None] * D + o_d[None, :], mask=mask, other=0.0)


@triton.jit
def factor_kernel(x, q, work, factor, rounding, N, D, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """Long rows to orthonormal ones, and their coordinates in those: columns of ``work``."""
    i_problem = tl.program_id(0).to(tl.int64)
    x += i_problem * N * D
    q += i_problem * N * D
    work += i_problem * 2 * BLOCK * BLOCK
    o_n, o_d = tl.arange(0, BLOCK), tl.arange(0, BLOCK_D)
    tl.store(work + o_n[:, None] * BLOCK + o_n[None, :], tl.zeros([BLOCK, BLOCK], x.dtype.element_ty))
    largest = tl.zeros([BLOCK], x.dtype.element_ty)
    for d in range(0, D, BLOCK_D):
        largest = tl.maximum(largest, tl.max(tl.abs(tile_of(x, o_n, N, d + o_d, D)), 1))
    by = moderating(tl.max(largest, 0))
    tl.store(factor + i_problem, by)
    tl.debug_barrier()
    for i in range(0, N):
        along = tl.zeros([BLOCK], x.dtype.element_ty)
        whole = tl.zeros([BLOCK_D], x.dtype.element_ty)
        again, left = along, whole
        for d in range(0, D, BLOCK_D):
            row = by * tl.load(x + i * D + d + o_d, mask=d + o_d < D, other=0.0)
            along += tl.sum(tile_of(q, o_n, i, d + o_d, D) * row[None, :], 1)
            whole += row * row
        for d in range(0, D, BLOCK_D):
            row = by * tl.load(x + i * D + d + o_d, mask=d + o_d < D, other=0.0)
            before = tile_of(q, o_n, i, d + o_d, D)
            row -= tl.sum(along[:, None] * before, 0)
            again += tl.sum(before * row[None, :], 1)
        for d in range(0, D, BLOCK_D):
            row = by * tl.load(x + i * D + d + o_d, mask=d + o_d < D, other=0.0)
            before = tile_of(q, o_n, i, d + o_d, D)
            row -= tl.sum(along[:, None] * before, 0)
            row -= tl.sum(again[:, None] * before, 0)
            left += row * row
            tl.debug_barrier()
            tl.store(q + i * D + d + o_d, row, mask=d + o_d < D)
            tl.debug_barrier()
        length = tl.sqrt(tl.sum(left, 0))
        # only rounding is left of a row that depends on those before it
        length = tl.where(length <= rounding * tl.sqrt(tl.sum(whole, 0)), 0.0, length)
        inverse = tl.where(length == 0, 0.0, 1 / tl.where(length == 0, 1.0, length))
        for d in range(0, D, BLOCK_D):
            at = q + i * D + d + o_d
            row = inverse * tl.load(at, mask=d + o_d < D, other=0.0)
            tl.debug_barrier()
            tl.store(at, row, mask=d + o_d < D)
            tl.debug_barrier()
        column = tl.where(o_n == i, length, along + again)
        tl.store(work + o_n * BLOCK + i, column, mask=o_n <= i)


@triton.jit
def load_columns(x, work, N, D, BLOCK: tl.constexpr):
    """Short rows to columns of ``work``, times the power of two that is returned."""
    o_k = tl.arange(0, BLOCK)
    largest = tl.zeros([BLOCK], x.dtype.element_ty)
    for k in range(0, D, CHUNK):
        o_d = k + tl.arange(0, CHUNK)
        inside = (o_d[:, None] < D) & (o_k[None, :] < N)
        part = tl.load(x + o_k[None, :] * D + o_d[:, None], mask=inside, other=0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(part), 0))
    by = moderating(tl.max(largest, 0))
    for k in range(0, BLOCK, CHUNK):
        o_d = k + tl.arange(0, CHUNK)
        inside = (o_d[:, None] < D) & (o_k[None, :] < N)
        part = tl.load(x + o_k[None, :] * D + o_d[:, None], mask=inside, other=0.0)
        tl.store(work + o_d[:, None] * BLOCK + o_k[None, :], by * part)
    return by


@triton.jit
def places_of(length, BLOCK: tl.constexpr):
    """The place of each length in descending order; NaN is largest, so that every row has one."""
    o_k = tl.arange(0, BLOCK)
    key = tl.where(length == length, length, float("inf"))
    place = tl.zeros([BLOCK], tl.int32)
    for k in range(0, BLOCK):
        other = tl.sum(tl.where(o_k == k, key, 0.0), 0)
        place += ((other > key) | ((other == key) & (k < o_k))).to(tl.int32)
    return place


@triton.jit
def basis_kernel(
    x, work, factor,
    left, values, turned,
    rounding, settled, N, D, R,
    LONG: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """From coordinates of rows, or short rows: left vectors, values, and directions ``turned`` like them."""
    i_problem = tl.program_id(0).to(tl.int64)
    work += i_problem * 2 * BLOCK * BLOCK
    o_k = tl.arange(0, BLOCK)
    if LONG:
        by = tl.load(factor + i_problem)
        width = N
    else:
        by = load_columns(x + i_problem * N * D, work, N, D, BLOCK)
        width = D
    orthogonalise(work, rounding, settled, BLOCK, WIDTH)
    length = tl.sqrt(squares_of(work, BLOCK))
    place = places_of(length, BLOCK)
    kept = place < R
    tl.store(values + i_problem * R + place, length / by, mask=kept)
    inverse = tl.where(length > 0, 1 / tl.where(length > 0, length, 1.0), length * 0.0)
    turned += (i_problem * R + place[None, :]) * width
    left += i_problem * N * R + place[None, :]
    for k in range(0, BLOCK, CHUNK):
        o_chunk = (k + tl.arange(0, CHUNK))[:, None]
        at = work + o_chunk * BLOCK + o_k[None, :]
        tl.store(turned + o_chunk, tl.load(at) * inverse[None, :], mask=kept[None, :] & (o_chunk < width))
        tl.store(left + o_chunk * R, tl.load(at + BLOCK * BLOCK), mask=kept[None, :] & (o_chunk < N))


@triton.jit
def combine_kernel(
    turned, q, directions, N, D, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Directions of long rows, of a block of features; all of them are rows of ``turned``, ``[N, N]``."""
    i_problem = tl.program_id(0).to(tl.int64)
    o_k, o_d = tl.arange(0, BLOCK), tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK, BLOCK_D], q.dtype.element_ty)
    for n in range(0, N, BLOCK_N):
        o_n = n + tl.arange(0, BLOCK_N)
        b_turned = tile_of(turned + i_problem * N * N, o_k, N, o_n, N)
        b_q = tile_of(q + i_problem * N * D, o_n, N, o_d, D)
        total = tl.dot(b_turned, b_q, total, input_precision="ieee", out_dtype=total.dtype)
    mask = (o_k[:, None] < N) & (o_d[None, :] < D)
    tl.store(directions + i_problem * N * D + o_k[:, None] * D + o_d[None, :], total, mask=mask)


class Cut(NamedTuple):
    """How problems are cut for their programs."""

    block: int  # rows
    factored: int  # features
    tile: dict  # of directions that are combined


def cut_of(N: int, D: int) -> Cut:
    """By what does not spill; a product of tiles takes 16 at least."""
    block = max(triton.next_power_of_2(N), CHUNK.value)
    factored = min(max(triton.next_power_of_2(D), 16), ENTRIES // block)
    return Cut(block, factored, {"BLOCK": block, "BLOCK_N": 16, "BLOCK_D": 32})


def turning(block: int, width: int) -> tuple[int, int | None]:
    """Warps and registers of basis_kernel; that of fewer rows does not spill when left alone."""
    return warps_of(block, width), 255 if block > 32 else None


@operator("triton_decompose_rows")
def decompose_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``left``, ``values`` and ``directions`` of ``x`` ``(..., N, D)``, without a derivative."""
    *batch, N, D = x.shape
    R = min(N, D)
    x = x.reshape(-1, N, D).contiguous()
    shapes = (N, R), (R,), (R, D)
    left, values, directions = outs = [x.new_empty((*batch, *shape)) for shape in shapes]
    problems, cut = x.shape[0], cut_of(N, D)
    work = x.new_empty((problems, 2 * cut.block, cut.block))
    rounding = torch.finfo(x.dtype).eps
    settled = (rounding / (4 * N)) ** 0.5
    long, width = cut.block < D, width_of(cut.block)
    q, factor, turned = x, x, directions
    with device_of(x):
        if long:
            q, factor, turned = torch.empty_like(x), x.new_empty(problems), x.new_empty((problems, N, N))
            wrap_triton(factor_kernel)[(problems,)](
                x, q, work, factor, rounding, N, D, cut.block, cut.factored, **of_launch(x, *FACTORING)
            )
        wrap_triton(basis_kernel)[(problems,)](
            x, work, factor, left, values, turned, rounding, settled, N, D, R,
            long, cut.block, width, **of_launch(x, *turning(cut.block, width)),
        )  # fmt: skip
        if long:
            wrap_triton(combine_kernel)[(problems, triton.cdiv(D, cut.tile["BLOCK_D"]))](
                turned, q, directions, N, D, **cut.tile, **of_launch(x, *COMBINING)
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
