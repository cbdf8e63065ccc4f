r"""Singular value decomposition of a small square matrix in a program, by one-sided Jacobi rotations.

    C = U diag(g) V^T,   C, U, V [K, K],   g [K], in no order

Columns of C are made orthogonal, all disjoint pairs of a round at once: in round r of K - 1 the columns i and
j meet where i + j = r modulo K - 1, and the one that would meet itself meets the last. A column finds its
partner by a gather, and its rotation from the three products of the two, which both see alike: no column is
told apart. What is left of a column below rounding has no direction; any that is orthogonal to the others
takes its place. Sums depend on the sizes alone.

Limits: K at most 32, a tile of K x K numbers in the registers of a program, three of them at once.
"""

import triton
import triton.language as tl

MOST_SWEEPS = tl.constexpr(16)


@triton.jit
def partners(r, o_k, BLOCK: tl.constexpr):
    """Whom each column meets in round ``r``."""
    met = (r - o_k + 2 * (BLOCK - 1)) % (BLOCK - 1)
    partner = tl.where(met == o_k, BLOCK - 1, met)
    return tl.where(o_k == BLOCK - 1, (r * (BLOCK // 2)) % (BLOCK - 1), partner)


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
def orthogonalised(b_c, rounding, settled, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """``b_c V`` with orthogonal columns, ``[ROWS, BLOCK]``, and ``V``.

    Turns converge quadratically: a sweep in which none was larger than ``settled`` is the last.
    """
    o_k = tl.arange(0, BLOCK)
    b_v = (o_k[:, None] == o_k[None, :]).to(b_c.dtype)
    # columns below the rounding of the largest have no direction to speak of
    floor = rounding * rounding / 4 * tl.max(tl.sum(b_c * b_c, 0), 0)
    off = tl.max(tl.max(tl.abs(b_c), 0), 0) * 0.0 + 1
    sweep = 0
    while (off > settled) & (sweep < MOST_SWEEPS):
        off = off * 0.0
        for r in range(0, BLOCK - 1):
            partner = partners(r, o_k, BLOCK)
            other = tl.gather(b_c, tl.broadcast_to(partner[None, :], [ROWS, BLOCK]), 1)
            alpha, beta, gamma = tl.sum(b_c * b_c, 0), tl.sum(other * other, 0), tl.sum(b_c * other, 0)
            size = tl.sqrt(alpha) * tl.sqrt(beta)
            turn = (tl.abs(gamma) > rounding * size) & (alpha > floor) & (beta > floor)
            cosine, sine = rotations(alpha, beta, gamma, turn, o_k, partner)
            b_c = cosine[None, :] * b_c - sine[None, :] * other
            other = tl.gather(b_v, tl.broadcast_to(partner[None, :], [BLOCK, BLOCK]), 1)
            b_v = cosine[None, :] * b_v - sine[None, :] * other
            far = tl.where(turn, tl.abs(gamma) / tl.where(turn, size, 1.0), 0.0)
            off = tl.maximum(off, tl.max(tl.maximum(far, tl.abs(sine)), 0))
        sweep += 1
    return b_c, b_v


@triton.jit
def decomposed(b_c, rounding, K, BLOCK: tl.constexpr):
    """``U``, ``g`` and ``V`` of one matrix; beyond K columns are zero and stay alone."""
    o_k = tl.arange(0, BLOCK)
    b_c, b_v = orthogonalised(b_c, rounding, tl.sqrt(rounding / (4 * K)), BLOCK, BLOCK)
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
    return b_u, b_g, b_v
