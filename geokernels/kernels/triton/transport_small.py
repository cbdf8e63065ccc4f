r"""Sinkhorn's iteration between small weighted sets: a program solves a problem, in one launch for all.

In powers of two, with costs and potentials in units of eps / log2(e):

    raw_i = -log2 sum_j b_j 2^(g_j - C_ij),   f_i = damping raw_i,   and the same for the columns

cost         [B, N, M]   may be +inf: such a pair does not meet
weight_x     [B, N]      zero weights take no part
weight_y     [B, M]
f, raw, g    [B, N], [B, N], [B, M]   written; g holds where to start from

A program walks blocks of rows against all columns. Each row's largest power becomes 1 and its sum says
where the row moves; the same exponentials, scaled by where the rows have moved to, are then summed for the
columns. So a pair of half-steps takes one exponential a pair, and no memory of that size. A column's sum is
exact while one of the rows' moderate powers reaches it; where it is not to be trusted all columns are
summed for themselves, against their own largest powers.

Under a penalty f gains and g loses the best constant before each pair of half-steps, by the masses that both
sides ask for (geokernels/reference/potentials.py, best_constant).

The error is that of the rows before they move, and counts what rounding of the potentials may add. A problem
stops by itself, and where the error is no number. Sums depend on the sizes alone.
"""

import triton
import triton.language as tl

from .transport_clouds_tiles import MOST_POWER, bounded_power

# times the largest scale: terms lost to underflow are below rounding beside it
LEAST_SUM = tl.constexpr(1e-25)
MOST_SUM = tl.constexpr(1e25)


@triton.jit
def column_levels(cost, weight_x, raw, at_row, n, M, o_m, m_m, scale, damping, lift, BLOCK_N: tl.constexpr):
    """log2 sum_i a_i 2^(f_i - C_ij) of all columns, against each one's largest power."""
    dtype = raw.dtype.element_ty
    most = tl.full([o_m.shape[0]], float("-inf"), dtype)
    sums = tl.full([o_m.shape[0]], 0.0, dtype)
    for i in range(0, n, BLOCK_N):
        o_n = i + tl.arange(0, BLOCK_N)
        m_n = o_n < n
        at = (at_row + o_n)[:, None] * M + o_m[None, :]
        b_cost = tl.load(cost + at, mask=m_n[:, None] & m_m[None, :], other=float("inf"))
        b_weight = tl.load(weight_x + at_row + o_n, mask=m_n, other=0.0)
        b_raw = tl.load(raw + at_row + o_n, mask=m_n, other=0.0)
        some = (b_weight > 0) & (b_raw < float("inf"))
        bias = tl.where(
            some, damping * (b_raw + lift) + tl.log2(tl.where(some, b_weight, 1.0)), float("-inf")
        )
        power = bias[:, None] - scale * b_cost
        higher = tl.maximum(most, tl.max(power, 0))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        sums = sums * tl.exp2(most - base) + tl.sum(tl.exp2(power - base[None, :]), 0)
        most = higher
    return most + tl.log2(tl.where(sums == 0, 1.0, sums))


# The minimum of a number and NaN is the number on a GPU; comparisons let NaN through, to stop a problem.
@triton.jit
def power_of_two(x):
    """``2^x``, infinite where it is too large to be worked with: what it counts in must not be trusted."""
    return tl.exp2(tl.where(x > MOST_POWER, float("inf"), x))


@triton.jit
def best_constant(of_rows, of_columns, reach, LEAST: tl.constexpr):
    """What f gains and g loses, by the masses asked for; 0 where they differ by less than ``LEAST``."""
    # above what underflow has rounded, below what has overflowed
    sure = (of_rows > 1e-30) & (of_columns > 1e-30) & (of_rows < float("inf")) & (of_columns < float("inf"))
    ratio = tl.where(sure, of_rows, 1.0) / tl.where(sure, of_columns, 1.0)
    by = reach / 2 * tl.log2(tl.where(tl.abs(ratio - 1) > LEAST, ratio, 1.0))
    return tl.where(tl.abs(by) < float("inf"), by, 0.0)


