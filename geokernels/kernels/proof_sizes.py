"""Classes of sizes and precisions, in each of which implementations are timed for themselves."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Classes(NamedTuple):
    """The classes of an operator.

    Attributes:
        size: From its tensors to the number that decides.
        small: The largest number of the class of small ones.
        middle: The same of the next; what is above is large.
        wide: More features than this make a class of their own of the large, or None.
        halves: Whether half precision is read as it is, and not computed as float32.
    """

    size: Callable[..., int]
    small: int
    middle: int
    wide: int | None = None
    halves: bool = False


def _of_rows(x: Tensor, y: Tensor | None = None) -> int:
    return x.shape[-2] if y is None else max(x.shape[-2], y.shape[-2])


def _of_costs(cost: Tensor) -> int:
    return max(cost.shape[-2:])


def _of_bases(*tensors: Tensor) -> int:
    return max(tensors[-2].shape[-1], tensors[-1].shape[-1])


# How many problems a call holds is in no class: each is timed with one, with some and with many.
CLASSES = {
    "sinkhorn": Classes(_of_rows, 64, 256, wide=128, halves=True),
    "sinkhorn_from_cost": Classes(_of_costs, 64, 256),
    "subspace_basis": Classes(_of_rows, 32, 128),
    "geodesic_cosine": Classes(_of_bases, 16, 64),
    "principal_angles": Classes(_of_bases, 16, 64),
    "assignment": Classes(_of_costs, 64, 256),
    "displacement": Classes(_of_rows, 64, 256),
}


def class_of(operator: str, *tensors: Tensor) -> str:
    """The class of a call: of its size, and of the precision it is computed in."""
    classes, x = CLASSES[operator], tensors[0]
    size, precision = classes.size(*tensors), precision_of(operator, x.dtype)
    if size <= classes.small:
        return f"small {precision}"
    if size <= classes.middle:
        return f"middle {precision}"
    if classes.wide is not None and x.shape[-1] > classes.wide:
        return f"large and wide {precision}"
    return f"large {precision}"


def precision_of(operator: str, dtype: torch.dtype) -> str:
    """What a dtype is computed in: ``float64``, ``float32``, or ``half`` where that is read as it is."""
    if dtype == torch.float64:
        return "float64"
    if dtype == torch.float32 or not CLASSES[operator].halves:
        return "float32"
    return "half"
