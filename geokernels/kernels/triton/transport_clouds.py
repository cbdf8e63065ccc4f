"""Sinkhorn's iteration between large clouds: the loop of launches, stopping on the device.

Each problem of a batch stops by itself, and its programs return at once from then on. The loop ends some
launches after the last of them, as geokernels/reference/early_stop.py says. The meaning of error and value is
that of the compiled kernel for the CPU, csrc/cpu/transport_clouds_iteration.h.
"""

import math

import torch
import triton
from torch import Tensor

from ...reference.early_stop import Watch
from ...reference.potentials import LEAST_LIFT, level_of, unresolved, value_of_pairs, weights_of
from .._ops import full_name
from ..costs import PairCost
from ..transport_clouds_derivatives import solve_adjoint
from ..transport_clouds_registration import register
from . import PRECISIONS
from .registration import device_of, of_launch, opaque, operator, wrap_triton
from .transport_clouds_given import are_stored, stored
from .transport_clouds_products import differentiate_kernel, multiply_kernel
from .transport_clouds_sweep import PADDED, pairs_kernel, settle_kernel, stop_kernel, sweep_kernel
from .transport_clouds_tiles import LOG2_E, Blocks, Cloud, cost_of, pack

ROWS = 64  # of tiles but those of a sweep
# of a program of multiply_kernel: most columns of its tiles and of its result, its warps and registers
OF_PRODUCTS = {
    "fp32": (32, 32, 8, None),
    "tf32": (64, 64, 4, None),
    "bf16": (64, 64, 4, None),
    "bf16x3": (32, 32, 8, 255),
}
# of a program of pairs_kernel: most columns of its tiles, its warps and registers
OF_PAIRS = {"fp32": (16, 8, 168), "tf32": (16, 4, 168), "bf16": (16, 4, 168), "bf16x3": (16, 8, 168)}
SETTLED = 256  # points of a program of settle_kernel
DIFFERENTIATING = 8, 255  # warps and registers of differentiate_kernel
ENOUGH_PROGRAMS = 512  # columns are split below this number


def blocks_of(kind: int, precision: str, D: int) -> Blocks:
    """The tile of a sweep: all features of its rows where they fit; smaller without tensor cores."""
    if kind == PairCost.GIVEN:
        return Blocks(64, 32, 1, 8, 128)
    if kind in (PairCost.ROOT, PairCost.POWER):
        return Blocks(64, 32, 1, 4, 168)
    features = max(triton.next_power_of_2(D), 16)
    resident = features <= (128 if precision == "bf16" else 64)
    rows = 128 if precision == "bf16" and features <= 64 else 64
    columns = 32 if precision == "fp32" or (precision == "bf16x3" and not resident) else 64
    if precision == "fp32":
        return Blocks(rows, columns, *((features, 8, 168) if resident else (16, 8)))
    if resident:
        return Blocks(rows, columns, features, 4, {"tf32": 168, "bf16": 192, "bf16x3": None}[precision])
    return Blocks(rows, columns, 32, 4, {"tf32": None, "bf16": 168, "bf16x3": 255}[precision])


def products_of(kind: int, precision: str) -> tuple[int, int, int, int | None]:
    """Of a program of multiply_kernel, as ``OF_PRODUCTS`` says; a cost that is no product needs more."""
    *cut, registers = OF_PRODUCTS[precision]
    return *cut, 255 if kind in (PairCost.ROOT, PairCost.POWER) else registers


def features_of_products(precision: str, features: int, D: int) -> int:
    """Of a block of multiply_kernel, by those of a sweep's."""
    return min(max(triton.next_power_of_2(D), 16), 32) if precision == "fp32" and features > 1 else features


