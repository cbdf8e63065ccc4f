r"""The cosine of paired rows along the geodesic between two subspaces, and its gradient.

    cos = x^T G y / sqrt(x^T G x  y^T G y),   x^T G y = sum_j w+_j x+_j y+_j + w-_j x-_j y-_j
    x+_j, x-_j = a_j . x +- q_j . x,   a_j = P u_j,  q_j = Q v_j,   P^T Q = U diag(g) V^T

x, y         [B, N, D]
p, q         [B, D, K], [B, D, L]   orthonormal or zero columns; M = max(K, L)
cosine       [B, N]
left, right  [B, M, M]              U and V
g            [B, M]                 cosines of the principal angles, in no order
coordinates  [B, 4, N, M]           x+, x-, y+, y-
turned       [B, 4, N, M]           gradients to these, but for the weights
on           [B, 4, N, M]           gradients to P^T x, Q^T x, P^T y, Q^T y; 0 for zero columns
overlap      [B, M, M]              gradient to P^T Q; 0 for zero columns

A program has a problem, or a block of its rows, or of its features. Two launches forward, three backward.
Algorithm, degenerate cases and limits are those of csrc/cpu/geodesic_kernel.h and geodesic_backward_kernel.h;
the decomposition is decompose.py, the weights path.py. Numbers are split into two of TF32 for tensor cores,
and the product of the small parts is left out (exact in the interpreter). Sums depend on the sizes alone.
"""

import triton
import triton.language as tl

from .decompose import decomposed
from .path import divided_differences, mixed_differences, parts_of


@triton.jit
def product(a, b, to):
    """``to + a @ b``."""
    return tl.dot(a, b, to, input_precision="tf32x3", out_dtype=to.dtype)


@triton.jit
def load_tile(rows, o_row, count, o_column, width):
    """A tile of rows ``[count, width]``, zero beyond."""
    mask = (o_row[:, None] < count) & (o_column[None, :] < width)
    return tl.load(rows + o_row[:, None] * width + o_column[None, :], mask=mask, other=0.0)


@triton.jit
def store_tile(rows, o_row, count, o_column, width, tile):
    """The other way round."""
    mask = (o_row[:, None] < count) & (o_column[None, :] < width)
    tl.store(rows + o_row[:, None] * width + o_column[None, :], tile, mask=mask)


@triton.jit
def coordinates_of(x, p, q, left, right, o_n, N, D, K, L, M, o_k, BLOCK_D: tl.constexpr):
    """x+ and x- of a block of rows."""
    on_p = tl.zeros([o_n.shape[0], o_k.shape[0]], x.dtype.element_ty)
    on_q = on_p
    for d in range(0, D, BLOCK_D):
        o_d = d + tl.arange(0, BLOCK_D)
        b_x = load_tile(x, o_n, N, o_d, D)
        on_p = product(b_x, load_tile(p, o_d, D, o_k, K), on_p)
        on_q = product(b_x, load_tile(q, o_d, D, o_k, L), on_q)
    along = product(on_p, load_tile(left, o_k, M, o_k, M), tl.zeros_like(on_p))
    across = product(on_q, load_tile(right, o_k, M, o_k, M), tl.zeros_like(on_q))
    return along + across, along - across


@triton.jit
def weighted(w_plus, w_minus, x_plus, x_minus, y_plus, y_minus):
    """``x^T G y`` of paired rows."""
    return tl.sum(w_plus[None, :] * x_plus * y_plus + w_minus[None, :] * x_minus * y_minus, 1)


@triton.jit
def moderation(plus, minus):
    """What coordinates are multiplied by before they are squared; core/path_formulas.h says why."""
    most = tl.maximum(tl.max(tl.abs(plus), 1), tl.max(tl.abs(minus), 1))
    far: tl.constexpr = 1073741824.0
    moderate = ~(most > 0) | ((most >= 1 / far) & (most <= far))
    # no smaller than the least normal number
    return 1 / tl.where(moderate, 1.0, tl.maximum(most, 1.1754944e-38))


