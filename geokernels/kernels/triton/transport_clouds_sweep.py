r"""The kernels of Sinkhorn's iteration between large clouds: sums over all pairs that are never stored.

One half-step, in the units of `transport_clouds_tiles`, at a regularisation `heat` times the last:

    l_i = log2 sum_j 2^(bias_j - C_ij / heat),   raw_i = -heat l_i,   f_i = damping raw_i
    bias_j = log2 b_j + g_j / heat, with the points' own parts

    sweep_kernel     [B x row blocks, splits]   what a split of the columns adds to l_i: a power and the sum
    settle_kernel    [B x blocks]               puts splits together; the next potentials; errors of a block
    stop_kernel      [B]                        whose error is small enough

A program of the sweep keeps a block of rows and walks the columns; the rows' points stay on chip where one
block holds all features. Powers are taken relative to where a row's last step led: after a pair of
half-steps no entry of a column exceeds the column's weight, P_ij <= b_j, and sums stay close to 1. Where a
sum shows that it did not, as at the beginning, the block is walked again with a running maximum. Columns are
split where rows are few. Problems that have stopped, and blocks beyond a problem's length, return at once.
Sums depend on the sizes alone: results repeat.

A weight of zero is a bias of -inf, and so is a point that reaches nobody, whose potential is +inf. A NaN goes
through all of it, and stops its problem.
"""

import triton
import triton.language as tl

from .transport_clouds_tiles import GIVEN, GRAM, INTERPRETED, bounded_power, load_points, scores
from .transport_small import best_constant, power_of_two, power_rest

PADDED = tl.constexpr(256)  # biases of a problem begin at multiples of this, and are -inf beyond its points
# sums of powers that hold all that counts: what is lost to underflow is 2^-60 of them
LEAST_SUM, MOST_SUM = tl.constexpr(2.0**-60), tl.constexpr(2.0**60)


