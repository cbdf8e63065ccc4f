"""Costs of clouds that every sweep reads: when that is faster than to make them anew, and how they are made.

A sweep makes costs of D features by 2 D operations a pair on the matrix units (6 D with bf16x3), or reads 4
bytes of one. With nine tenths of what an H200 has, 990 TFLOP/s in bfloat16 and 495 in TF32, and its 4.8 TB/s
reading is faster above the numbers of features in ``MOST_STREAMED``. Without matrix units, 67 TFLOP/s, that
is 28 there, and 160 on GPUs with more arithmetic beside their memory: 64 is between the two. Arithmetic, not
measured.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..costs import PairCost
from .registration import of_launch
from .transport_clouds_tiles import Blocks, Cloud, products

MOST_STREAMED = {"fp32": 64, "tf32": 185, "bf16": 370, "bf16x3": 120}  # features
SHARE = 0.25  # of the memory that is free, which stored costs may take
# a program of cost_kernel, none of which holds all features
TILE = {
    "fp32": Blocks(64, 32, 16, 8, 128),
    "tf32": Blocks(64, 64, 32, 4, 168),
    "bf16": Blocks(64, 64, 32, 4, 168),
    "bf16x3": Blocks(64, 32, 32, 4, 168),
}


@triton.jit
def cost_kernel(
    x, x_low, y, y_low,  # packed points
    cost,  # [B, N, M], written
    N, M, D,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Minus the products of a tile of pairs."""
    blocks = tl.cdiv(N, BLOCK_N)
    i_problem = (tl.program_id(0) // blocks).to(tl.int64)
    o_n = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    o_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    zero = tl.full([BLOCK_N, BLOCK_M], 0.0, cost.dtype.element_ty)
    score = products(
        x + i_problem * N * D, x_low + i_problem * N * D, 0.0, 0.0,
        y + i_problem * M * D, y_low + i_problem * M * D,
        o_n, o_n < N, o_m, o_m < M, D, zero, PRECISION, False, BLOCK_D,
    )  # fmt: skip
    at = (i_problem * N + o_n[:, None]) * M + o_m[None, :]
    tl.store(cost + at, -score, mask=(o_n < N)[:, None] & (o_m < M)[None, :])


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on a GPU; 0 where it must not be asked, while a graph is captured."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return 0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def are_stored(x: Tensor, y: Tensor, kind: int, precision: str) -> bool:
    """Whether the costs of clouds ``(B, count, D)`` are made once and read by every sweep."""
    if kind not in (PairCost.DOT, PairCost.SQUARE) or x.shape[-1] <= MOST_STREAMED[precision]:
        return False
    size = x.shape[0] * x.shape[1] * y.shape[1] * x.element_size()
    return size <= SHARE * free_memory(x.device)


def stored(x: Cloud, y: Cloud, precision: str) -> tuple[Cloud, Cloud]:
    """The costs of all pairs but for the points' own parts, in the place of both clouds' points."""
    (B, N), M, D = x.own.shape, y.own.shape[1], x.points.shape[-1]
    cost = x.own.new_empty(B, N, M)
    rows, columns, features, warps, registers = TILE[precision]
    cost_kernel[(B * triton.cdiv(N, rows), triton.cdiv(M, columns))](
        x.points, x.low, y.points, y.low, cost, N, M, D, precision, rows, columns, features,
        **of_launch(x.points, warps, registers),
    )  # fmt: skip
    return Cloud(cost, cost, x.own), Cloud(cost, cost, y.own)
