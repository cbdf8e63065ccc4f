"""Keeps autocast out: what needs float32 is computed in it."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


def full_precision(function: Callable) -> Callable:
    """Run a function, whose first argument is a tensor, in the precision of its arguments."""

    @wraps(function)
    def run(x: Tensor, *args, **kwargs):
        if x.is_meta:  # has no autocast to keep out
            return function(x, *args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *args, **kwargs)

    return run
