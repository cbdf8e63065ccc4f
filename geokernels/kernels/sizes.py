"""Sizes that a kernel can take, where they may not be numbers yet."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._torch_internals import is_exporting


class Most(NamedTuple):
    """The largest problems that an implementation takes.

    Attributes:
        points: A side of a transport problem that is solved from all its costs.
        rows: Feature rows of which a basis is made; None for any number.
        directions: Columns of a basis.
    """

    points: int
    rows: int | None
    directions: int


# points: csrc/core/transport_problem.h; beyond the others, blocked library solvers win
NATIVE = Most(points=256, rows=128, directions=64)
# where the compiled kernels do more
ON_CPU = NATIVE._replace(rows=None, directions=256)
# beyond, errors of csrc/core/bidiagonal.h, whose QR steps are float64 themselves, are over twice LAPACK's
ON_CPU_IN_FLOAT64 = NATIVE._replace(rows=160, directions=128)
# points: of one program, beyond which costs are streamed
TRITON = Most(points=256, rows=128, directions=64)


def native(x: Tensor) -> Most:
    """What the compiled kernels take on the device of ``x``, in its dtype."""
    if not x.is_cpu:
        return NATIVE
    return ON_CPU_IN_FLOAT64 if x.dtype == torch.float64 else ON_CPU


def exceed(most: int | None, *sizes: int) -> bool:
    """Whether a size is above ``most``; while ``torch.export`` leaves sizes open, whether one may be.

    A program that is exported keeps the choice that is made here: it must be right for all of them.
    """
    if most is None:
        return False
    if not is_exporting():
        return max(sizes) > most
    # brings sympy, which is there by now
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return not all(statically_known_true(size <= most) for size in sizes)


def told(size: int) -> str:
    """A size for a message."""
    return str(size) if isinstance(size, int) else "a size that torch.export leaves open (give its Dim a max)"
