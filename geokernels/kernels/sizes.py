"""Sizes that a kernel can take, where they may not be numbers yet."""

import torch


def exceed(most: int, *sizes: int) -> bool:
    """Whether a size is above ``most``; while ``torch.export`` leaves sizes open, whether one may be.

    A program that is exported keeps the choice that is made here: it must be right for all of them.
    """
    if not torch.compiler.is_exporting():
        return max(sizes) > most
    # brings sympy, which is there by now
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return not all(statically_known_true(size <= most) for size in sizes)


def told(size: int) -> str:
    """A size for a message."""
    return str(size) if isinstance(size, int) else "a size that torch.export leaves open (give its Dim a max)"