@triton.jit
def power_rest(x):
    """``2^x - 1 - x ln 2``, to the last digits for small ``x``."""
    by_e = 0.6931471805599453 * x
    small = tl.abs(by_e) < 0.5
    kept = tl.where(small, by_e, 0.0)
    total = tl.full(x.shape, 1.0, x.dtype)
    for k in tl.static_range(15):
        total = 1 + kept * total / (17 - k)
    return tl.where(small, kept * kept / 2 * total, bounded_power(x) - 1 - by_e)


@triton.jit
def pairs_kernel(
    cost, weight_x, weight_y, f, g,
    sums,  # [3, B], written
    level, count, wanted,  # [B]: what is added to the rows' potentials; rows that count; whether to look
    scale, N, M,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """What the pairs add to the value of a problem whose costs are far below eps: their costs, and rests."""
    i_problem = tl.program_id(0).to(tl.int64)
    if tl.load(wanted + i_problem) == 0:
        return
    n = tl.load(count + i_problem)
    o_m = tl.arange(0, BLOCK_M)
    m_m = o_m < M
    b_columns = tl.load(weight_y + i_problem * M + o_m, mask=m_m, other=0.0)
    potential = tl.load(g + i_problem * M + o_m, mask=m_m, other=0.0)
    b_level = tl.load(level + i_problem)
    of_cost = tl.full([BLOCK_N], 0.0, cost.dtype.element_ty)
    of_rest = of_cost
    of_constant = of_cost
    for i in range(0, n, BLOCK_N):
        o_n = i + tl.arange(0, BLOCK_N)
        m_n = o_n < n
        at = i_problem * N + o_n
        b_rows = tl.load(weight_x + at, mask=m_n, other=0.0)
        own = tl.load(f + at, mask=m_n, other=0.0) + b_level
        some = (b_rows > 0)[:, None] & (b_columns > 0)[None, :]
        b_cost = scale * tl.load(cost + at[:, None] * M + o_m[None, :], mask=some, other=0.0)
        both = tl.where(some, own[:, None] + potential[None, :], 0.0)
        # what these tend to, as differences, where a cost is infinite
        meets = b_cost < float("inf")
        b_cost = tl.where(meets, b_cost, 1.0)
        rest = tl.where(meets, power_rest(both - b_cost), -both)
        constant = tl.where(meets, power_rest(-b_cost), 0.0)
        of_cost += b_rows * tl.sum(b_cost * b_columns[None, :], 1)
        of_rest += b_rows * tl.sum(rest * b_columns[None, :], 1)
        of_constant += b_rows * tl.sum(constant * b_columns[None, :], 1)
    problems = tl.num_programs(0)
    tl.store(sums + i_problem, tl.sum(of_cost, 0))
    tl.store(sums + problems + i_problem, tl.sum(of_rest, 0))
    tl.store(sums + 2 * problems + i_problem, tl.sum(of_constant, 0))


@triton.jit
def sinkhorn_kernel(
    cost, weight_x, weight_y,
    f, raw, g, error, iterations,
    count, valid,  # [B]: rows that count; whether there is a problem
    scale, damping, reach, rounding, tol, max_iter, N, M,
    BALANCED: tl.constexpr, LEAST: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One problem, to its end."""
    i_problem = tl.program_id(0).to(tl.int64)
    if tl.load(valid + i_problem) == 0:
        return
    n = tl.load(count + i_problem)
    at_row = i_problem * N
    o_m = tl.arange(0, BLOCK_M)
    m_m = o_m < M
    b_columns = tl.load(weight_y + i_problem * M + o_m, mask=m_m, other=0.0)
    potential = tl.load(g + i_problem * M + o_m, mask=m_m, other=0.0)
    dtype = raw.dtype.element_ty
    done = 0
    going = 1
    mismatch = tl.sum(b_columns, 0)
    lift = 0.0 * mismatch  # what f gains before the columns answer
    while going > 0:
        reached = potential < float("inf")
        bias = tl.where(reached, potential, float("-inf"))
        column = tl.full([BLOCK_M], 0.0, dtype)
        wrong = tl.full([BLOCK_N], 0.0, dtype)
        asked = tl.full([BLOCK_N], 0.0, dtype)
        most = 0.0 * mismatch  # power of two that a row is scaled by
        for i in range(0, n, BLOCK_N):
            o_n = i + tl.arange(0, BLOCK_N)
            m_n = o_n < n
            at = (at_row + o_n)[:, None] * M + o_m[None, :]
            b_cost = tl.load(cost + at, mask=m_n[:, None] & m_m[None, :], other=float("inf"))
            power = bias[None, :] - scale * b_cost
            # a column without mass is no reason to let the others vanish
            top = tl.max(tl.where(b_columns[None, :] > 0, power, float("-inf")), 1)
            base = tl.where(top == float("-inf"), 0.0, top)
            share = power_of_two(power - base[:, None])
            sums = tl.sum(tl.where(b_columns[None, :] > 0, share, 0.0) * b_columns[None, :], 1)
            met = ~(sums <= 0)
            level = base + tl.log2(tl.where(met, sums, 1.0))
            b_weight = tl.load(weight_x + at_row + o_n, mask=m_n, other=0.0)
            answered = damping * (tl.load(raw + at_row + o_n, mask=m_n, other=0.0) + lift)
            # a row that meets nobody has none of its mass where it should be
            row_share = tl.where(met, bounded_power(answered + level), 0.0)
            wanted = 1.0
            if not BALANCED:
                wanted = power_of_two(-answered / reach)
                asked += b_weight * tl.where(b_weight > 0, wanted, 0.0)
            off = tl.abs(row_share - wanted) + tl.where(met, rounding * tl.abs(answered), 0.0)
            wrong += b_weight * tl.where(b_weight > 0, off, 0.0)
            tl.store(f + at_row + o_n, answered, mask=m_n)
            # several warps have loaded what one of them stores
            tl.debug_barrier()
            tl.store(raw + at_row + o_n, tl.where(met, -level, float("inf")), mask=m_n)
            some = met & (b_weight > 0)
            by = tl.where(some, base - damping * level, 0.0)
            most = tl.maximum(most, tl.max(by, 0))
            moved = b_weight * tl.where(some, bounded_power(by), 0.0)
            column += tl.sum(tl.where(some[:, None], share, 0.0) * moved[:, None], 0)
        # other threads have written what is read from here on
        tl.debug_barrier()
        if not BALANCED:
            by_columns = b_columns * tl.where(b_columns > 0, power_of_two(-potential / reach), 0.0)
            best = best_constant(tl.sum(asked, 0), tl.sum(by_columns, 0), reach, LEAST)
            lift = tl.where(done > 0, best, 0.0)
        least = LEAST_SUM * power_of_two(most)
        trusted = (column >= least) & (column <= MOST_SUM)
        moved_columns = bias - tl.log2(tl.where(trusted, column, 1.0)) - damping * lift
        if tl.min(tl.where(trusted | (o_m >= M), 1, 0), 0) == 0:
            moved_columns = -column_levels(
                cost, weight_x, raw, at_row, n, M, o_m, m_m, scale, damping, lift, BLOCK_N
            )
        tl.debug_barrier()
        mismatch = tl.sum(wrong, 0)
        if BALANCED:
            mismatch += tl.sum(tl.where(reached, 0.0, b_columns), 0)
        going = ((done == 0) | ((mismatch > tol) & (done < max_iter))).to(tl.int32)
        potential = tl.where(going > 0, damping * moved_columns, potential)
        done += going
    tl.store(g + i_problem * M + o_m, potential, mask=m_m)
    tl.store(error + i_problem, mismatch)
    tl.store(iterations + i_problem, done)
