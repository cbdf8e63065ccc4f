r"""The linear system behind gradients through the potentials, by products with the plan.

Of :func:`geokernels.reference.potentials.through_potentials`, in units of eps: with $\rho = E b$,
$\kappa = E^\top a$, $A = \mathrm{diag}(1/\rho) E\, \mathrm{diag}(b)$ and
$B = \mathrm{diag}(a) E\, \mathrm{diag}(1/\kappa)$ it reads $d\,p + B q = \bar f$,
$A^\top p + d\,q = \bar g$, where $d = 1 + 1/\mathrm{reach}$. Eliminating $p$ leaves
$(d - A^\top B / d)\, q = \bar g - A^\top \bar f / d$, which is symmetric in $q / \sqrt{b \kappa}$.
Columns without mass are solved beforehand, as nothing comes back from them. Balanced, the null vector
$\sqrt{b \kappa}$ is projected out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .._precision import full_precision
from .._typing import Weights
from ..reference.early_stop import Watch

Times = Callable[[Tensor, Tensor | None], Tensor]


class Adjoint(NamedTuple):
    r"""What gradients are made of.

    Attributes:
        of_rows: $p / \rho$, ``(..., N)``.
        of_columns: $q / \kappa$, ``(..., M)``.
        by_a: $E\,(q / \kappa)$, ``(..., N)``.
        by_b: $E^\top (p / \rho)$, ``(..., M)``.
        left: The largest squared residual beside what is exact enough; at most 1 where all are solved.
    """

    of_rows: Tensor
    of_columns: Tensor
    by_a: Tensor
    by_b: Tensor
    left: Tensor


def inverse(x: Tensor) -> Tensor:
    """``1 / x``, 0 where ``x`` is not above 0."""
    return torch.where(x > 0, 1 / x.masked_fill(x <= 0, 1), 0)


def dot(u: Tensor, v: Tensor) -> Tensor:
    """The inner product of vectors ``(..., M)``, ``(..., 1)``."""
    return torch.linalg.vecdot(u, v)[..., None]


@full_precision
def solve(
    a: Weights,
    b: Weights,
    grad_f: Tensor,
    grad_g: Tensor,
    times: Times,
    times_t: Times,
    reach: float,
    most: int,
    dot: Callable[[Tensor, Tensor], Tensor] = dot,
    watch: Watch | None = None,
) -> Adjoint:
    r"""Solve it with at most so many steps of conjugate gradients.

    Args:
        a: Weights ``(..., N)``.
        b: Weights ``(..., M)``.
        grad_f: ``(..., N)``.
        grad_g: ``(..., M)``.
        times: From $v$ ``(..., M)`` to $E v$; also given, where not None, which problems ``(..., 1)`` count,
            and free to return anything for the others.
        times_t: The same of $E^\top$.
        reach: Marginal penalty, in units of eps.
        most: Steps.
        dot: The inner product of two vectors of the columns.
        watch: What ends the steps.
    """
    d = 1 + 1 / reach
    by_rho, kappa = inverse(times(b, None)), times_t(a, None)
    by_kappa = inverse(kappa)
    scale = (b * kappa).sqrt()
    by_scale = inverse(scale)

    def system(q: Tensor, unsolved: Tensor | None = None) -> Tensor:
        return d * q - b * times_t(a * by_rho * times(by_kappa * q, unsolved), unsolved) / d

    rhs = grad_g - b * times_t(by_rho * grad_f, None) / d
    q = torch.where(b > 0, 0, rhs / d)
    r = by_scale * (rhs - system(q))
    null = torch.zeros_like(scale)
    if reach == math.inf:
        null = scale / dot(scale, scale).sqrt().clamp_min(torch.finfo(scale.dtype).tiny)
    z, left = _conjugate_gradients(
        lambda z, unsolved: by_scale * system(scale * z, unsolved), r, null, most, dot, watch
    )
    of_columns = by_kappa * (q + scale * z)
    by_a = times(of_columns, None)
    of_rows = by_rho * (grad_f - a * by_a) / d
    return Adjoint(of_rows, of_columns, by_a, times_t(of_rows, None), left)


def _conjugate_gradients(
    system: Callable[[Tensor, Tensor], Tensor],
    r: Tensor,
    null: Tensor,
    most: int,
    dot: Callable[[Tensor, Tensor], Tensor] = dot,
    watch: Watch | None = None,
) -> tuple[Tensor, Tensor]:
    """Solve ``system(z) = r`` for each problem of a batch, at right angles to ``null``.

    ``system`` is told which problems, ``(..., 1)``, are not solved yet, and may return anything for the
    others, which no further step changes.
    """

    def project(u: Tensor) -> Tensor:
        return u - null * dot(null, u)

    r, watch = project(r), watch or Watch()
    z, step, size = torch.zeros_like(r), r, dot(r, r)
    enough, tiny = size * torch.finfo(r.dtype).eps ** 1.5, torch.finfo(r.dtype).tiny
    for _ in range(most):
        unsolved = size > enough
        if watch.ended(unsolved):
            break
        moved = project(system(step, unsolved))
        length = size / dot(step, moved).clamp_min(tiny)
        z, r = torch.where(unsolved, z + length * step, z), torch.where(unsolved, r - length * moved, r)
        before, size = size, torch.where(unsolved, dot(r, r), size)
        step = torch.where(unsolved, r + step * size / before.clamp_min(tiny), step)
    return z, torch.where(size > enough, size / enough.clamp_min(tiny), 0)