class Side:
    """One cloud in the course of the iteration; all that has a row for every problem of the batch."""

    def __init__(self, cloud: Cloud, weight: Tensor, count: Tensor | None, sound: Tensor):
        self.cloud, self.weight = cloud, weight
        B, self.size = weight.shape
        self.count = weight.new_full((B,), self.size, dtype=torch.int32) if count is None else count.int()
        self.log_weight = weight.log2()
        # where the last step led is not known yet
        self.potential, self.raw = torch.zeros_like(weight), torch.full_like(weight, math.nan)
        padded = triton.cdiv(self.size, PADDED.value) * PADDED.value
        self.bias = weight.new_full((B, padded), -math.inf)
        self.mass = weight.double().sum(-1)
        self.valid = ((weight >= 0) & weight.isfinite()).all(-1) & (self.mass > 0)
        self.valid &= sound

    def present(self, heat: float) -> None:
        """Let sweeps at ``heat`` meet these points at their potentials."""
        bias = self.log_weight + (self.potential - self.cloud.own) / heat
        self.bias[:, : self.size] = bias.masked_fill(self.potential == math.inf, -math.inf)

    def gain(self, potential: Tensor, reach: float) -> Tensor:
        """What this side adds to the dual value, in float64."""
        gained = potential if reach == math.inf else -reach * torch.expm1(-potential / reach)
        return torch.where(self.weight > 0, self.weight * gained, 0).sum(-1)


