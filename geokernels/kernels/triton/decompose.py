r"""Singular value decomposition of small square matrices, a program each, by one-sided Jacobi rotations.

    C = U diag(g) V^T,   C, U, V [B, K, K],   g [B, K], in no order

Columns of C are made orthogonal, all disjoint pairs of a round at once: in round r of K - 1 the columns i and
j meet where i + j = r modulo K - 1, and the one that would meet itself meets the last. A column finds its
partner by a gather, and its rotation from the three products of the two, which both see alike: no column is
told apart. What is left of a column below rounding has no direction; any that is orthogonal to the others
takes its place. Sums depend on the sizes alone.

Limits: K at most 64, a tile of K x K numbers in the registers of a program, three of them at once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..batching import lead_with_mapped_dimension
from .registration import device_of, operator, wrap_triton

MOST_SWEEPS = tl.constexpr(16)


@triton.jit
def rotations(alpha, beta, gamma, o_k, partner, rounding):
    """Cosine and sine of each column's rotation with its partner, and how far from orthogonal they were."""
    size = tl.sqrt(alpha) * tl.sqrt(beta)
    turn = tl.abs(gamma) > rounding * size
    zeta = (beta - alpha) / (2 * tl.where(turn, gamma, 1.0))
    zeta = tl.minimum(tl.maximum(zeta, -1e15), 1e15)
    sign = tl.where((zeta > 0) | ((zeta == 0) & (o_k < partner)), 1.0, -1.0)
    tangent = tl.where(turn, sign / (tl.abs(zeta) + tl.sqrt(1 + zeta * zeta)), 0.0)
    cosine = 1 / tl.sqrt(1 + tangent * tangent)
    return cosine, cosine * tangent, tl.max(tl.where(turn, tl.abs(gamma) / tl.where(turn, size, 1.0), 0.0), 0)


@triton.jit
def decompose_kernel(c, u, g, v, rounding, K, BLOCK: tl.constexpr):
    """One matrix; beyond K columns are zero and stay alone."""
    i_problem = tl.program_id(0).to(tl.int64)
    o_k = tl.arange(0, BLOCK)
    inside = (o_k[:, None] < K) & (o_k[None, :] < K)
    at = i_problem * K * K + o_k[:, None] * K + o_k[None, :]
    b_c = tl.load(c + at, mask=inside, other=0.0)
    b_v = (o_k[:, None] == o_k[None, :]).to(b_c.dtype)
    off = tl.max(tl.max(tl.abs(b_c), 0), 0)
    sweep = 0
    while (off > rounding) & (sweep < MOST_SWEEPS):
        off = off * 0.0
        for r in range(0, BLOCK - 1):
            met = (r - o_k + 2 * (BLOCK - 1)) % (BLOCK - 1)
            partner = tl.where(met == o_k, BLOCK - 1, met)
            partner = tl.where(o_k == BLOCK - 1, (r * (BLOCK // 2)) % (BLOCK - 1), partner)
            which = tl.broadcast_to(partner[None, :], [BLOCK, BLOCK])
            other = tl.gather(b_c, which, 1)
            alpha, beta, gamma = tl.sum(b_c * b_c, 0), tl.sum(other * other, 0), tl.sum(b_c * other, 0)
            cosine, sine, far = rotations(alpha, beta, gamma, o_k, partner, rounding)
            b_c = cosine[None, :] * b_c - sine[None, :] * other
            b_v = cosine[None, :] * b_v - sine[None, :] * tl.gather(b_v, which, 1)
            off = tl.maximum(off, far)
        sweep += 1

    b_g = tl.sqrt(tl.sum(b_c * b_c, 0))
    known = (b_g > K * rounding).to(tl.int32)
    b_u = tl.where(known[None, :] > 0, b_c / tl.where(known > 0, b_g, 1.0)[None, :], 0.0)
    for j in range(0, K):
        if tl.sum(tl.where(o_k == j, known, 0), 0) == 0:
            # the coordinate axis that the others see least, made orthogonal to them
            seen = tl.where(o_k < K, tl.sum(b_u * b_u, 1), 2.0)
            fresh = (o_k == tl.argmin(seen, 0)).to(b_c.dtype)
            for _ in range(0, 2):
                along = tl.sum(b_u * fresh[:, None], 0)
                fresh -= tl.sum(b_u * along[None, :], 1)
            fresh = fresh / tl.sqrt(tl.sum(fresh * fresh, 0))
            b_u = tl.where(o_k[None, :] == j, fresh[:, None], b_u)
    tl.store(u + at, b_u, mask=inside)
    tl.store(v + at, b_v, mask=inside)
    tl.store(g + i_problem * K + o_k, b_g, mask=o_k < K)


def warps_of(block: int) -> int:
    """How many warps share a matrix: so many that three of them fit the registers."""
    return 16 if block > 32 else 4


@operator("triton_decompose")
def decompose(c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``U``, ``g`` and ``V`` of ``c`` ``(..., K, K)``, without a derivative."""
    batch, K = c.shape[:-2], c.shape[-1]
    c = c.reshape(-1, K, K).contiguous()
    u, v, g = torch.empty_like(c), torch.empty_like(c), c.new_empty(c.shape[:-1])
    block = max(triton.next_power_of_2(K), 2)
    with device_of(c):
        wrap_triton(decompose_kernel)[(c.shape[0],)](
            c, u, g, v, torch.finfo(c.dtype).eps, K, block, num_warps=warps_of(block)
        )
    return u.reshape((*batch, K, K)), g.reshape((*batch, K)), v.reshape((*batch, K, K))


@decompose.register_fake
def _(c):
    return torch.empty_like(c), c.new_empty(c.shape[:-1]), torch.empty_like(c)


lead_with_mapped_dimension("triton_decompose")
