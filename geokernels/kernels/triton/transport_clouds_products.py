r"""Products with the density of large clouds that is never stored, and with the derivative of its costs.

    E_ij = 2^(f_i + g_j - C_ij), in the units of `transport_clouds_tiles`

    multiply_kernel        out_i  = sum_j E_ij <l_i, r_j> v_j               [B, N, E]
    differentiate_kernel   out_id = sum_j E_ij <l_i, r_j> dC_ij / dx_id     [B, N, D], not of products

Factors l, r are [B, N, R] and [B, M, R], or left out for 1. A program keeps a block of rows, and a block of
the result's columns, and walks all columns of E. Points beyond a length have a potential of -inf, and blocks
of nothing else return at once. Powers saturate at 2^100: a point of zero weight can reach that before
convergence, and none of its mass must stay none.

The product with v is of the same precision as that of the points, that of the factors always float32.
"""

import triton
import triton.language as tl

from .transport_clouds_tiles import (
    GRAM,
    POWER,
    ROOT,
    SIZES,
    add_product,
    bounded_power,
    load_points,
    scores,
    to_bf16,
    together,
)


@triton.jit
def to_tf32(x):
    """The nearest numbers with 10 bits after the point."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def rounded(x, PRECISION: tl.constexpr):
    """What the matrix units take of ``x``."""
    if PRECISION == "fp32":
        return x
    elif PRECISION == "tf32":
        return to_tf32(x)
    else:
        return to_bf16(x)


@triton.jit
def densities(score, row_bias, column_bias):
    """The tile of E."""
    power = (score + column_bias[None, :]) + row_bias[:, None]
    return bounded_power(power)


@triton.jit
def factors(left, right, o_n, m_n, o_m, m_m, R, zero, BLOCK_R: tl.constexpr):
    """The tile of <l_i, r_j>."""
    o_r = tl.arange(0, BLOCK_R)
    inner = zero
    for r in range(0, R, BLOCK_R):
        m_r = r + o_r < R
        at_n = o_n[:, None].to(tl.int64) * R + r + o_r[None, :]
        at_m = o_m[None, :].to(tl.int64) * R + r + o_r[:, None]
        b_left = tl.load(left + at_n, mask=m_n[:, None] & m_r[None, :], other=0.0)
        b_right = tl.load(right + at_m, mask=m_r[:, None] & m_m[None, :], other=0.0)
        inner = tl.dot(b_left, b_right, inner, input_precision="ieee", out_dtype=inner.dtype)
    return inner


@triton.jit
def multiply_kernel(
    x, x_low, y, y_low,  # packed points
    row_bias, column_bias,  # [B, N], [B, M]: potentials without the points' own parts
    left, right, v, out,
    p, N, M, D, R, E,
    COST: tl.constexpr, PRECISION: tl.constexpr, RESIDENT: tl.constexpr, FACTOR: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_E: tl.constexpr,
):  # fmt: skip
    """A block of rows and of columns of the product; with ``BLOCK_E`` 1, a matrix times a vector."""
    blocks = tl.cdiv(N, BLOCK_N)
    i_problem = (tl.program_id(0) // blocks).to(tl.int64)
    o_n = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    m_n = o_n < N
    o_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    m_e = o_e < E
    b_row = tl.load(row_bias + i_problem * N + o_n, mask=m_n, other=float("-inf"))
    dtype = row_bias.dtype.element_ty
    sums = tl.full([BLOCK_N] if BLOCK_E == 1 else [BLOCK_N, BLOCK_E], 0.0, dtype)
    of_low = sums  # what bf16x3 keeps of the roundings of the density, and of v
    by_low = sums
    x += i_problem * N * D
    x_low += i_problem * N * D
    y += i_problem * M * D
    y_low += i_problem * M * D
    left += i_problem * N * R
    right += i_problem * M * R
    v += i_problem * M * E
    b_x = 0.0
    b_x_low = 0.0
    if COST == GRAM and RESIDENT:
        o_d = tl.arange(0, BLOCK_D)
        b_x = load_points(x, o_n, m_n, o_d, D)
        b_x_low = load_points(x_low, o_n, m_n, o_d, D)

    last = tl.where(tl.max(b_row, 0) == float("-inf"), 0, M)
    for j in range(0, last, BLOCK_M):
        o_m = j + tl.arange(0, BLOCK_M)
        m_m = o_m < M
        b_column = tl.load(column_bias + i_problem * M + o_m, mask=m_m, other=float("-inf"))
        zero = tl.full([BLOCK_N, BLOCK_M], 0.0, dtype)
        score = scores(
            x, x_low, b_x, b_x_low, y, y_low, o_n, m_n, o_m, m_m, N, M, D, p, zero,
            COST, PRECISION, RESIDENT, BLOCK_D,
        )  # fmt: skip
        weight = densities(score, b_row, b_column)
        if FACTOR:
            weight = weight * factors(left, right, o_n, m_n, o_m, m_m, R, zero, BLOCK_R)
        if BLOCK_E == 1:
            b_v = tl.load(v + o_m.to(tl.int64) * E + tl.program_id(1), mask=m_m, other=0.0)
            sums += tl.sum(weight * b_v[None, :], 1)
        else:
            at = o_m[:, None].to(tl.int64) * E + o_e[None, :]
            b_v = tl.load(v + at, mask=m_m[:, None] & m_e[None, :], other=0.0)
            near = rounded(weight, PRECISION)
            near_v = rounded(b_v, PRECISION)
            sums = add_product(near, near_v, sums, PRECISION)
            if PRECISION == "bf16x3":
                of_low = add_product(to_bf16(weight - near.to(tl.float32)), near_v, of_low, PRECISION)
                by_low = add_product(near, to_bf16(b_v - near_v.to(tl.float32)), by_low, PRECISION)
    if PRECISION == "bf16x3" and BLOCK_E != 1:
        sums = together(sums, of_low, by_low)
    if BLOCK_E == 1:
        tl.store(out + (i_problem * N + o_n) * E + tl.program_id(1), sums, mask=m_n)
    else:
        at = (i_problem * N + o_n[:, None]) * E + o_e[None, :]
        tl.store(out + at, sums, mask=m_n[:, None] & m_e[None, :])


@triton.jit
def differentiate_kernel(
    x, y,  # packed points [D, N], [D, M]
    row_bias, column_bias, left, right, out,
    p, N, M, D, R,
    COST: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
):  # fmt: skip
    """A block of rows, for ``BLOCK_D`` features; derivatives are with respect to the packed points."""
    blocks = tl.cdiv(N, BLOCK_N)
    i_problem = (tl.program_id(0) // blocks).to(tl.int64)
    o_n = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    m_n = o_n < N
    first = tl.program_id(1) * BLOCK_D
    o_d = tl.arange(0, BLOCK_D)
    b_row = tl.load(row_bias + i_problem * N + o_n, mask=m_n, other=float("-inf"))
    dtype = row_bias.dtype.element_ty
    sums = tl.full([BLOCK_N, BLOCK_D], 0.0, dtype)
    x += i_problem * N * D
    y += i_problem * M * D
    left += i_problem * N * R
    right += i_problem * M * R

    last = tl.where(tl.max(b_row, 0) == float("-inf"), 0, M)
    for j in range(0, last, BLOCK_M):
        o_m = j + tl.arange(0, BLOCK_M)
        m_m = o_m < M
        b_column = tl.load(column_bias + i_problem * M + o_m, mask=m_m, other=float("-inf"))
        zero = tl.full([BLOCK_N, BLOCK_M], 0.0, dtype)
        score = scores(
            x, x, 0.0, 0.0, y, y, o_n, m_n, o_m, m_m, N, M, D, p, zero, COST, "fp32", False, BLOCK_D
        )
        weight = densities(score, b_row, b_column)
        weight = weight * factors(left, right, o_n, m_n, o_m, m_m, R, zero, BLOCK_R)
        if COST == ROOT:
            # points that coincide have no direction
            weight = tl.where(score < 0, weight / tl.where(score < 0, -score, 1.0), 0.0)
        for d in range(0, tl.minimum(BLOCK_D, D - first)):
            x_d = tl.load(x + (first + d) * N + o_n, mask=m_n, other=0.0)
            y_d = tl.load(y + (first + d) * M + o_m, mask=m_m, other=0.0)
            slope = x_d[:, None] - y_d[None, :]
            if COST == SIZES:
                slope = tl.where(slope > 0, 1.0, tl.where(slope < 0, -1.0, 0.0))
            elif COST == POWER:
                some = slope != 0
                size = tl.exp2((p - 1) * tl.log2(tl.where(some, tl.abs(slope), 1.0)))
                slope = tl.where(some, tl.where(slope > 0, p * size, -p * size), 0.0)
            elif COST != ROOT:
                slope = 2 * slope
            part = tl.sum(weight * slope, 1)
            sums += tl.where(o_d[None, :] == d, part[:, None], 0.0)
    at = (i_problem * N + o_n[:, None]) * D + first + o_d[None, :]
    tl.store(out + at, sums, mask=m_n[:, None] & (first + o_d < D)[None, :])
