#!/usr/bin/env python3
"""Compile every Triton kernel ahead of time, for GPUs that need not be there, and read what came out.

    scripts/compile_triton.py [--arch 80 86 90 100 120] [--only WORD] [--json FILE]

Fails on a register that spills, on more shared memory than a GPU of the architecture has, where a tensor
core's instruction is promised and missing, and where memory is loaded and stored with no barrier in between.
Prints a line for every binary. Triton brings all that it takes.
"""

import argparse
import inspect
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import triton
from inspect_cuda import KEPT, Kernel
from ptx_barriers import unordered
from sass import Code
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from geokernels.kernels.costs import PairCost
from geokernels.kernels.triton import (
    decompose,
    geodesic,
    geodesic_kernels,
    interpreted,
    subspace,
    transport,
    transport_clouds,
    transport_clouds_given,
    transport_clouds_products,
    transport_clouds_sweep,
    transport_small,
)
from geokernels.kernels.triton.transport_clouds_tiles import cost_of

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ARCHS = (80, 86, 90, 100, 120)
# of a block of threads, in bytes
MOST_SHARED = {80: 166_912, 86: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
TENSOR_CORE = {80: r"HMMA", 86: r"HMMA", 90: r"H?GMMA", 100: r"UTC\w*MMA", 120: r"[HQO]MMA"}
# what an argument is where its name does not say "a pointer to float32"
SCALARS = {"scale", "damping", "cooled", "heat", "reach", "rounding", "tol", "eps", "settled", "p"}
NAMES = {PairCost.SQUARE: "square", PairCost.ROOT: "root", PairCost.POWER: "power", PairCost.GIVEN: "given"}
POINTERS = dict.fromkeys(("active", "count", "count_x", "count_y", "valid", "wanted"), "*i32")


class Variant(NamedTuple):
    """A kernel as some operator launches it."""

    name: str
    kernel: triton.JITFunction
    constants: dict
    warps: int = 4
    points: str = "*fp32"
    tensor_core: bool = False
    stages: int = 3
    registers: int | None = None  # at most, of a thread


def of_clouds() -> Iterator[Variant]:
    """Transport between large clouds: every cost and precision, resident points and others."""
    sweep, products = transport_clouds_sweep, transport_clouds_products
    square = PairCost.SQUARE
    forms = [(square, precision, 64) for precision in ("fp32", "tf32", "bf16", "bf16x3")]
    forms += [(square, precision, 1024) for precision in ("fp32", "tf32", "bf16", "bf16x3")]
    forms += [(PairCost.ROOT, "fp32", 3), (PairCost.POWER, "fp32", 3), (PairCost.GIVEN, "fp32", 1)]
    for kind, precision, features in forms:
        block = transport_clouds.blocks_of(kind, precision, features)
        constants = {
            "COST": cost_of(kind, 1.5),
            "PRECISION": precision,
            "RESIDENT": features <= block.features,
            "BLOCK_N": block.rows,
            "BLOCK_M": block.columns,
            "BLOCK_D": block.features,
        }
        label = f"{NAMES[kind]} {precision} {features}"
        points = "*bf16" if precision.startswith("bf16") else "*fp32"
        form = (block.warps, points, precision != "fp32")
        yield Variant(f"sweep {label}", sweep.sweep_kernel, constants, *form, registers=block.registers)
        columns, warps, registers = transport_clouds.OF_PAIRS[precision]
        of_pairs = {**constants, "BLOCK_N": transport_clouds.ROWS, "BLOCK_M": columns}
        yield Variant(f"pairs {label}", sweep.pairs_kernel, of_pairs, warps, *form[1:], registers=registers)
        if kind == PairCost.GIVEN:
            turned = {**constants, "COST": PairCost.TURNED}
            yield Variant("sweep turned", sweep.sweep_kernel, turned, *form)
            continue
        if features == 1024:
            tile = transport_clouds_given.TILE[precision]
            cut = dict(zip(("BLOCK_N", "BLOCK_M", "BLOCK_D"), tile[:3]))
            of_cost = {"PRECISION": precision, **cut}
            kernel = transport_clouds_given.cost_kernel
            yield Variant(f"cost {label}", kernel, of_cost, tile.warps, *form[1:], registers=tile.registers)
        of_product = {**constants, "FACTOR": precision == "fp32", "BLOCK_R": 16}
        of_product["BLOCK_N"] = transport_clouds.ROWS
        of_product["BLOCK_D"] = transport_clouds.features_of_products(precision, block.features, features)
        of_product["RESIDENT"] = features <= of_product["BLOCK_D"]
        cut = transport_clouds.products_of(kind, precision)
        of_product["BLOCK_M"], of_product["BLOCK_E"], warps, registers = cut
        form = (warps, *form[1:])
        yield Variant(f"multiply {label}", products.multiply_kernel, of_product, *form, registers=registers)
        if precision == "fp32":
            of_slope = {**constants, "BLOCK_N": 32, "BLOCK_M": 64, "BLOCK_D": 16, "BLOCK_R": 16}
            of_slope = {name: of_slope[name] for name in ("COST", "BLOCK_N", "BLOCK_M", "BLOCK_D", "BLOCK_R")}
            if kind != square:
                warps, registers = transport_clouds.DIFFERENTIATING
                kernel = products.differentiate_kernel
                yield Variant(f"differentiate {label}", kernel, of_slope, warps, registers=registers)
            else:
                of_vector = {**of_product, "FACTOR": False, "BLOCK_E": 1}
                name = f"multiply vector {label}"
                yield Variant(name, products.multiply_kernel, of_vector, warps, registers=registers)
    for rows in (True, False):
        of_step = {"ROWS": rows, "BALANCED": False, "BLOCK": transport_clouds.SETTLED}
        yield Variant(f"settle {'rows' if rows else 'columns'}", sweep.settle_kernel, of_step)
        of_stop = {"BALANCED": not rows, "LEAST": 2e-6, "BLOCK": 64}
        yield Variant(f"stop {'unbalanced' if rows else 'balanced'}", sweep.stop_kernel, of_stop)


def of_small_problems() -> Iterator[Variant]:
    """Transport between small sets, of the padded sizes that occur."""
    for width in (64, 128, 256):
        rows, (warps, registers) = transport.ENTRIES // width, transport.LAUNCH
        cut = {"BLOCK_N": rows, "BLOCK_M": width}
        constants = {"BALANCED": width != 128, "LEAST": 2e-6, **cut}
        kernel = transport_small.sinkhorn_kernel
        yield Variant(f"sinkhorn {width}", kernel, constants, warps, registers=registers)
        yield Variant(f"pairs {width}", transport_small.pairs_kernel, cut, warps, registers=registers)


def of_subspaces() -> Iterator[Variant]:
    """The geodesic cosine of few directions and of the most."""
    kernels = [
        getattr(geodesic_kernels, f"{name}_kernel")
        for name in ("decompose", "cosine", "turn", "overlap", "spread")
    ]
    for block in (16, 32, 64):
        cut = {"BLOCK": block, "BLOCK_N": geodesic.BLOCK_N, "BLOCK_D": geodesic.BLOCK_D, "TERMS": 10}
        cut["BLOCK_M"] = geodesic.BLOCK_M
        for kernel in kernels:
            constants = {word: cut[word] for word in cut if word in kernel.arg_names}
            of_spread = kernel is geodesic_kernels.spread_kernel
            if of_spread:
                constants["BLOCK_D"] = geodesic.SPREAD_D
            warps, registers, stages = geodesic.spreading(block) if of_spread else geodesic.LAUNCH
            if kernel is geodesic_kernels.decompose_kernel:
                warps, registers, stages = decompose.warps_of(block, block), geodesic.DECOMPOSING, 3
            name = f"geodesic {kernel.fn.__name__} {block}"
            yield Variant(name, kernel, constants, warps, stages=stages, registers=registers)


def of_rows() -> Iterator[Variant]:
    """Bases of few rows, and of the most."""
    for N in (16, 32, 64, 128):
        block, factored, tile = subspace.cut_of(N, 1024)
        width = decompose.width_of(block)
        of_factor = {"BLOCK": block, "BLOCK_D": factored}
        for name, kernel, constants, (warps, registers) in (
            ("factor", subspace.factor_kernel, of_factor, subspace.FACTORING),
            ("combine", subspace.combine_kernel, tile, subspace.COMBINING),
        ):
            yield Variant(f"{name} {N}", kernel, constants, warps, registers=registers)
        for long in (True, False):
            constants = {"LONG": long, "BLOCK": block, "WIDTH": width}
            name = f"basis {N} of {'long' if long else 'short'} rows"
            warps, registers = subspace.turning(block, width)
            yield Variant(name, subspace.basis_kernel, constants, warps, registers=registers)


def variants() -> list[Variant]:
    """All of them; an error if a kernel of the package is in none."""
    every = [*of_clouds(), *of_small_problems(), *of_subspaces(), *of_rows()]
    held = {variant.kernel.fn.__name__ for variant in every}
    for module in (
        transport_clouds_sweep,
        transport_clouds_products,
        transport_clouds_given,
        transport_small,
        geodesic_kernels,
        subspace,
    ):
        for name, _ in inspect.getmembers(module, lambda x: isinstance(x, triton.JITFunction)):
            if name.endswith("_kernel") and name not in held:
                raise SystemExit(f"{name} of {module.__name__} is not compiled here")
    return every


def arguments_of(variant: Variant) -> list[str]:
    """What a binary is called with, in this order."""
    return [name for name in variant.kernel.arg_names if name not in variant.constants]


def type_of(name: str, points: str, names: list[str]) -> str:
    """The type of an argument, by its name."""
    if name in ("x", "x_low", "y", "y_low"):
        return points
    basis = name == "p" and "q" in names
    if name in SCALARS and not basis:
        return "fp32"
    if name == "iterations":
        return "*i32" if "max_iter" in names else "*i64"
    return POINTERS.get(
        name,
        "i32"
        if name.isupper() or name in ("width", "splits", "blocks", "blocks_columns", "max_iter")
        else "*fp32",
    )


def compiled(variant: Variant, arch: int) -> CompiledKernel:
    """One binary; addresses are multiples of 16 bytes, as torch's are."""
    names = variant.kernel.arg_names
    types = {n: "constexpr" if n in variant.constants else type_of(n, variant.points, names) for n in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if n in ("D", "width") or types[n].startswith("*")
    }
    source = ASTSource(variant.kernel, types, variant.constants, aligned)
    options = {"num_warps": variant.warps, "num_stages": variant.stages, "maxnreg": variant.registers}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def faults(variant: Variant, arch: int, binary: CompiledKernel) -> tuple[Kernel, list[str]]:
    """What a binary takes, and what is wrong with it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        code = subprocess.run(
            [TOOLS / "cuobjdump", "-res-usage", "-sass", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    registers, stack, local = (
        int(re.search(rf"{word}:(\d+)", code)[1]) for word in ("REG", "STACK", "LOCAL")
    )
    shared = binary.metadata.shared
    tensor = len(re.findall(rf"\b{TENSOR_CORE[arch]}", code))
    wrong = []
    if local or re.search(r"\b(STL|LDL)\b", code):
        wrong.append(f"spills registers to {max(local, stack)} bytes of local memory")
    if shared > MOST_SHARED[arch]:
        wrong.append(f"takes {shared} bytes of shared memory, more than {MOST_SHARED[arch]}")
    if variant.tensor_core and not tensor:
        wrong.append("has no instruction for tensor cores")
    wrong += [f"{arguments_of(variant)[i]}: {what}" for i, what in unordered(binary.asm["ptx"])]
    kernel = Kernel(f"sm_{arch}", variant.name, registers, shared + KEPT, threads=32 * variant.warps)
    kernel.count_blocks()
    kernel.shared, kernel.tensor = shared, {"all": tensor}
    kernel.counts = counts(variant, Code(code))
    return kernel, wrong


def counts(variant: Variant, code: Code) -> dict[str, float]:
    """Instructions of a thread for a pair of points, in the loop of a sweep over tiles of pairs."""
    cut = variant.constants
    loops = code.loops_with("MUFU") if variant.name.startswith("sweep") else []
    if not loops:
        return {}
    pairs = cut["BLOCK_N"] * cut["BLOCK_M"] / (32 * variant.warps)
    return {"instructions a pair": round(min(map(len, loops)) / pairs, 2)}


def spent() -> float:
    """Seconds of a processor, those of the assembler included."""
    return sum(os.times()[:4])


def outcome(of: tuple[int, int]) -> tuple[Kernel, list[str], float]:
    """What :func:`faults` says of a variant, by its number, and an architecture, and the seconds it took."""
    start, (number, arch) = spent(), of
    variant = variants()[number]
    return *faults(variant, arch, compiled(variant, arch)), spent() - start


def main() -> int:
    """Compile what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHS, choices=MOST_SHARED)
    parser.add_argument("--only", default="", help="names that contain this word")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at once; all processors")
    parser.add_argument("--json", type=Path, help="file for what was found, a kernel and architecture each")
    options = parser.parse_args()
    if interpreted:
        print("TRITON_INTERPRET is set: nothing would be compiled", file=sys.stderr)
        return 2
    chosen = [i for i, variant in enumerate(variants()) if options.only in variant.name]
    if not chosen:
        parser.error(f"no kernel's name contains {options.only!r}")
    bad, kernels, seconds = 0, [], 0.0
    tasks = [(number, arch) for number in chosen for arch in options.arch]
    # forked, as kernels cannot be sent to a process, only their numbers
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        for kernel, wrong, took in pool.imap(outcome, tasks):
            bad, kernels, seconds = bad + bool(wrong), [*kernels, asdict(kernel)], seconds + took
            usage = f"{kernel.registers:4d} registers {kernel.shared:7d} B shared {kernel.blocks:2d} blocks"
            tensor = f"{kernel.tensor['all']:4d} tensor-core instructions"
            said = "; ".join(wrong) or "ok"
            print(f"{kernel.arch:7s}{kernel.name:32s}{usage} {tensor}  {said}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(kernels, indent=1) + "\n")
    print(f"{len(kernels)} binaries, {bad} at fault, {seconds:.0f} s of one core")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