@triton.jit
def sums_of_powers(
    x, x_low, b_x, b_x_low, y, y_low, bias, most, o_n, m_n, first, m, N, M, D, cooled, p,
    RISING: tl.constexpr, COST: tl.constexpr, PRECISION: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sums over the columns from ``first`` to ``m`` relative to 2^most, which rises if ``RISING``."""
    dtype = most.dtype
    sums = tl.full([BLOCK_N], 0.0, dtype)
    # of costs that are read, whose rows are spread over a warp: summed at the end
    tile = tl.full([BLOCK_N, BLOCK_M], 0.0, dtype)
    for j in range(first, m, BLOCK_M):
        o_m = j + tl.arange(0, BLOCK_M)
        b_bias = tl.load(bias + o_m)
        zero = tl.full([BLOCK_N, BLOCK_M], 0.0, dtype)
        score = scores(
            x, x_low, b_x, b_x_low, y, y_low, o_n, m_n, o_m, o_m < m, N, M, D, p, zero,
            COST, PRECISION, RESIDENT, BLOCK_D,
        )  # fmt: skip
        if RISING:
            power = cooled * score + b_bias[None, :]
            higher = tl.maximum(most, tl.max(power, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)
            sums = sums * tl.exp2(most - base) + tl.sum(tl.exp2(power - base[:, None]), 1)
            most = higher
        else:
            power = cooled * score + (b_bias[None, :] - most[:, None])
            # what overflows is not kept; numpy would warn of it
            power = bounded_power(power) if INTERPRETED else tl.exp2(power)
            if COST == GIVEN:
                tile += power
            else:
                sums += tl.sum(power, 1)
    if COST == GIVEN and not RISING:
        sums = tl.sum(tile, 1)
    return most, sums


@triton.jit
def sweep_kernel(
    x, x_low, y, y_low,  # packed points
    own, raw,  # [B, N] of the rows: where their last step led
    bias,  # [B, M padded] of the columns
    active, count_x, count_y,  # [B]
    top, total,  # [splits, B, N], written
    cooled, p, N, M, D, width,
    COST: tl.constexpr, PRECISION: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sums over ``width`` columns for a block of rows; ``cooled`` is 1 / heat."""
    blocks = tl.cdiv(N, BLOCK_N)
    i_problem = (tl.program_id(0) // blocks).to(tl.int64)
    i_block = tl.program_id(0) % blocks
    i_split = tl.program_id(1)
    n = tl.load(count_x + i_problem)
    if tl.load(active + i_problem) == 0:
        return
    if i_block * BLOCK_N >= n:
        return
    m = tl.minimum(tl.load(count_y + i_problem), (i_split + 1) * width)
    x += i_problem * N * D
    x_low += i_problem * N * D
    y += i_problem * M * D
    y_low += i_problem * M * D
    bias += i_problem * (tl.cdiv(M, PADDED) * PADDED)
    o_n = i_block * BLOCK_N + tl.arange(0, BLOCK_N)
    m_n = o_n < n
    b_x = 0.0
    b_x_low = 0.0
    if COST == GRAM and RESIDENT:
        o_d = tl.arange(0, BLOCK_D)
        b_x = load_points(x, o_n, m_n, o_d, D)
        b_x_low = load_points(x_low, o_n, m_n, o_d, D)

    of_rows = i_problem * N + o_n
    known = tl.load(own + of_rows, mask=m_n, other=0.0) - tl.load(raw + of_rows, mask=m_n, other=0.0)
    most = cooled * known
    sums = tl.full([BLOCK_N], 0.0, most.dtype)
    if tl.min((tl.abs(most) < float("inf")).to(tl.int32), 0) == 1:
        most, sums = sums_of_powers(
            x, x_low, b_x, b_x_low, y, y_low, bias, most, o_n, m_n, i_split * width, m, N, M, D, cooled, p,
            False, COST, PRECISION, RESIDENT, BLOCK_N, BLOCK_M, BLOCK_D,
        )  # fmt: skip
    kept = (sums >= LEAST_SUM) & (sums <= MOST_SUM)
    if tl.min((kept | ~m_n).to(tl.int32), 0) == 0:
        most, sums = sums_of_powers(
            x, x_low, b_x, b_x_low, y, y_low, bias, tl.full([BLOCK_N], float("-inf"), most.dtype), o_n, m_n,
            i_split * width, m, N, M, D, cooled, p,
            True, COST, PRECISION, RESIDENT, BLOCK_N, BLOCK_M, BLOCK_D,
        )  # fmt: skip
    at = (i_split * (tl.num_programs(0) // blocks) + i_problem) * N + o_n
    tl.store(top + at, most, mask=m_n)
    tl.store(total + at, sums, mask=m_n)


@triton.jit
def pairs_kernel(
    x, x_low, y, y_low,  # packed points
    own_x, own_y, f, g, weight,  # [B, N], [B, M] in turn; weight of the columns
    wanted, count_x, count_y,  # [B]; whether to look
    sums,  # [3, B, N], written
    p, N, M, D,
    COST: tl.constexpr, PRECISION: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What the pairs of a block of rows add to the value where costs are far below eps: costs, and rests."""
    blocks = tl.cdiv(N, BLOCK_N)
    i_problem = (tl.program_id(0) // blocks).to(tl.int64)
    i_block = tl.program_id(0) % blocks
    n = tl.load(count_x + i_problem)
    if tl.load(wanted + i_problem) == 0:
        return
    if i_block * BLOCK_N >= n:
        return
    m = tl.load(count_y + i_problem)
    x += i_problem * N * D
    x_low += i_problem * N * D
    y += i_problem * M * D
    y_low += i_problem * M * D
    o_n = i_block * BLOCK_N + tl.arange(0, BLOCK_N)
    m_n = o_n < n
    b_x = 0.0
    b_x_low = 0.0
    if COST == GRAM and RESIDENT:
        o_d = tl.arange(0, BLOCK_D)
        b_x = load_points(x, o_n, m_n, o_d, D)
        b_x_low = load_points(x_low, o_n, m_n, o_d, D)
    dtype = own_x.dtype.element_ty
    b_own = tl.load(own_x + i_problem * N + o_n, mask=m_n, other=0.0)
    b_f = tl.load(f + i_problem * N + o_n, mask=m_n, other=0.0)
    of_cost = tl.full([BLOCK_N], 0.0, dtype)
    of_rest = of_cost
    of_constant = of_cost
    for j in range(0, m, BLOCK_M):
        o_m = j + tl.arange(0, BLOCK_M)
        m_m = o_m < m
        at = i_problem * M + o_m
        zero = tl.full([BLOCK_N, BLOCK_M], 0.0, dtype)
        score = scores(
            x, x_low, b_x, b_x_low, y, y_low, o_n, m_n, o_m, m_m, N, M, D, p, zero,
            COST, PRECISION, RESIDENT, BLOCK_D,
        )  # fmt: skip
        b_weight = tl.load(weight + at, mask=m_m, other=0.0)
        b_g = tl.load(g + at, mask=m_m & (b_weight > 0), other=0.0)
        score = (score - tl.load(own_y + at, mask=m_m, other=0.0)[None, :]) - b_own[:, None]
        score = tl.where(b_weight[None, :] > 0, score, 0.0)
        both = b_f[:, None] + b_g[None, :]
        # what these tend to, as differences, where a cost is infinite
        meets = score > float("-inf")
        score = tl.where(meets, score, -1.0)
        rest = tl.where(meets, power_rest(tl.where(meets, both + score, 0.0)), -both)
        of_cost -= tl.sum(score * b_weight[None, :], 1)
        of_rest += tl.sum(rest * b_weight[None, :], 1)
        of_constant += tl.sum(tl.where(meets, power_rest(score), 0.0) * b_weight[None, :], 1)
    at = i_problem * N + o_n
    rows = (tl.num_programs(0) // blocks).to(tl.int64) * N
    tl.store(sums + at, of_cost, mask=m_n)
    tl.store(sums + rows + at, of_rest, mask=m_n)
    tl.store(sums + 2 * rows + at, of_constant, mask=m_n)


@triton.jit
def level_of(top, total, at, m_n, B, N, splits, BLOCK: tl.constexpr):
    """The logarithm of sums whose splits are put together; -inf where a point reaches nobody."""
    dtype = top.dtype.element_ty
    most = tl.full([BLOCK], float("-inf"), dtype)
    for s in range(0, splits):
        most = tl.maximum(most, tl.load(top + s * B * N + at, mask=m_n, other=0.0))
    base = tl.where(most == float("-inf"), 0.0, most)
    sums = tl.full([BLOCK], 0.0, dtype)
    for s in range(0, splits):
        higher = tl.load(top + s * B * N + at, mask=m_n, other=0.0)
        sums += tl.exp2(higher - base) * tl.load(total + s * B * N + at, mask=m_n, other=1.0)
    # a NaN is neither
    return tl.where(sums == 0, float("-inf"), base + tl.log2(tl.where(sums == 0, 1.0, sums)))


@triton.jit
def settle_kernel(
    top, total,  # [splits, B, N]
    own, weight, log_weight, potential, raw,  # [B, N], the last two written
    bias,  # [B, N padded], written: what these points are to the other side's next sweep
    wrong,  # [2, B, blocks], written: of rows alone; how far off, mass asked for
    of_columns,  # [B, blocks], written: of columns alone; mass asked for, or mass that nobody reaches
    lift, active, count,  # [B]; what rows gain before columns answer
    damping, heat, cooled, reach, rounding, B, N, splits,
    ROWS: tl.constexpr, BALANCED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The next potentials of a block of points, after a sweep at ``heat``; the next one is at 1 / ``cooled``.

    Columns move at once. Rows only learn where they move to: ``potential`` becomes what the columns have
    answered to, and ``wrong`` how far from it the row sums are, with what rounding may add.
    """
    blocks = tl.cdiv(N, BLOCK)
    i_problem = (tl.program_id(0) // blocks).to(tl.int64)
    i_block = tl.program_id(0) % blocks
    if tl.load(active + i_problem) == 0:
        return
    o_n = i_block * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < tl.load(count + i_problem)
    at = i_problem * N + o_n
    level = level_of(top, total, at, m_n, B, N, splits, BLOCK)
    b_own = tl.load(own + at, mask=m_n, other=0.0)
    b_weight = tl.load(weight + at, mask=m_n, other=0.0)
    b_lift = damping * tl.load(lift + i_problem)
    some = m_n & (b_weight != 0)
    renewed = b_own - heat * level
    if ROWS:
        met = level != float("-inf")
        answered = damping * tl.load(raw + at, mask=m_n, other=0.0) + b_lift
        tl.store(potential + at, answered, mask=m_n)
        wanted = 1.0
        if not BALANCED:
            wanted = power_of_two(-answered / reach)
        # a row that reaches nobody has none of its mass where it should be
        share = tl.where(met, bounded_power(answered - tl.where(met, renewed, 0.0)), 0.0)
        off = tl.abs(share - wanted) + tl.where(met, rounding * tl.abs(answered), 0.0)
        to = wrong + i_problem * blocks + i_block
        tl.store(to, tl.sum(b_weight * tl.where(some, off, 0.0), 0))
        if not BALANCED:
            tl.store(to + B * blocks, tl.sum(b_weight * tl.where(some, wanted, 0.0), 0))
        moved = damping * renewed
    else:
        # the sweep has left out the lift of the rows
        renewed -= b_lift
        moved = damping * renewed
        tl.store(potential + at, moved, mask=m_n)
        counted = tl.where(renewed == float("inf"), 1.0, 0.0)
        if not BALANCED:
            counted = power_of_two(-moved / reach)
        tl.store(
            of_columns + i_problem * blocks + i_block, tl.sum(b_weight * tl.where(some, counted, 0.0), 0)
        )
    b_bias = tl.load(log_weight + at, mask=m_n, other=float("-inf")) + cooled * (moved - b_own)
    to = bias + i_problem * (tl.cdiv(N, PADDED) * PADDED) + o_n
    tl.store(to, tl.where(renewed == float("inf"), float("-inf"), b_bias), mask=m_n)
    tl.debug_barrier()  # every warp has loaded what one of them stores
    tl.store(raw + at, renewed, mask=m_n)


@triton.jit
def sum_of_blocks(parts, blocks, BLOCK: tl.constexpr):
    """The sum of what the blocks of a problem have left."""
    sums = tl.full([BLOCK], 0.0, parts.dtype.element_ty)
    for k in range(0, blocks, BLOCK):
        o_k = k + tl.arange(0, BLOCK)
        sums += tl.load(parts + o_k, mask=o_k < blocks, other=0.0)
    return tl.sum(sums, 0)


@triton.jit
def stop_kernel(
    wrong,  # [2, B, blocks]
    of_columns,  # [B, blocks_columns]
    lift, error, iterations, active,  # [B], written
    tol, reach, blocks, blocks_columns, BALANCED: tl.constexpr, LEAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Counts a pair of half-steps, and stops problems whose error is at most ``tol``, or no number.

    Under a penalty: what f gains before the columns answer, and g loses.
    """
    i_problem = tl.program_id(0).to(tl.int64)
    if tl.load(active + i_problem) == 0:
        return
    problems = tl.num_programs(0)
    mismatch = sum_of_blocks(wrong + i_problem * blocks, blocks, BLOCK)
    by_columns = sum_of_blocks(of_columns + i_problem * blocks_columns, blocks_columns, BLOCK)
    if BALANCED:
        mismatch += by_columns  # that nobody reaches
    else:
        asked = sum_of_blocks(wrong + (problems + i_problem) * blocks, blocks, BLOCK)
        by = best_constant(asked, by_columns, reach, LEAST)
        tl.store(lift + i_problem, tl.where(mismatch > tol, by, 0.0))
    tl.store(error + i_problem, mismatch)
    count = tl.load(iterations + i_problem) + 1
    tl.debug_barrier()  # every warp has loaded what one of them stores
    tl.store(iterations + i_problem, count)
    tl.store(active + i_problem, (mismatch > tol).to(tl.int32))
