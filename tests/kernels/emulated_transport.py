"""The CUDA Sinkhorn kernel run on the host, called with tensors, and problems for it."""

import ctypes
import math

import pytest
import torch

from geokernels import reference
from geokernels.testing import cloud, weights

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
ASCENDING, DESCENDING, BY_CHANCE = 0, 1, 7
STORED = {torch.float16: 1, torch.bfloat16: 2}


class Options(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("problems", "rows", "columns")]
    _fields_ += [(name, ctypes.c_double) for name in ("eps", "reach", "tol")]
    _fields_ += [(name, ctypes.c_int64) for name in ("max_iter", "blocks", "near_groups", "order")]
    _fields_ += [(name, ctypes.c_int64) for name in ("features", "kind", "stored", "width")]


def solver(library: ctypes.CDLL):
    """A function that solves problems with the kernel of a library, in the order of threads that is named."""

    def run(cost, a=None, b=None, n=None, m=None, start=None, *, eps, reach=math.inf, tol, max_iter=1000,
            blocks=None, near_groups=99, order=ASCENDING, x=None, y=None, kind=0, v=None):  # fmt: skip
        B, N, M = cost.shape
        features, stored = (0, 0) if x is None else (x.shape[-1], STORED.get(x.dtype, 0))
        width = 0 if v is None else v.shape[-1]
        numbers = eps, reach, tol, max_iter, blocks or B, near_groups, order, features, kind, stored, width
        options = Options(B, N, M, *numbers)
        # torch.empty is NaN in tests; one more number than there is room for must stay so
        outs = [cost.new_empty(size + 1) for size in (B, B * N, B * M, B)]
        iterations = torch.full((B,), -1)
        carried = None if v is None else cost.new_empty(B * N * width + 1)
        parts = x, y, cost, v, carried, a, b, start, n, m
        held = [None if part is None else part.contiguous() for part in parts]
        pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in (*held, *outs, iterations)]
        name = "sinkhorn_float" if cost.dtype == torch.float32 else "sinkhorn_double"
        getattr(library, name)(ctypes.byref(options), *pointers)
        assert all(out[-1].isnan() for out in outs)
        value, f, g, error = (out[:-1].view(*shape) for out, shape in zip(outs, ((B,), (B, N), (B, M), (B,))))
        if v is None:
            return value, f, g, error, iterations
        assert carried[-1].isnan()
        return value, f, g, error, iterations, carried[:-1].view(B, N, width)

    return run


def problem(N, M, B=2, seed=0):
    x, y = cloud(B, N, 3, seed=seed), cloud(B, M, 3, seed=seed + 1)
    cost = torch.cdist(x, y).square()
    return cost / cost.mean(), weights(B, N, seed=seed + 2), weights(B, M, seed=seed + 3)


def bits(found):
    return [part.view(torch.int32 if part.dtype == torch.float32 else torch.int64) for part in found]


def define(cost, a=None, b=None, n=None, m=None, **settings):
    """The solution by the definition."""
    lengths = None if n is None else (n, m)
    return reference.solve(cost, reference.Problem(a=a, b=b, lengths=lengths, **settings))
