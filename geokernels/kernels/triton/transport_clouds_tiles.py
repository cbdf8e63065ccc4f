r"""Tiles of pairs of two clouds, as every kernel of transport between large clouds meets them.

Points are packed in units in which $2^{-C}$ stands for $e^{-C / \epsilon}$. Costs are

    gram     o_i + o_j - <x_i, y_j>, the points' own parts o being added apart
    root     |x_i - y_j|
    power    sum_d |x_id - y_jd|^p;   sizes for p = 1, squares for p = 2
    given    p times what a matrix of all pairs holds, +inf where they do not meet

gram         points [count, D], D padded with zeros to whole blocks; the product is that of the matrix units
given        x is the matrix, of rows and columns or, turned, of columns and rows
the others   points [D, count]: one feature of a tile's points at a time, differences before powers
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..costs import PairCost
from . import interpreted

INTERPRETED = tl.constexpr(interpreted)
GRAM = tl.constexpr(PairCost.DOT)  # squares too: what they have beyond a product are the points' own parts
ROOT, POWER = tl.constexpr(PairCost.ROOT), tl.constexpr(PairCost.POWER)
SIZES, SQUARES = tl.constexpr(PairCost.SIZES), tl.constexpr(PairCost.SQUARES)
GIVEN, TURNED = tl.constexpr(PairCost.GIVEN), tl.constexpr(PairCost.TURNED)
LOG2_E = math.log2(math.e)
MOST_POWER = tl.constexpr(100.0)  # of two, where nothing else bounds it


class Blocks(NamedTuple):
    """A program's tile, the warps that share it, and the most registers of a thread.

    Chosen so that no register spills; not tuned.
    """

    rows: int
    columns: int
    features: int
    warps: int
    registers: int | None = None  # registration.py, of_launch


class Cloud(NamedTuple):
    """Packed points, what ``bf16x3`` keeps of their rounding, and ``own`` parts of costs ``(B, count)``."""

    points: Tensor
    low: Tensor
    own: Tensor


def round_tf32(x: Tensor) -> Tensor:
    """The nearest numbers with 10 bits after the point, halves away from zero."""
    return ((x.view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)


def split(x: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Rounded to what the matrix units take, and the rest where it counts, else the same again."""
    if x.dtype == torch.float64 or precision == "fp32":
        return x, x
    if precision == "tf32":
        x = round_tf32(x)
        return x, x
    high = x.bfloat16()
    return high, (x - high.float()).bfloat16() if precision == "bf16x3" else high


def pack(x: Tensor, y: Tensor, kind: int, p: float, precision: str, features: int) -> tuple[Cloud, Cloud]:
    """Both clouds ``(B, count, D)``, as the kernels read them.

    Under a product they come around their centres before anything is rounded, and own parts are those of the
    rounded points.

    Args:
        x: Points in units of eps.
        y: The other points.
        kind: A number of :class:`~geokernels.kernels.costs.PairCost`; ``SQUARE`` is half the square.
        p: The power.
        precision: One of ``geokernels.kernels.triton.PRECISIONS``.
        features: What the number of features is padded to a multiple of, under a product.
    """
    if kind in (PairCost.ROOT, PairCost.POWER):
        scale = LOG2_E if kind == PairCost.ROOT else LOG2_E ** (1 / p)
        clouds = [(scale * part).mT.contiguous() for part in (x, y)]
        return tuple(Cloud(part, part, part.new_zeros(part.shape[0], part.shape[2])) for part in clouds)
    x, y = (math.sqrt(LOG2_E) * part for part in (x, y))
    centres = [part.mean(-2, keepdim=True) for part in (x, y)]
    if kind == PairCost.SQUARE:
        centres = [(centres[0] + centres[1]) / 2] * 2
    else:
        # <x, y> = <x - c, y - c'> + <x, c'> + <c, y> - <c, c'>
        own = [-(x @ centres[1].mT)[..., 0] + (centres[0] * centres[1]).sum(-1), -(y @ centres[0].mT)[..., 0]]
    padding = (0, -x.shape[-1] % features)
    packed = []
    for k, part in enumerate((x, y)):
        points = torch.nn.functional.pad(part - centres[k], padding)
        high, low = split(points, precision)
        if kind == PairCost.SQUARE:
            whole = high.to(x.dtype) + low.to(x.dtype) if precision == "bf16x3" else high.to(x.dtype)
            of_points = whole.square().sum(-1) / 2
        else:
            of_points = own[k]
        packed.append(Cloud(high.contiguous(), low.contiguous(), of_points.contiguous()))
    return tuple(packed)


def cost_of(kind: int, p: float) -> int:
    """The cost of a tile, by its constant above."""
    if kind == PairCost.POWER:
        return {1.0: SIZES, 2.0: SQUARES}.get(p, POWER).value
    return kind if kind in (PairCost.ROOT, PairCost.GIVEN) else GRAM.value


@triton.jit
def to_bf16(x):
    """The nearest bfloat16; in the interpreter, which does not round, its value in float32."""
    if INTERPRETED:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        return bits.to(tl.float32, bitcast=True)
    else:
        return x.to(tl.bfloat16)


