"""NumPy arrays and lists in, NumPy arrays out; tensors in, tensors out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def as_tensors(first: Any, *others: Any) -> tuple[Callable[[Tensor], Any], list[Tensor | None]]:
    """The arguments as tensors, and the way back.

    Args:
        first: Decides dtype and device: a tensor, an array or nested lists. Whole numbers become float64.
        *others: The same, or None, which stays None.

    Returns:
        A function that gives results the kind of array that came in, and the tensors.

    Raises:
        TypeError: If what is given holds no real numbers.
        ValueError: If some of its numbers are masked.
    """
    given = [part for part in (first, *others) if part is not None]
    if any(isinstance(part, Tensor) for part in given):
        leader = first if isinstance(first, Tensor) else next(p for p in given if isinstance(p, Tensor))
        dtype = leader.dtype if leader.is_floating_point() else torch.float64
        return _same, [
            None if part is None else _from_any(part).to(dtype=dtype, device=leader.device)
            for part in (first, *others)
        ]
    leading = _from_any(first)
    dtype = leading.dtype if leading.is_floating_point() else torch.float64
    return _as_array, [None if part is None else _from_any(part).to(dtype) for part in (first, *others)]


def _from_any(x: Any) -> Tensor:
    """A tensor of what torch has a dtype for: the machine's byte order, and no more than 64 bits."""
    if getattr(x, "layout", torch.strided) != torch.strided or hasattr(x, "tocoo"):
        raise NotImplementedError(f"sparse arrays are not offered, got {type(x).__name__}; pass a dense one")
    if isinstance(x, Tensor):
        return x
    import numpy as np  # only those who pass arrays need it

    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError(f"arrays must have no masked entries, got {int(np.ma.getmaskarray(x).sum())}")
    array = np.array(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"arrays must hold real numbers, got {array.dtype}")
    fits = array.dtype.itemsize <= 8 and array.dtype.kind == "f"
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=") if fits else np.float64))


def _same(x: Tensor) -> Tensor:
    return x


def _as_array(x: Tensor) -> Any:
    return x.detach().numpy()[()]  # a number where there are no dimensions