class _Iteration:
    """All problems of a batch, half-step by half-step; potentials are in units of eps / log2(e)."""

    def __init__(self, rows: Side, columns: Side, D: int, kind: int, p: float, reach: float, precision: str):
        self.rows, self.columns = rows, columns
        self.kind, self.p, self.reach, self.precision = kind, p, reach, precision
        weight = rows.weight
        self.blocks = blocks_of(kind, precision, D)
        self.D = D if self.blocks.features == 1 else rows.cloud.points.shape[-1]
        B = weight.shape[0]
        self.solvable = rows.valid & columns.valid
        self.active = self.solvable.int()
        self.error = weight.new_full((B,), math.nan)
        self.iterations = torch.zeros(B, dtype=torch.int64, device=weight.device)
        self.wrong = weight.new_zeros(2, B, triton.cdiv(rows.size, SETTLED))
        self.of_columns = weight.new_zeros(B, triton.cdiv(columns.size, SETTLED))
        self.lift = weight.new_zeros(B)
        self.sums = {}

    def damping(self, heat: float) -> float:
        """What a potential is of the soft minimum."""
        return 1.0 if self.reach == math.inf else self.reach / (self.reach + heat)

    def cost_of(self, rows: Side) -> int:
        """The cost of tiles with these rows."""
        if self.kind == PairCost.GIVEN:
            return PairCost.GIVEN if rows is self.rows else PairCost.TURNED
        return cost_of(self.kind, self.p)

    def sweep(self, rows: Side, columns: Side, heat: float, active: Tensor) -> tuple:
        """The sums of all rows over all columns."""
        blocks, B = self.blocks, rows.weight.shape[0]
        programs = B * triton.cdiv(rows.size, blocks.rows)
        tiles = triton.cdiv(columns.size, blocks.columns)
        width = triton.cdiv(tiles, min(triton.cdiv(ENOUGH_PROGRAMS, programs), triton.cdiv(tiles, 4)))
        splits = triton.cdiv(tiles, width)
        if id(rows) not in self.sums:
            self.sums[id(rows)] = [rows.weight.new_empty(splits, *rows.weight.shape) for _ in range(2)]
        top, total = self.sums[id(rows)]
        cost = self.cost_of(rows)
        registers = None if cost == PairCost.TURNED else blocks.registers
        sweep_kernel[programs, splits](
            rows.cloud.points, rows.cloud.low, columns.cloud.points, columns.cloud.low,
            rows.cloud.own, rows.raw, columns.bias, active, rows.count, columns.count, top, total,
            1 / heat, self.p, rows.size, columns.size, self.D or columns.size, width * blocks.columns,
            cost, self.precision, blocks.features >= self.D,
            blocks.rows, blocks.columns, blocks.features, **of_launch(total, blocks.warps, registers),
        )  # fmt: skip
        return top, total, splits

    def half_step(self, side: Side, heat: float, following: float) -> None:
        """A sweep over the other side's points, which moves a side; the next sweep is at ``following``."""
        other = self.columns if side is self.rows else self.rows
        top, total, splits = self.sweep(side, other, heat, self.active)
        B = side.weight.shape[0]
        settle_kernel[(B * triton.cdiv(side.size, SETTLED),)](
            top, total, side.cloud.own, side.weight, side.log_weight, side.potential, side.raw, side.bias,
            self.wrong, self.of_columns, self.lift, self.active, side.count,
            self.damping(heat), heat, 1 / following, self.reach,
            # storing both potentials, twice with the constant that balanced ones are moved by
            2 * torch.finfo(side.weight.dtype).eps / LOG2_E, B, side.size, splits,
            side is self.rows, self.reach == math.inf, SETTLED,
        )  # fmt: skip

    def run(self, hot: float, cooling: float, max_iter: int, tol: float) -> None:
        """Pairs of half-steps, first at larger regularisations, then until each problem's error is small."""
        heats = []
        while hot > 1 and len(heats) + 1 < max_iter:
            heats.append(hot)
            hot = max(hot * cooling, 1.0)
        self.columns.present((*heats, 1.0)[0])
        for heat, following in zip(heats, (*heats[1:], 1.0)):
            self.half_step(self.rows, heat, heat)
            self.half_step(self.columns, heat, following)
        self.half_step(self.rows, 1.0, 1.0)
        watch = Watch()
        for _ in range(max_iter - len(heats)):
            self.half_step(self.columns, 1.0, 1.0)
            self.half_step(self.rows, 1.0, 1.0)
            stop_kernel[(self.wrong.shape[1],)](
                self.wrong, self.of_columns, self.lift, self.error, self.iterations, self.active,
                tol, self.reach, self.wrong.shape[-1], self.of_columns.shape[-1], self.reach == math.inf,
                LEAST_LIFT * torch.finfo(self.wrong.dtype).eps, 64,
            )  # fmt: skip
            if watch.ended(self.active):
                break
        self.iterations += len(heats)

    def pairs(self, wanted: Tensor) -> Tensor:
        """Sums over the pairs of some problems, ``(3, B)`` in float64, as ``value_of_pairs`` takes them."""
        rows, columns, blocks = self.rows, self.columns, self.blocks
        columns_of_tile, warps, registers = OF_PAIRS[self.precision]
        B = rows.weight.shape[0]
        sums = rows.weight.new_full((3, B, rows.size), math.inf)
        level = LOG2_E * level_of(rows.weight, self.reach)[:, None]
        pairs_kernel[(B * triton.cdiv(rows.size, ROWS),)](
            rows.cloud.points, rows.cloud.low, columns.cloud.points, columns.cloud.low,
            rows.cloud.own, columns.cloud.own, (rows.potential + level).to(rows.weight.dtype).contiguous(),
            columns.potential.contiguous(), columns.weight, wanted.int(), rows.count, columns.count, sums,
            self.p, rows.size, columns.size, self.D or columns.size,
            self.cost_of(rows), self.precision, blocks.features >= self.D,
            ROWS, columns_of_tile, blocks.features, **of_launch(sums, warps, registers),
        )  # fmt: skip
        sums = torch.where(rows.weight > 0, rows.weight.double() * sums, 0).sum(-1)
        return torch.stack([sums[0] / LOG2_E, sums[1], sums[2]])

    def measured(self, side: Side, other: Side, doubtful: Tensor) -> Tensor:
        """L1 distance of a side's marginal from what it should be, for the potentials as they are."""
        other.present(1.0)
        top, total, splits = self.sweep(side, other, 1.0, doubtful.int())
        met = doubtful[:, None] & (side.weight > 0)
        top, total = (torch.where(met, part, 1)[:splits] for part in (top, total))
        most = top.amax(0)
        share = (total * torch.exp2(top - most)).sum(0) * torch.exp2(side.potential - side.cloud.own + most)
        wanted = 1 if self.reach == math.inf else torch.exp2(-side.potential / self.reach)
        return torch.where(met, side.weight * (share - wanted).abs(), 0).sum(-1)

    def finish(self, tol: float) -> Tensor:
        """The value; potentials of points without mass; the constant that balanced potentials are free in."""
        rows, columns = self.rows, self.columns
        rows.potential = torch.where(rows.weight > 0, rows.potential, self.damping(1.0) * rows.raw)
        reach = self.reach * LOG2_E
        of_rows, of_columns = (side.gain(side.potential.double(), reach) for side in (rows, columns))
        product = rows.mass * columns.mass
        # the columns' sums are what they should be after their step
        value = of_rows + of_columns + LOG2_E * (product - columns.mass) + of_columns / self.reach
        value = value / LOG2_E
        sums = self.pairs(self.solvable & (value.abs() < product))
        weights, potentials = (rows.weight, columns.weight), (rows.potential, columns.potential)
        value = value_of_pairs(value, *weights, *(part / LOG2_E for part in potentials), self.reach, *sums)
        if self.reach < math.inf:
            return value
        shift = ((of_columns - of_rows) / (rows.mass + columns.mass))[:, None]
        shift = torch.where(shift.isfinite(), shift, 0)
        exact = rows.potential.double() + shift, columns.potential.double() - shift
        lost = 0
        for side, potential in zip((rows, columns), exact):
            side.potential = potential.to(side.weight.dtype)
            off = (side.potential - potential).abs()
            lost = lost + torch.where(side.weight > 0, side.weight * off, 0).sum(-1) / LOG2_E
        doubtful = (2 * lost > tol / 8) & self.error.isfinite()
        errors = self.measured(rows, columns, doubtful) + self.measured(columns, rows, doubtful)
        self.error = torch.where(doubtful, errors, self.error)
        return value