@triton.jit
def add_product(x, y, to, PRECISION: tl.constexpr):
    """``to + x @ y`` of rounded tiles, summed in float32 or float64.

    A sum takes the products of one call in a loop: two that follow each other into one are wrong on Blackwell
    under Triton 3.6 to 3.8 (triton-lang/triton, issue 10821).
    """
    if INTERPRETED and (PRECISION == "bf16" or PRECISION == "bf16x3"):
        # the interpreter multiplies the bits of bfloat16
        x = x.to(tl.float32)
        y = y.to(tl.float32)
    if PRECISION == "tf32":
        return tl.dot(x, y, to, input_precision="tf32")
    else:
        return tl.dot(x, y, to, input_precision="ieee", out_dtype=to.dtype)


@triton.jit
def together(products, of_x_low, of_y_low):
    """What three sums of products make, the small ones first."""
    # by multiply-adds: the compiler takes a product that is added to a sum for one more of its terms
    one = tl.full(products.shape, 1.0, products.dtype)
    return tl.fma(tl.fma(of_x_low, one, of_y_low), one, products)


@triton.jit
def bounded_power(x):
    """``2^x``, or the largest that is worked with; a NaN stays one, which a GPU's other minimum drops."""
    return tl.exp2(tl.minimum(x, MOST_POWER, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def load_points(points, o_row, m_row, o_d, D):
    """A tile [rows, features] of points [count, D]."""
    return tl.load(points + o_row[:, None].to(tl.int64) * D + o_d[None, :], mask=m_row[:, None], other=0.0)


@triton.jit
def products(
    x, x_low, b_x, b_x_low, y, y_low, o_n, m_n, o_m, m_m, D, zero,
    PRECISION: tl.constexpr, RESIDENT: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """<x_i, y_j> of a tile."""
    o_d = tl.arange(0, BLOCK_D)
    at = o_m[None, :].to(tl.int64) * D + o_d[:, None]
    score = zero
    of_x_low = zero
    of_y_low = zero
    if RESIDENT:
        # no loop, so that the next tile's points are loaded while this one is worked on
        b_y = tl.load(y + at, mask=m_m[None, :], other=0.0)
        score = add_product(b_x, b_y, score, PRECISION)
        if PRECISION == "bf16x3":
            b_y_low = tl.load(y_low + at, mask=m_m[None, :], other=0.0)
            of_x_low = add_product(b_x_low, b_y, of_x_low, PRECISION)
            of_y_low = add_product(b_x, b_y_low, of_y_low, PRECISION)
    else:
        for d in range(0, D, BLOCK_D):
            b_y = tl.load(y + at + d, mask=m_m[None, :], other=0.0)
            part = load_points(x + d, o_n, m_n, o_d, D)
            score = add_product(part, b_y, score, PRECISION)
            if PRECISION == "bf16x3":
                part_low = load_points(x_low + d, o_n, m_n, o_d, D)
                b_y_low = tl.load(y_low + at + d, mask=m_m[None, :], other=0.0)
                of_x_low = add_product(part_low, b_y, of_x_low, PRECISION)
                of_y_low = add_product(part, b_y_low, of_y_low, PRECISION)
    if PRECISION == "bf16x3":
        score = together(score, of_x_low, of_y_low)
    return score


@triton.jit
def scores(
    x, x_low, b_x, b_x_low, y, y_low, o_n, m_n, o_m, m_m, N, M, D, p, zero,
    COST: tl.constexpr, PRECISION: tl.constexpr, RESIDENT: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Minus the costs of a tile of pairs [rows, columns], without own parts; ``zero`` is such a tile.

    With ``RESIDENT`` all features fit into one block, and ``b_x`` has the rows' points.
    """
    if COST == GRAM:
        return products(
            x, x_low, b_x, b_x_low, y, y_low, o_n, m_n, o_m, m_m, D, zero, PRECISION, RESIDENT, BLOCK_D
        )
    elif COST >= GIVEN:
        at = o_n[:, None].to(tl.int64) * M + o_m[None, :]
        if COST == TURNED:
            at = o_m[None, :].to(tl.int64) * N + o_n[:, None]
        # bounds of the matrix and not of a problem in it: where they are multiples, vectors are loaded whole
        inside = (o_n < N)[:, None] & (o_m < M)[None, :]
        return -p * tl.load(x + at, mask=inside, other=float("inf"))
    else:
        score = zero
        x_at = x + o_n
        y_at = y + o_m
        for _ in range(0, D):
            x_d = tl.load(x_at, mask=m_n, other=0.0)
            y_d = tl.load(y_at, mask=m_m, other=0.0)
            apart = tl.abs(x_d[:, None] - y_d[None, :])
            x_at += N
            y_at += M
            if COST == SIZES:
                score -= apart
            elif COST == POWER:
                some = apart > 0
                score -= tl.where(some, tl.exp2(p * tl.log2(tl.where(some, apart, 1.0))), 0.0)
            else:
                score -= apart * apart
        if COST == ROOT:
            score = -tl.sqrt(-score)
        return score
