r"""Singular value decomposition of a small square matrix in a program, by one-sided Jacobi rotations.

    C = U diag(g) V^T,   C, U, V [K, K],   g [K], in no order

work  [2 BLOCK, BLOCK]   memory of the problem: C, zero beyond K, and below it V, rotated alike

Columns of C are made orthogonal, all disjoint pairs of a round at once: in round r of a panel columns i and
i xor r meet. A column finds its partner by a gather, and its rotation from the three products of the two,
which both see alike: no column is told apart. A panel is in the registers of the program, and has two blocks
of columns; of more than two blocks each two share a panel once a sweep, where each column of one meets each
of the other. What is left of a column below rounding has no direction; any that is orthogonal to the others
takes its place. Sums depend on the sizes alone.

Limits: K at most 128; a panel has at most 256 x 32 numbers, two of them at once.
"""

import triton
import triton.language as tl

MOST_SWEEPS = tl.constexpr(20)
MOST_WIDTH = 32  # of a panel, by what does not spill
CHUNK = tl.constexpr(16)  # rows of what is done once


def warps_of(block: int, width: int) -> int:
    """How many warps share a panel of ``width`` out of ``block`` columns; by what does not spill."""
    return 8 if block * width > 2048 else 4


def width_of(block: int) -> int:
    """Of the panels of ``block`` columns, where a program does nothing else."""
    return min(block, MOST_WIDTH)


@triton.jit
def rotations(alpha, beta, gamma, turn, o_k, partner):
    """Cosine and sine of each column's rotation with its partner, where there is to be a ``turn``."""
    zeta = (beta - alpha) / (2 * tl.where(turn, gamma, 1.0))
    zeta = tl.minimum(tl.maximum(zeta, -1e15), 1e15)
    sign = tl.where((zeta > 0) | ((zeta == 0) & (o_k < partner)), 1.0, -1.0)
    tangent = tl.where(turn, sign / (tl.abs(zeta) + tl.sqrt(1 + zeta * zeta)), 0.0)
    cosine = 1 / tl.sqrt(1 + tangent * tangent)
    return cosine, cosine * tangent


@triton.jit
def turned(panel, off, first, rounding, floor, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """A panel after its rounds from ``first`` on, and the largest turn; its upper half is the matrix."""
    o_k = tl.arange(0, WIDTH)
    of_matrix = tl.arange(0, ROWS)[:, None] < ROWS // 2
    for r in range(first, WIDTH):
        partner = o_k ^ r
        other = tl.gather(panel, tl.broadcast_to(partner[None, :], [ROWS, WIDTH]), 1)
        own = tl.where(of_matrix, panel, 0.0)
        alpha, gamma = tl.sum(own * own, 0), tl.sum(own * other, 0)
        beta = tl.gather(alpha, partner, 0)
        size = tl.sqrt(alpha) * tl.sqrt(beta)
        turn = (tl.abs(gamma) > rounding * size) & (alpha > floor) & (beta > floor)
        cosine, sine = rotations(alpha, beta, gamma, turn, o_k, partner)
        panel = cosine[None, :] * panel - sine[None, :] * other
        far = tl.where(turn, tl.abs(gamma) / tl.where(turn, size, 1.0), 0.0)
        off = tl.maximum(off, tl.max(tl.maximum(far, tl.abs(sine)), 0))
    return panel, off


@triton.jit
def squares_of(work, BLOCK: tl.constexpr):
    """Squares of the lengths of the columns of the matrix."""
    o_k = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], work.dtype.element_ty)
    for k in range(0, BLOCK, CHUNK):
        part = tl.load(work + (k + tl.arange(0, CHUNK))[:, None] * BLOCK + o_k[None, :])
        sums += tl.sum(part * part, 0)
    return sums


@triton.jit
def orthogonalise(work, rounding, settled, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """Make the columns of the matrix in ``work`` orthogonal, and leave below it how they were combined.

    Turns converge quadratically: a sweep in which none was larger than ``settled`` is the last. ``WIDTH`` is
    that of a panel.
    """
    HALF: tl.constexpr = WIDTH // 2
    o_k, o_row, o_panel = tl.arange(0, BLOCK), tl.arange(0, 2 * BLOCK), tl.arange(0, WIDTH)
    for k in range(0, BLOCK, CHUNK):
        o_chunk = k + tl.arange(0, CHUNK)
        one = (o_chunk[:, None] == o_k[None, :]).to(work.dtype.element_ty)
        tl.store(work + (BLOCK + o_chunk)[:, None] * BLOCK + o_k[None, :], one)
    tl.debug_barrier()
    # columns below the rounding of the largest have no direction to speak of
    floor = rounding * rounding / 4 * tl.max(squares_of(work, BLOCK), 0)
    off = floor * 0.0 + 1
    sweep = 0
    while (off > settled) & (sweep < MOST_SWEEPS):
        off = off * 0.0
        for i in range(0, BLOCK // HALF - 1):
            for j in range(i + 1, BLOCK // HALF):
                o_column = tl.where(o_panel < HALF, i * HALF + o_panel, (j - 1) * HALF + o_panel)
                first = HALF
                if (i % 2 == 0) & (j == i + 1):
                    first = 1  # columns of one block meet here
                own = work + o_row[:, None] * BLOCK + o_column[None, :]
                panel, off = turned(tl.load(own), off, first, rounding, floor, 2 * BLOCK, WIDTH)
                # other threads read what this one writes
                tl.debug_barrier()
                tl.store(own, panel)
                tl.debug_barrier()
        sweep += 1


@triton.jit
def decomposed(work, b_c, rounding, K, BLOCK: tl.constexpr):
    """``U``, ``g`` and ``V`` of one matrix; beyond K columns are zero and stay alone."""
    o_k = tl.arange(0, BLOCK)
    at = o_k[:, None] * BLOCK + o_k[None, :]
    tl.store(work + at, b_c)
    orthogonalise(work, rounding, tl.sqrt(rounding / (4 * K)), BLOCK, BLOCK)
    b_c = tl.load(work + at)
    b_g = tl.sqrt(tl.sum(b_c * b_c, 0))
    known = (b_g > K * rounding).to(tl.int32)
    b_u = tl.where(known[None, :] > 0, b_c / tl.where(known > 0, b_g, 1.0)[None, :], 0.0)
    for j in range(0, K):
        if tl.sum(tl.where(o_k == j, known, 0), 0) == 0:
            # the coordinate axis that the others see least, made orthogonal to them
            seen = tl.where(o_k < K, tl.sum(b_u * b_u, 1), 2.0)
            fresh = (o_k == tl.argmin(seen, 0)).to(b_c.dtype)
            for _ in range(0, 2):
                along = tl.sum(b_u * fresh[:, None], 0)
                fresh -= tl.sum(b_u * along[None, :], 1)
            fresh = fresh / tl.sqrt(tl.sum(fresh * fresh, 0))
            b_u = tl.where(o_k[None, :] == j, fresh[:, None], b_u)
    return b_u, b_g, tl.load(work + BLOCK * BLOCK + at)
