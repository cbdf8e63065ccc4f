"""Triton kernels: the portable implementation on GPUs. Private: call :mod:`geokernels.ops`.

This file does not import triton: what can run is said without it. The kernels themselves load on first use.
"""

import os
from importlib import util

import torch
from torch import Tensor

from .. import native, sizes

missing = None if util.find_spec("triton") else "triton is not installed; pip install triton"

# Triton decides once, when it compiles its first function: set before geokernels is imported
interpreted = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


PRECISIONS = ("fp32", "tf32", "bf16", "bf16x3")  # of products of points, by their number in the operators


def refuse(x: Tensor) -> str | None:
    """Say why no Triton kernel can take ``x``, or None."""
    if missing:
        return missing
    if not interpreted and x.device.type != "cuda":
        return f"Triton kernels run on GPUs (or with TRITON_INTERPRET=1, for tests), not on {x.device.type}"
    if interpreted and not x.is_cpu:
        return f"Triton's interpreter, TRITON_INTERPRET=1, runs on the CPU, not on {x.device.type}"
    if not interpreted and (reason := native.refuse_gpu(x)):
        return reason
    # in the interpreter float64 holds the kernels to more than float32 can show
    if x.dtype == torch.float64 and not interpreted:
        return "the Triton kernels compute in float32, not float64"
    return None


def refuse_bases(x: Tensor, p: Tensor, q: Tensor) -> str | None:
    """The same for rows ``x`` and bases ``p``, ``q``."""
    if sizes.exceed(sizes.TRITON.directions, p.shape[-1], q.shape[-1]):
        most = sizes.told(max(p.shape[-1], q.shape[-1]))
        return f"the Triton kernel takes bases of up to {sizes.TRITON.directions} columns, not {most}"
    return refuse(x)


def refuse_rows(x: Tensor) -> str | None:
    """The same for feature rows ``x``, of which a basis is wanted."""
    if sizes.exceed(sizes.TRITON.rows, x.shape[-2]):
        return f"the Triton kernel takes up to {sizes.TRITON.rows} rows, not {sizes.told(x.shape[-2])}"
    return refuse(x)
