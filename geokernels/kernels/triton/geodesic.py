"""Geodesic cosine: the launches, forward and backward, and registration."""

from functools import partial

import torch
import triton
from torch import Tensor
from torch.nn.functional import pad

from ..._typing import Basis, Rows, Scores
from ...reference import tangents
from .. import derivatives
from .._ops import ops
from ..batching import lead_with_mapped_dimension
from .decompose import warps_of
from .geodesic_kernels import cosine_kernel, decompose_kernel, overlap_kernel, spread_kernel, turn_kernel
from .registration import device_of, of_launch, operator, wrap_triton

BLOCK_N = 16  # rows at a time, the least that a product of tiles takes
BLOCK_D = 32
BLOCK_M = 16  # directions at a time of the gradient to P^T Q
SPREAD_D = 16  # features of a program of the gradient
LAUNCH = 8, 255, 1  # warps, registers and stages, by what does not spill
DECOMPOSING = 255  # registers


def cosine(x: Rows, y: Rows, p: Basis, q: Basis, eps: float) -> Scores:
    """Cosines ``(..., N)`` of input whose batch shapes agree; gradients reach all four tensors, once."""
    return ops.triton_geodesic_cosine(x, y, p, q, eps)[0]


def spreading(block: int) -> tuple[int, int, int]:
    """Warps, registers and stages of spread_kernel, whose tiles of 16 x 16 have work for four warps alone."""
    return (4 if block == 16 else LAUNCH[0], *LAUNCH[1:])


def _flat(*tensors: Tensor, inner: int = 2) -> tuple[Tensor, ...]:
    """Problems one behind the other."""
    return tuple(part.reshape(-1, *part.shape[part.dim() - inner :]).contiguous() for part in tensors)


def _sizes(x: Tensor, p: Tensor, q: Tensor) -> tuple[tuple[int, ...], dict]:
    """N, D, K, L and M, and how a program is cut; of flat tensors."""
    N, D, K, L = *x.shape[1:], p.shape[-1], q.shape[-1]
    M = max(K, L)
    block = max(triton.next_power_of_2(M), 16)
    terms = 21 if x.dtype == torch.float64 else 10  # of the series of the weights
    cut = {"BLOCK": block, "BLOCK_N": BLOCK_N, "BLOCK_D": BLOCK_D, "TERMS": terms}
    return (N, D, K, L, M), {**cut, **of_launch(x, *LAUNCH)}


@operator("triton_geodesic_cosine")
def geodesic_cosine(
    x: Tensor, y: Tensor, p: Tensor, q: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cosines, and what the backward pass keeps; geodesic_kernels.py says of which shapes."""
    batch = x.shape[:-2]
    x, y, p, q = _flat(x, y, p, q)
    sizes, cut = _sizes(x, p, q)
    N, *_, M = sizes
    shapes = (N,), (M, M), (M, M), (M,), (4, N, M)
    outs = [x.new_empty((x.shape[0], *shape)) for shape in shapes]
    rounding = torch.finfo(x.dtype).eps
    cosines, *frame, coordinates = outs
    problems, block = x.shape[0], cut["BLOCK"]
    work = x.new_empty((problems, 2 * block, block))
    with device_of(x):
        wrap_triton(decompose_kernel)[(problems,)](
            p, q, *frame, work, rounding, *sizes[1:], block, BLOCK_D,
            **of_launch(x, warps_of(block, block), DECOMPOSING),
        )  # fmt: skip
        wrap_triton(cosine_kernel)[(problems, triton.cdiv(N, BLOCK_N))](
            x, y, p, q, *frame, cosines, coordinates, eps, *sizes, **cut
        )
    cosines, left, right, g, coordinates = (
        out.reshape((*batch, *shape)) for out, shape in zip(outs, shapes, strict=True)
    )
    return cosines, left, right, g, coordinates


@operator("triton_geodesic_cosine_backward")
def geodesic_cosine_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    p: Tensor,
    q: Tensor,
    left: Tensor,
    right: Tensor,
    g: Tensor,
    coordinates: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to rows and bases."""
    given = x, y, p, q
    flat = _flat(*given)
    sizes, cut = _sizes(flat[0], *flat[2:])
    kept = (*_flat(left, right), *_flat(g, inner=1), *_flat(coordinates, inner=3))
    outs = [torch.empty_like(part) for part in flat]
    left, right, g, coordinates = kept
    turned, on, overlap = torch.empty_like(coordinates), torch.empty_like(coordinates), torch.empty_like(left)
    x, y, p, q = flat
    problems, N, D = x.shape
    with device_of(x):
        wrap_triton(turn_kernel)[(problems, triton.cdiv(N, BLOCK_N))](
            *_flat(grad, inner=1), p, q, *kept, turned, on, eps, *sizes, **cut
        )
        wrap_triton(overlap_kernel)[(problems, triton.cdiv(sizes[-1], BLOCK_M))](
            p, q, *kept, turned, overlap, torch.finfo(x.dtype).eps, *sizes, **cut, BLOCK_M=BLOCK_M
        )
        wrap_triton(spread_kernel)[(problems, triton.cdiv(D, SPREAD_D))](
            *flat, on, overlap, *outs, *sizes, cut["BLOCK"], BLOCK_N, SPREAD_D,
            **of_launch(x, *spreading(cut["BLOCK"])),
        )  # fmt: skip
    to_x, to_y, to_p, to_q = (out.reshape(part.shape) for out, part in zip(outs, given, strict=True))
    return to_x, to_y, to_p, to_q


@geodesic_cosine.register_fake
def _(x, y, p, q, eps):
    *batch, N, _D = x.shape
    M = max(p.shape[-1], q.shape[-1])
    return tuple(x.new_empty((*batch, *shape)) for shape in ((N,), (M, M), (M, M), (M,), (4, N, M)))


@geodesic_cosine_backward.register_fake
def _(grad, x, y, p, q, left, right, g, coordinates, eps):
    return tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in (x, y, p, q))


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.eps = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output[1:])


def _backward(ctx, grad: Tensor | None, *_frame: None):
    if grad is None:
        return (None,) * 5
    grads = ops.triton_geodesic_cosine_backward(grad, *ctx.saved_tensors, ctx.eps)
    return *grads, None


def _tangents_of(ctx, saved, dx, dy, dp, dq, _eps):
    x, y, p, q, left, right, g, _coordinates = saved
    rank = g.shape[-1]
    bases = (part if part is None else pad(part, (0, rank - part.shape[-1])) for part in (p, q, dp, dq))
    formula = partial(tangents.of_cosine, eps=ctx.eps)
    frame = left, right, g
    moved = derivatives.first_order("triton_geodesic_cosine", formula, *frame, x, y, *bases, dx, dy)
    return moved, None, None, None, None


derivatives.differentiable("triton_geodesic_cosine", _backward, _save, _tangents_of)
derivatives.first_order_only("triton_geodesic_cosine")
lead_with_mapped_dimension("triton_geodesic_cosine")
lead_with_mapped_dimension("triton_geodesic_cosine_backward")
