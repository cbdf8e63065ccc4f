"""Sizes that a kernel can take, where they may not be numbers yet."""

from typing import NamedTuple

from .._torch_internals import is_exporting


class Most(NamedTuple):
    """The largest problems that an implementation takes.

    Attributes:
        points: A side of a transport problem that is solved from all its costs.
        rows: Feature rows of which a basis is made.
        directions: Columns of a basis.
    """

    points: int
    rows: int
    directions: int


# points: csrc/core/transport_problem.h; beyond the others, blocked library solvers win
NATIVE = Most(points=256, rows=128, directions=64)
# points: of one program, beyond which costs are streamed
TRITON = Most(points=256, rows=128, directions=64)


def exceed(most: int, *sizes: int) -> bool:
    """Whether a size is above ``most``; while ``torch.export`` leaves sizes open, whether one may be.

    A program that is exported keeps the choice that is made here: it must be right for all of them.
    """
    if not is_exporting():
        return max(sizes) > most
    # brings sympy, which is there by now
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return not all(statically_known_true(size <= most) for size in sizes)


def told(size: int) -> str:
    """A size for a message."""
    return str(size) if isinstance(size, int) else "a size that torch.export leaves open (give its Dim a max)"