@triton.jit
def decompose_kernel(
    p, q,
    left, right, g, work,
    rounding, D, K, L, M,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Forward, first: principal directions and angles of a problem."""
    i_problem = tl.program_id(0).to(tl.int64)
    p += i_problem * D * K
    q += i_problem * D * L
    o_k = tl.arange(0, BLOCK)
    overlap = tl.zeros([BLOCK, BLOCK], p.dtype.element_ty)
    for d in range(0, D, BLOCK_D):
        o_d = d + tl.arange(0, BLOCK_D)
        overlap = product(tl.trans(load_tile(p, o_d, D, o_k, K)), load_tile(q, o_d, D, o_k, L), overlap)
    b_u, b_g, b_v = decomposed(work + i_problem * 2 * BLOCK * BLOCK, overlap, rounding, M, BLOCK)
    store_tile(left + i_problem * M * M, o_k, M, o_k, M, b_u)
    store_tile(right + i_problem * M * M, o_k, M, o_k, M, b_v)
    tl.store(g + i_problem * M + o_k, b_g, mask=o_k < M)


@triton.jit
def cosine_kernel(
    x, y, p, q, left, right, g,
    cosine, coordinates,
    eps, N, D, K, L, M,
    BLOCK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """Forward, second: coordinates and cosines of a block of rows."""
    i_problem = tl.program_id(0).to(tl.int64)
    x += i_problem * N * D
    y += i_problem * N * D
    p += i_problem * D * K
    q += i_problem * D * L
    coordinates += i_problem * 4 * N * M
    o_n, o_k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK)
    left += i_problem * M * M
    right += i_problem * M * M
    _, _, _, w_plus, w_minus = parts_of(tl.load(g + i_problem * M + o_k, mask=o_k < M, other=0.0), TERMS)
    x_plus, x_minus = coordinates_of(x, p, q, left, right, o_n, N, D, K, L, M, o_k, BLOCK_D)
    y_plus, y_minus = coordinates_of(y, p, q, left, right, o_n, N, D, K, L, M, o_k, BLOCK_D)
    of_x, of_y = moderation(x_plus, x_minus), moderation(y_plus, y_minus)
    u_plus, u_minus = x_plus * of_x[:, None], x_minus * of_x[:, None]
    v_plus, v_minus = y_plus * of_y[:, None], y_minus * of_y[:, None]
    xx = weighted(w_plus, w_minus, u_plus, u_minus, u_plus, u_minus)
    xy = weighted(w_plus, w_minus, u_plus, u_minus, v_plus, v_minus)
    yy = weighted(w_plus, w_minus, v_plus, v_minus, v_plus, v_minus)
    # without direction 0, but NaN where anything is NaN or infinite
    directed = (xx > eps * of_x * of_x) & (yy > eps * of_y * of_y)
    lengths = tl.sqrt(tl.where(directed, xx, 1.0)) * tl.sqrt(tl.where(directed, yy, 1.0))
    b_cosine = tl.where(directed, xy / lengths, 0.0 * (xx + yy))
    tl.store(cosine + i_problem * N + o_n, b_cosine, mask=o_n < N)
    store_tile(coordinates, o_n, N, o_k, M, x_plus)
    store_tile(coordinates + N * M, o_n, N, o_k, M, x_minus)
    store_tile(coordinates + 2 * N * M, o_n, N, o_k, M, y_plus)
    store_tile(coordinates + 3 * N * M, o_n, N, o_k, M, y_minus)


@triton.jit
def living(basis, o_k, D, K, BLOCK_D: tl.constexpr):
    """1 for columns with something in them, else 0."""
    size = tl.zeros([o_k.shape[0]], basis.dtype.element_ty)
    for d in range(0, D, BLOCK_D):
        o_d = d + tl.arange(0, BLOCK_D)
        size = tl.maximum(size, tl.max(tl.abs(load_tile(basis, o_d, D, o_k, K)), 0))
    return (size > 0).to(size.dtype)


@triton.jit
def store_turned(turned, on, o_n, N, o_k, M, b_u, b_v, w_plus, w_minus, plus, minus, of_p, of_q):
    """Gradients to a side's coordinates, and by them to its projections."""
    store_tile(turned, o_n, N, o_k, M, plus)
    store_tile(turned + N * M, o_n, N, o_k, M, minus)
    plus = 2 * w_plus[None, :] * plus
    minus = 2 * w_minus[None, :] * minus
    zero = plus * 0.0
    store_tile(on, o_n, N, o_k, M, of_p[None, :] * product(plus + minus, tl.trans(b_u), zero))
    store_tile(on + N * M, o_n, N, o_k, M, of_q[None, :] * product(plus - minus, tl.trans(b_v), zero))


@triton.jit
def turn_kernel(
    grad, p, q, left, right, g, coordinates,
    turned, on,
    eps, N, D, K, L, M,
    BLOCK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """Backward, first: gradients to the coordinates and projections of a block of rows."""
    i_problem = tl.program_id(0).to(tl.int64)
    at = i_problem * 4 * N * M
    o_n, o_k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK)
    of_p = living(p + i_problem * D * K, o_k, D, K, BLOCK_D)
    of_q = living(q + i_problem * D * L, o_k, D, L, BLOCK_D)
    b_u = load_tile(left + i_problem * M * M, o_k, M, o_k, M)
    b_v = load_tile(right + i_problem * M * M, o_k, M, o_k, M)
    _, _, _, w_plus, w_minus = parts_of(tl.load(g + i_problem * M + o_k, mask=o_k < M, other=0.0), TERMS)
    x_plus = load_tile(coordinates + at, o_n, N, o_k, M)
    x_minus = load_tile(coordinates + at + N * M, o_n, N, o_k, M)
    y_plus = load_tile(coordinates + at + 2 * N * M, o_n, N, o_k, M)
    y_minus = load_tile(coordinates + at + 3 * N * M, o_n, N, o_k, M)
    of_x, of_y = moderation(x_plus, x_minus), moderation(y_plus, y_minus)
    x_plus, x_minus = x_plus * of_x[:, None], x_minus * of_x[:, None]
    y_plus, y_minus = y_plus * of_y[:, None], y_minus * of_y[:, None]
    xx = weighted(w_plus, w_minus, x_plus, x_minus, x_plus, x_minus)
    xy = weighted(w_plus, w_minus, x_plus, x_minus, y_plus, y_minus)
    yy = weighted(w_plus, w_minus, y_plus, y_minus, y_plus, y_minus)
    directed = (xx > eps * of_x * of_x) & (yy > eps * of_y * of_y)
    xx, yy = tl.where(directed, xx, 1.0), tl.where(directed, yy, 1.0)
    b_grad = tl.load(grad + i_problem * N + o_n, mask=o_n < N, other=0.0)
    both = tl.where(directed, b_grad / (tl.sqrt(xx) * tl.sqrt(yy)) / 2, 0.0)[:, None]
    own = -both * (xy / xx)[:, None]
    plus = (own * x_plus + both * y_plus) * of_x[:, None]
    minus = (own * x_minus + both * y_minus) * of_x[:, None]
    store_turned(turned + at, on + at, o_n, N, o_k, M, b_u, b_v, w_plus, w_minus, plus, minus, of_p, of_q)
    at += 2 * N * M
    own = -both * (xy / yy)[:, None]
    plus = (own * y_plus + both * x_plus) * of_y[:, None]
    minus = (own * y_minus + both * x_minus) * of_y[:, None]
    store_turned(turned + at, on + at, o_n, N, o_k, M, b_u, b_v, w_plus, w_minus, plus, minus, of_p, of_q)


@triton.jit
def rotated(coordinates, turned, g, o_k, o_m, rounding, N, M, BLOCK_N: tl.constexpr, TERMS: tl.constexpr):
    """The gradient to ``P^T Q`` in the frame of U and V, of a block of columns."""
    both_plus = tl.zeros([o_k.shape[0], o_m.shape[0]], g.dtype.element_ty)
    both_minus, crossed, crossed_back = both_plus, both_plus, both_plus
    for side in range(0, 2):
        at = side * 2 * N * M
        for n in range(0, N, BLOCK_N):
            o_n = n + tl.arange(0, BLOCK_N)
            plus = tl.trans(load_tile(coordinates + at, o_n, N, o_k, M))
            minus = tl.trans(load_tile(coordinates + at + N * M, o_n, N, o_k, M))
            both_plus = product(plus, load_tile(turned + at, o_n, N, o_m, M), both_plus)
            turned_minus = load_tile(turned + at + N * M, o_n, N, o_m, M)
            both_minus = product(minus, turned_minus, both_minus)
            crossed = product(plus, turned_minus, crossed)
            turned_minus = tl.trans(load_tile(turned + at + N * M, o_n, N, o_k, M))
            crossed_back = product(turned_minus, load_tile(coordinates + at, o_n, N, o_m, M), crossed_back)
    g_k = tl.load(g + o_k, mask=o_k < M, other=0.0)
    g_m = tl.load(g + o_m, mask=o_m < M, other=0.0)
    c, h1, h, w_plus, w_minus = parts_of(g_k, TERMS)
    c_m, _, h_m, w_plus_m, w_minus_m = parts_of(g_m, TERMS)
    twist = mixed_differences(g_k[:, None], g_m[None, :], w_plus[:, None], w_minus_m[None, :], rounding)
    back = mixed_differences(g_k[:, None], g_m[None, :], w_plus_m[None, :], w_minus[:, None], rounding)
    of_plus, of_minus = divided_differences(c, h1, h, w_plus, w_minus, c_m, h_m, TERMS)
    return of_plus * both_plus + of_minus * both_minus + (back * crossed_back - twist * crossed)


@triton.jit
def overlap_kernel(
    p, q, left, right, g, coordinates, turned,
    overlap,
    rounding, N, D, K, L, M,
    BLOCK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TERMS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Backward, second: lines of the gradient to ``P^T Q``, by sums over rows of both sides."""
    i_problem = tl.program_id(0).to(tl.int64)
    coordinates += i_problem * 4 * N * M
    turned += i_problem * 4 * N * M
    left += i_problem * M * M
    right += i_problem * M * M
    o_k, o_line = tl.arange(0, BLOCK), tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    between = tl.zeros([BLOCK_M, BLOCK], g.dtype.element_ty)
    for m in range(0, M, BLOCK_M):
        o_m = m + tl.arange(0, BLOCK_M)
        inner = rotated(coordinates, turned, g + i_problem * M, o_k, o_m, rounding, N, M, BLOCK_N, TERMS)
        b_left = load_tile(left, o_line, M, o_k, M)
        inner = product(b_left, inner, tl.zeros([BLOCK_M, BLOCK_M], inner.dtype))
        between = product(inner, tl.trans(load_tile(right, o_k, M, o_m, M)), between)
    of_p = living(p + i_problem * D * K, o_line, D, K, BLOCK_D)
    of_q = living(q + i_problem * D * L, o_k, D, L, BLOCK_D)
    store_tile(overlap + i_problem * M * M, o_line, M, o_k, M, of_p[:, None] * between * of_q[None, :])


@triton.jit
def spread_side(rows, to_rows, on, b_p, b_q, b_to_p, b_to_q, o_d, o_k, N, D, M, BLOCK_N: tl.constexpr):
    """Gradient to one side's rows, and theirs to the bases."""
    for n in range(0, N, BLOCK_N):
        o_n = n + tl.arange(0, BLOCK_N)
        on_p = load_tile(on, o_n, N, o_k, M)
        on_q = load_tile(on + N * M, o_n, N, o_k, M)
        b_rows = load_tile(rows, o_n, N, o_d, D)
        b_to_rows = product(on_q, tl.trans(b_q), product(on_p, tl.trans(b_p), b_rows * 0.0))
        store_tile(to_rows, o_n, N, o_d, D, b_to_rows)
        b_to_p = product(tl.trans(b_rows), on_p, b_to_p)
        b_to_q = product(tl.trans(b_rows), on_q, b_to_q)
    return b_to_p, b_to_q


@triton.jit
def spread_kernel(
    x, y, p, q, on, overlap,
    to_x, to_y, to_p, to_q,
    N, D, K, L, M,
    BLOCK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Backward, third: from these to a block of features of rows and bases."""
    i_problem = tl.program_id(0).to(tl.int64)
    at_rows, at_p, at_q = i_problem * N * D, i_problem * D * K, i_problem * D * L
    on += i_problem * 4 * N * M
    o_k, o_d = tl.arange(0, BLOCK), tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    b_p, b_q = load_tile(p + at_p, o_d, D, o_k, K), load_tile(q + at_q, o_d, D, o_k, L)
    b_overlap = load_tile(overlap + i_problem * M * M, o_k, M, o_k, M)
    b_to_p = product(b_q, tl.trans(b_overlap), b_p * 0.0)
    b_to_q = product(b_p, b_overlap, b_q * 0.0)
    b_to_p, b_to_q = spread_side(
        x + at_rows, to_x + at_rows, on, b_p, b_q, b_to_p, b_to_q, o_d, o_k, N, D, M, BLOCK_N
    )
    b_to_p, b_to_q = spread_side(
        y + at_rows, to_y + at_rows, on + 2 * N * M, b_p, b_q, b_to_p, b_to_q, o_d, o_k, N, D, M, BLOCK_N
    )
    store_tile(to_p + at_p, o_d, D, o_k, K, b_to_p)
    store_tile(to_q + at_q, o_d, D, o_k, L, b_to_q)
