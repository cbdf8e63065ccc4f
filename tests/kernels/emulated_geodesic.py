"""The CUDA kernels of subspaces and the geodesic cosine run on the host, called with tensors."""

import ctypes

import pytest
import torch

from geokernels.testing import assert_as_accurate

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
# bytes of shared memory that a block may have: compute capability 8.6, 8.0, 9.0
LIMITS = SMALLEST, _, LARGEST = 101_376, 166_912, 232_448


class Options(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("problems", "N", "D", "K", "L", "rank", "limit", "order")]
    _fields_ += [("small", ctypes.c_double)]


class Kernels:
    """The library's functions on tensors, with so many bytes of shared memory, threads in some order."""

    def __init__(self, library, limit=SMALLEST, order=0):
        self.library, self.limit, self.order = library, limit, order

    def call(self, name, like, sizes, small, *tensors):
        """Run a function; torch.empty is NaN in tests, so that what it does not write is seen."""
        options = Options(*sizes, self.limit, self.order, small)
        kind = "float" if like.dtype == torch.float32 else "double"
        pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in tensors]
        getattr(self.library, f"{name}_{kind}")(ctypes.byref(options), *pointers)

    def basis(self, x, rank=None, rtol=0.0):
        return _Basis.apply(x, self, rank or min(x.shape[-2:]), rtol)

    def angles(self, p, q):
        (B, D, K), L = p.shape, q.shape[-1]
        found = p.new_empty(B, min(K, L))
        self.call("angles", p, (B, 0, D, K, L, 0), 0.0, p.mT.contiguous(), q.mT.contiguous(), found)
        return found

    def cosine(self, x, y, p, q, eps=1e-12):
        return _Cosine.apply(x, y, p, q, self, eps)


class _Basis(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kernels, rank, rtol):
        B, N, D = x.shape
        R = min(N, D)
        ctx.kernels, ctx.sizes = kernels, (B, N, D, 0, 0, rank)
        left, directions, values = x.new_empty(B, R, N), x.new_empty(B, R, D), x.new_empty(B, R)
        kernels.call("basis", x, ctx.sizes, rtol, x.contiguous(), left, directions, values)
        ctx.save_for_backward(left, directions, values)
        return directions[:, :rank].mT, values[:, :rank]

    @staticmethod
    def backward(ctx, grad_basis, grad_values):
        left, directions, values = ctx.saved_tensors
        B, N, D, *_, rank = ctx.sizes
        to_directions, to_values = torch.zeros_like(directions), torch.zeros_like(values)
        to_directions[:, :rank], to_values[:, :rank] = grad_basis.mT, grad_values
        grad = left.new_empty(B, N, D)
        kept = left, directions, values
        ctx.kernels.call("basis_backward", left, ctx.sizes, 0.0, to_directions, to_values, *kept, grad)
        return grad, None, None, None


class _Cosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, p, q, kernels, eps):
        inputs = x.contiguous(), y.contiguous(), p.mT.contiguous(), q.mT.contiguous()
        (B, N, D), K, L = x.shape, p.shape[-1], q.shape[-1]
        M = max(K, L)
        ctx.kernels, ctx.eps, ctx.sizes = kernels, eps, (B, N, D, K, L, 0)
        frame = [x.new_empty(B, *shape) for shape in ((M, M), (M, M), (M,), (4, N, M))]
        cosines = x.new_empty(B, N)
        kernels.call("cosine", x, ctx.sizes, eps, *inputs, cosines, *frame)
        ctx.save_for_backward(*inputs, *frame)
        return cosines

    @staticmethod
    def backward(ctx, grad):
        kept = ctx.saved_tensors
        outs = [torch.empty_like(x) if want else None for x, want in zip(kept[:4], ctx.needs_input_grad[:4])]
        ctx.kernels.call("cosine_backward", grad, ctx.sizes, ctx.eps, grad.contiguous(), *kept, *outs)
        to_x, to_y, to_p, to_q = outs
        return to_x, to_y, None if to_p is None else to_p.mT, None if to_q is None else to_q.mT, None, None


def judge(name, ours, single, exact_single, exact):
    """Our error against PyTorch's at the same precision, as in tests/ops/test_geodesic.py."""
    if ours.dtype == torch.float32:
        assert_as_accurate(name, ours, single, exact)
        return
    scaled = exact + (single - exact_single) * 2.0**-29
    assert_as_accurate(name, ours, scaled, exact, factor=6)


def compare(names, run, ours, definition, inputs):
    found = run(ours, inputs)
    single = run(definition, [part.float() for part in inputs])
    exact_single = run(definition, [part.float().double() for part in inputs])
    exact = run(definition, [part.double() for part in inputs])
    for name, *parts in zip(names, found, single, exact_single, exact, strict=True):
        judge(name, *parts)