def solve_sides(rows: Side, columns: Side, start, D, kind, p, reach, hot, cooling, max_iter, tol, precision):
    """What ``sinkhorn_clouds`` returns, of problems in one batch dimension."""
    if start is not None:
        columns.potential = torch.where(start.isfinite(), start * LOG2_E, 0).contiguous()
    dtype = rows.weight.dtype
    run = _Iteration(rows, columns, D, kind, p, reach, precision)
    run.run(hot, cooling, max_iter, tol)
    value = run.finish(tol)
    potentials = rows.potential, columns.potential
    lost = unresolved(*potentials, rows.weight, columns.weight, LOG2_E, torch.finfo(dtype).eps)
    run.error = run.error.masked_fill(lost, math.nan)
    valid = rows.valid & columns.valid & ~lost
    potentials = []
    for side in (rows, columns):
        potential = torch.where(valid[:, None], side.potential / LOG2_E, math.nan)
        beyond = torch.arange(side.size, device=potential.device) >= side.count[:, None]
        potentials.append(potential.masked_fill(beyond, 0))
    return torch.where(valid, value, math.nan).to(dtype), *potentials, run.error, run.iterations


def _solve(x, y, a, b, n, m, start, kind, p, reach, hot, cooling, max_iter, tol, precision):
    """:func:`sinkhorn_clouds` on clouds ``(B, N, D)``."""
    a, b = weights_of(x, (x.shape[-2], y.shape[-2]), a, b, n, m)
    D = x.shape[-1]
    clouds = pack(x, y, kind, p, precision, blocks_of(kind, precision, D).features)
    sound = [of.points.isfinite().flatten(1).all(-1) & of.own.isfinite().all(-1) for of in clouds]
    if are_stored(x, y, kind, precision):
        clouds, D, kind, p, precision = stored(*clouds, precision), 0, PairCost.GIVEN, 1.0, "fp32"
    rows, columns = (Side(*of) for of in zip(clouds, (a, b), (n, m), sound))
    return solve_sides(rows, columns, start, D, kind, p, reach, hot, cooling, max_iter, tol, precision)


