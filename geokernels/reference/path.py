r"""The weights of a geodesic between subspaces, as functions of the cosine of a principal angle.

In the plane of a pair of principal vectors $a$, $q$ at angle $\theta$, $g = \cos\theta$, the kernel
$\int_0^1 \Phi\Phi^\top dt$ is diagonal along $a + q$ and $a - q$, with the weights

$$w_+ = \frac{1 + \mathrm{sinc}\,\theta}{4 (1 + g)} \qquad w_- = \frac{1 - \mathrm{sinc}\,\theta}{4 (1 - g)}$$

(``sinc`` is sin x / x). Both are analytic at $\theta = 0$ and bounded, so small angles need no branch. They
are evaluated in $c = \cos(\theta/2)$, with $t = (1-c)/2 = \sin^2(\theta/4) \le 0.147$, from the series

$$h(t) = \frac{\theta/2}{\sin(\theta/2)} = 1 + t\,h_1(t) = \sum_n \frac{4^n (n!)^2}{(2n+1)!} t^n,
\qquad \mathrm{sinc}\,\theta = c / h,$$

where no difference of nearly equal numbers remains. Divided differences follow from the product rule
$(uv)[i,j] = u_i v[i,j] + v_j u[i,j]$, and stay exact when the two points meet.
"""

from typing import NamedTuple

import torch
from torch import Tensor

TERMS = 21  # 0.147**21 < 1e-17


def _coefficients() -> list[float]:
    """The series of h1, lowest power first."""
    series = [1.0]
    for n in range(1, TERMS + 1):
        series.append(series[-1] * 2 * n / (2 * n + 1))
    return series[1:]


H1 = _coefficients()


class Weights(NamedTuple):
    """Weights along ``a + q`` and ``a - q``, each ``(..., K)``."""

    sum: Tensor
    difference: Tensor


class Parts(NamedTuple):
    """What the weights are made of, for every cosine."""

    c: Tensor
    t: Tensor
    h1: Tensor
    h: Tensor


def _parts(g: Tensor) -> Parts:
    c = ((1 + g) / 2).sqrt()
    t = (1 - c) / 2
    h1 = torch.full_like(t, H1[-1])
    for coefficient in reversed(H1[:-1]):
        h1 = h1 * t + coefficient
    return Parts(c, t, h1, 1 + t * h1)


def _weights(at: Parts) -> Weights:
    return Weights(
        (1 + at.c / at.h) / (8 * at.c**2),
        (1 + at.h1 / 2) / (8 * (1 + at.c) * at.h),
    )


def weights(g: Tensor) -> Weights:
    """The weights at cosines ``g`` in [0, 1]."""
    return _weights(_parts(g))


def divided_differences(g: Tensor) -> Weights:
    """``(w(g_i) - w(g_j)) / (g_i - g_j)`` for all pairs, ``(..., K, K)``; the derivative where they meet."""
    at = _parts(g)
    w = _weights(at)
    i = Parts(*(part[..., :, None] for part in at))
    j = Parts(*(part[..., None, :] for part in at))
    w_i = Weights(w.sum[..., :, None], w.difference[..., :, None])

    # Horner's rule and its divided difference side by side
    value, h1_t = torch.full_like(j.t, H1[-1]), torch.zeros_like(i.t * j.t)
    for coefficient in reversed(H1[:-1]):
        h1_t = h1_t * i.t + value
        value = value * j.t + coefficient

    # from here on with respect to c
    h1 = -h1_t / 2
    h = -(i.h1 + j.t * h1_t) / 2
    sinc = (1 - i.c / i.h * h) / j.h
    along_sum = (sinc / 8 - w_i.sum * (i.c + j.c)) / j.c**2
    along_difference = (h1 / 16 - w_i.difference * (i.h + (1 + j.c) * h)) / ((1 + j.c) * j.h)
    c_g = 1 / (2 * (i.c + j.c))
    return Weights(along_sum * c_g, along_difference * c_g)


def mixed_differences(g: Tensor) -> Tensor:
    """``(w_sum(g_i) - w_difference(g_j)) / (g_i + g_j)`` for all pairs, ``(..., K, K)``.

    Two right angles (both cosines 0 up to rounding) leave the geodesic undetermined: they give 0, which
    keeps the pairing of the two directions as it is.
    """
    w = weights(g)
    total = g[..., :, None] + g[..., None, :]
    determined = total > 64 * torch.finfo(g.dtype).eps
    rise = w.sum[..., :, None] - w.difference[..., None, :]
    return torch.where(determined, rise, 0) / torch.where(determined, total, 1)
