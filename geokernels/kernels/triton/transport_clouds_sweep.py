r"""The kernels of Sinkhorn's iteration between large clouds: sums over all pairs that are never stored.

One half-step, in the units of `transport_clouds_tiles`, at a regularisation `heat` times the last:

    l_i = log2 sum_j b_j 2^((g_j - C_ij) / heat),   raw_i = -heat l_i,   f_i = damping raw_i

    sweep_kernel     [B x row blocks, splits]   what a split of the columns adds to l_i: a largest power and a
    sum settle_kernel    [B x blocks]               puts splits together; the next potentials; errors of a
    block stop_kernel      [B]                        whose error is small enough

A program of the sweep keeps a block of rows and walks the columns with a running maximum and a running sum;
the rows' points stay on chip where one block holds all features. Columns are split where rows are few.
Problems that have stopped, and blocks beyond a problem's length, return at once. Sums depend on the sizes
alone: results repeat.

A weight of zero is a bias of -inf; a tile of nothing else adds nothing.
"""

import triton
import triton.language as tl

from .transport_clouds_tiles import GRAM, MOST_POWER, load_points, scores
from .transport_small import best_constant, power_of_two, power_rest


@triton.jit
def sweep_kernel(
    x, x_low, y, y_low,  # packed points
    own, potential, log_weight,  # [B, M] of the columns
    lift, active, count_x, count_y,  # [B]; what is added to the potentials
    top, total,  # [splits, B, N], written
    damping, cooled, p, N, M, D, width,
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
    b_lift = tl.load(lift + i_problem)
    m = tl.minimum(tl.load(count_y + i_problem), (i_split + 1) * width)
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

    dtype = own.dtype.element_ty
    most = tl.full([BLOCK_N], float("-inf"), dtype)
    sums = tl.full([BLOCK_N], 0.0, dtype)
    for j in range(i_split * width, m, BLOCK_M):
        o_m = j + tl.arange(0, BLOCK_M)
        m_m = o_m < m
        at = i_problem * M + o_m
        b_potential = damping * (tl.load(potential + at, mask=m_m, other=0.0) + b_lift)
        moved = b_potential - tl.load(own + at, mask=m_m, other=0.0)
        bias = tl.load(log_weight + at, mask=m_m, other=float("-inf")) + cooled * moved
        zero = tl.full([BLOCK_N, BLOCK_M], 0.0, dtype)
        score = scores(
            x, x_low, b_x, b_x_low, y, y_low, o_n, m_n, o_m, m_m, N, M, D, p, zero,
            COST, PRECISION, RESIDENT, BLOCK_D,
        )  # fmt: skip
        power = cooled * score + bias[None, :]
        higher = tl.maximum(most, tl.max(power, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        sums = sums * tl.exp2(most - base) + tl.sum(tl.exp2(power - base[:, None]), 1)
        most = higher
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
        b_weight = tl.load(weight + at, mask=m_m, other=0.0)[None, :]
        score = tl.where(
            b_weight > 0, (score - tl.load(own_y + at, mask=m_m, other=0.0)[None, :]) - b_own[:, None], 0.0
        )
        b_g = tl.load(g + at, mask=m_m & (tl.load(weight + at, mask=m_m, other=0.0) > 0), other=0.0)
        of_cost -= tl.sum(score * b_weight, 1)
        of_rest += tl.sum(power_rest((b_f[:, None] + b_g[None, :]) + score) * b_weight, 1)
        of_constant += tl.sum(power_rest(score) * b_weight, 1)
    at = i_problem * N + o_n
    rows = (tl.num_programs(0) // blocks).to(tl.int64) * N
    tl.store(sums + at, of_cost, mask=m_n)
    tl.store(sums + rows + at, of_rest, mask=m_n)
    tl.store(sums + 2 * rows + at, of_constant, mask=m_n)


@triton.jit
def settle_kernel(
    top, total,  # [splits, B, N]
    own, weight, potential, raw,  # [B, N], the last two written
    wrong,  # [2, B, blocks], written: of rows alone; how far off, mass asked for
    asked_by_columns,  # [B, blocks], written: of columns alone
    lift, active, count,  # [B]
    damping, heat, reach, rounding, B, N, splits,
    ROWS: tl.constexpr, BALANCED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The next potentials of a block of points.

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
    dtype = own.dtype.element_ty
    most = tl.full([BLOCK], float("-inf"), dtype)
    for s in range(0, splits):
        most = tl.maximum(most, tl.load(top + s * B * N + at, mask=m_n, other=0.0))
    base = tl.where(most == float("-inf"), 0.0, most)
    sums = tl.full([BLOCK], 0.0, dtype)
    for s in range(0, splits):
        higher = tl.load(top + s * B * N + at, mask=m_n, other=0.0)
        sums += tl.exp2(higher - base) * tl.load(total + s * B * N + at, mask=m_n, other=1.0)
    met = sums > 0
    level = tl.where(met, base + tl.log2(tl.where(met, sums, 1.0)), most)
    renewed = tl.load(own + at, mask=m_n, other=0.0) - heat * level
    if ROWS:
        answered = damping * (tl.load(raw + at, mask=m_n, other=0.0) + tl.load(lift + i_problem))
        tl.store(potential + at, answered, mask=m_n)
        wanted = 1.0
        if not BALANCED:
            wanted = power_of_two(-answered / reach)
        b_weight = tl.load(weight + at, mask=m_n, other=0.0)
        share = tl.exp2(tl.minimum(answered - renewed, MOST_POWER))
        off = tl.abs(share - wanted) + rounding * tl.abs(answered)
        some = m_n & (b_weight != 0)
        to = wrong + i_problem * blocks + i_block
        tl.store(to, tl.sum(b_weight * tl.where(some, off, 0.0), 0))
        if not BALANCED:
            tl.store(to + B * blocks, tl.sum(b_weight * tl.where(some, wanted, 0.0), 0))
        tl.store(raw + at, renewed, mask=m_n)
    else:
        tl.store(potential + at, damping * renewed, mask=m_n)
        if not BALANCED:
            b_weight = tl.load(weight + at, mask=m_n, other=0.0)
            asked = b_weight * tl.where(m_n & (b_weight != 0), power_of_two(-damping * renewed / reach), 0.0)
            tl.store(asked_by_columns + i_problem * blocks + i_block, tl.sum(asked, 0))


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
    asked_by_columns,  # [B, blocks_columns]
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
    if not BALANCED:
        asked = sum_of_blocks(wrong + (problems + i_problem) * blocks, blocks, BLOCK)
        of_columns = sum_of_blocks(asked_by_columns + i_problem * blocks_columns, blocks_columns, BLOCK)
        by = best_constant(asked, of_columns, reach, LEAST)
        tl.store(lift + i_problem, tl.where(mismatch > tol, by, 0.0))
    tl.store(error + i_problem, mismatch)
    count = tl.load(iterations + i_problem) + 1
    tl.debug_barrier()  # every warp has loaded what one of them stores
    tl.store(iterations + i_problem, count)
    tl.store(active + i_problem, (mismatch > tol).to(tl.int32))