@opaque(full_name("triton_sinkhorn_clouds"), mutates_args=())
def sinkhorn_clouds(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    n: Tensor | None,
    m: Tensor | None,
    start: Tensor | None,
    cost: int,
    p: float,
    reach: float,
    hot: float,
    cooling: float,
    max_iter: int,
    tol: float,
    precision: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``geokernels::sinkhorn_clouds``, with the precision of products as a number of ``PRECISIONS``."""
    batch = x.shape[:-2]
    parts = x.flatten(0, -3) if batch else x[None], y.flatten(0, -3) if batch else y[None]
    vectors = [None if part is None else part.reshape(-1, part.shape[-1]) for part in (a, b)]
    counts = [None if part is None else part.reshape(-1) for part in (n, m)]
    begin = None if start is None else start.reshape(-1, start.shape[-1])
    settings = cost, p, reach, hot, cooling, max_iter, tol, PRECISIONS[precision]
    with device_of(x):
        solution = _solve(*parts, *vectors, *counts, begin, *settings)
    return tuple(part.reshape((*batch, *part.shape[1:])) for part in solution)


def _biases(f: Tensor, g: Tensor, x: Cloud, y: Cloud) -> tuple[Tensor, Tensor]:
    return tuple((LOG2_E * part - cloud.own).contiguous() for part, cloud in ((f, x), (g, y)))


def _flat(*parts: Tensor | None) -> list[Tensor | None]:
    """With one batch dimension, each its last ``rank`` dimensions kept."""
    return [part if part is None else part.reshape(-1, *part.shape[-2:]).contiguous() for part in parts]


@operator("triton_multiply_clouds")
def multiply_clouds(
    x: Tensor,
    y: Tensor,
    f: Tensor,
    g: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    v: Tensor,
    cost: int,
    p: float,
    precision: int,
) -> Tensor:
    """``geokernels::multiply_clouds``, with the precision of products as a number of ``PRECISIONS``."""
    kind, of_products = cost, PRECISIONS[precision]
    out = v.new_empty((*x.shape[:-1], v.shape[-1]))
    E = v.shape[-1]
    x, y, left, right, v = _flat(x, y, left, right, v)
    f, g = (part.reshape(-1, part.shape[-1]) for part in (f, g))
    blocks = blocks_of(kind, of_products, x.shape[-1])
    features = features_of_products(of_products, blocks.features, x.shape[-1])
    rows, columns = pack(x, y, kind, p, of_products, features)
    D = x.shape[-1] if features == 1 else rows.points.shape[-1]
    biases = _biases(f, g, rows, columns)
    B, N = f.shape
    columns_of_tile, most, warps, registers = products_of(kind, of_products)
    block = 1 if E == 1 else min(max(triton.next_power_of_2(E), 16), most)
    with device_of(x):
        wrap_triton(multiply_kernel)[(B * triton.cdiv(N, ROWS), triton.cdiv(E, block))](
            rows.points, rows.low, columns.points, columns.low, *biases,
            v if left is None else left, v if left is None else right, v, out,
            p, N, g.shape[-1], D, 1 if left is None else left.shape[-1], E,
            cost_of(kind, p), of_products, features >= D, left is not None,
            ROWS, columns_of_tile, features, 16, block, **of_launch(x, warps, registers),
        )  # fmt: skip
    return out


@operator("triton_differentiate_clouds")
def differentiate_clouds(
    x: Tensor,
    y: Tensor,
    f: Tensor,
    g: Tensor,
    left: Tensor,
    right: Tensor,
    cost: int,
    p: float,
    precision: int,
) -> Tensor:
    """``geokernels::differentiate_clouds``; its costs are no products, and ``precision`` says nothing."""
    kind = cost
    out = x.new_empty(x.shape)
    x, y, left, right = _flat(x, y, left, right)
    f, g = (part.reshape(-1, part.shape[-1]) for part in (f, g))
    rows, columns = pack(x, y, kind, p, "fp32", 1)
    B, N, D = x.shape
    block = min(max(triton.next_power_of_2(D), 2), 16)
    with device_of(x):
        wrap_triton(differentiate_kernel)[(B * triton.cdiv(N, 32), triton.cdiv(D, block))](
            rows.points, columns.points, *_biases(f, g, rows, columns), left, right, out,
            p, N, g.shape[-1], D, left.shape[-1], cost_of(kind, p), 32, 64, block, 16,
            **of_launch(x, *DIFFERENTIATING),
        )  # fmt: skip
    # a root's slope does not see the unit of the points
    return out if kind == PairCost.ROOT else out * LOG2_E ** ((1 - p) / p)


TRITON = "triton_"  # what the names of its operators begin with


@opaque(full_name("triton_solve_adjoint_clouds"), mutates_args=())
def _adjoint(
    x: Tensor,
    y: Tensor,
    f: Tensor,
    g: Tensor,
    a: Tensor,
    b: Tensor,
    grad_f: Tensor,
    grad_g: Tensor,
    cost: int,
    p: float,
    reach: float,
    precision: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return solve_adjoint(x, y, f, g, a, b, grad_f, grad_g, reach, TRITON, cost, p, precision)


register(TRITON)
