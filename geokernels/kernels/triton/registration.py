"""How Triton kernels become operators of torch.

In Triton's interpreter kernels are Python functions that read memory: torch.compile must not look into them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .._ops import full_name
from . import interpreted


def operator(name: str) -> Callable:
    """Register a function, of torch's calls and of wrapped kernels alone, as ``geokernels::name``.

    torch.compile looks into it, and its kernels into the graph.
    """
    return (opaque if interpreted else torch.library.triton_op)(full_name(name), mutates_args=())


def opaque(name: str, **options) -> Callable:
    """Register a function that torch.compile calls as it is: one with long loops of launches."""
    return torch.library.custom_op(name, **options)


def _as_it_is(kernel: Callable) -> Callable:
    return kernel


# torch looks for this name in the source of an operator
wrap_triton = _as_it_is if interpreted else torch.library.wrap_triton


def _is_plain(x: Tensor) -> bool:
    """Whether ``x`` has memory, and is not what a tracer puts in its place."""
    return type(x) in (Tensor, torch.nn.Parameter)


def of_launch(x: Tensor, warps: int, registers: int | None = None, stages: int = 3) -> dict[str, int]:
    """Options of a launch on ``x``: its warps, and the most registers of a thread.

    Left alone, the assembler aims at one more block an SM, and spills what it lacks for that; in which
    kernels, changes from one release to the next. With a bound above what a kernel asks for, it does not.
    torch.compile knows no such option and compiles without it: there some bytes may spill.
    """
    bound = {} if registers is None or not _is_plain(x) else {"maxnreg": registers}
    return {"num_warps": warps, "num_stages": stages, **bound}


def device_of(x: Tensor) -> AbstractContextManager:
    """Launch on the GPU of ``x``, which need not be the current one; a tracer sees to that itself."""
    return torch.cuda.device_of(x) if _is_plain(x) else nullcontext()
