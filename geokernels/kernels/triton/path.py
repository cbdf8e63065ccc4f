"""The weights of a geodesic between subspaces and their slopes, for Triton kernels.

Derived in geokernels/reference/path.py, and csrc/core/path_formulas.h in Triton's words: the series of h1 has
the coefficients 2 / 3, 2 4 / (3 5), ..., whose ratios 2 n / (2 n + 1) come in by Horner's rule.
"""

import triton
import triton.language as tl


@triton.jit
def parts_of(g, TERMS: tl.constexpr):
    """c, h1 and h at cosines ``g``; w+ and w- with them."""
    c = tl.sqrt((1 + g) / 2)
    t = (1 - c) / 2
    series = g * 0.0 + 1
    for n in tl.static_range(TERMS, 1, -1):
        series = 1 + t * (2.0 * n / (2 * n + 1)) * series
    h1 = series * (2.0 / 3)
    h = 1 + t * h1
    along_sum = (1 + c / h) / (8 * c * c)
    along_difference = (1 + h1 / 2) / (8 * (1 + c) * h)
    return c, h1, h, along_sum, along_difference


@triton.jit
def divided_differences(c, h1, h, along_sum, along_difference, c_j, h_j, TERMS: tl.constexpr):
    """``(w(g_i) - w(g_j)) / (g_i - g_j)`` of both weights, for all pairs; the derivative where they meet."""
    c_i, c_j, h_i, h_j = c[:, None], c_j[None, :], h[:, None], h_j[None, :]
    sum_i, difference_i = along_sum[:, None], along_difference[:, None]
    t_i, t_j = (1 - c_i) / 2, (1 - c_j) / 2

    # Horner's rule and its divided difference side by side
    value = c_j * 0.0 + 1
    h1_t = c_i * 0.0 + c_j * 0.0
    for n in tl.static_range(TERMS, 1, -1):
        h1_t = (2.0 * n / (2 * n + 1)) * (t_i * h1_t + value)
        value = 1 + t_j * (2.0 * n / (2 * n + 1)) * value
    h1_t = h1_t * (2.0 / 3)

    # from here on with respect to c
    slope_h1 = -h1_t / 2
    slope_h = -(h1[:, None] + t_j * h1_t) / 2
    sinc = (1 - c_i / h_i * slope_h) / h_j
    c_g = 1 / (2 * (c_i + c_j))
    of_sum = c_g * (sinc / 8 - sum_i * (c_i + c_j)) / (c_j * c_j)
    of_difference = slope_h1 / 16 - difference_i * (h_i + (1 + c_j) * slope_h)
    return of_sum, c_g * of_difference / ((1 + c_j) * h_j)


@triton.jit
def mixed_differences(g_i, g_j, along_sum, along_difference, rounding):
    """``(w+ - w-) / (g_i + g_j)``; 0 for two right angles, which leave the geodesic open."""
    total = g_i + g_j
    determined = total > 64 * rounding
    return tl.where(determined, along_sum - along_difference, 0.0) / tl.where(determined, total, 1.0)
