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
    """
    given = [part for part in (first, *others) if part is not None]
    if any(isinstance(part, Tensor) for part in given):
        leader = first if isinstance(first, Tensor) else next(p for p in given if isinstance(p, Tensor))
        dtype = leader.dtype if leader.is_floating_point() else torch.float64
        return _same, [
            None if part is None else torch.as_tensor(part, dtype=dtype, device=leader.device)
            for part in (first, *others)
        ]
    import numpy as np  # only those who pass arrays need it

    leading = torch.from_numpy(np.array(first))
    dtype = leading.dtype if leading.is_floating_point() else torch.float64
    return _as_array, [
        None if part is None else torch.from_numpy(np.array(part)).to(dtype) for part in (first, *others)
    ]


def _same(x: Tensor) -> Tensor:
    return x


def _as_array(x: Tensor) -> Any:
    return x.detach().numpy()[()]  # a number where there are no dimensions
