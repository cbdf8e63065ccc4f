"""The tables of docs/bench.md on GPUs: targets with their floors, what the compilers made of the kernels."""

from collections.abc import Callable, Sequence

from ..harness import rows as results
from .floors import H200, TARGETS

AsTable = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def amount(value: float, unit: str) -> str:
    """A count in the thousands that suit it, or nothing for none."""
    if not value:
        return ""
    prefix, scale = next((p, s) for p, s in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if value >= s or p == "k")
    return f"{value / scale:.3g} {prefix}{unit}"


def measured(case: str, contents: dict | None) -> str:
    """What a run on a GPU took, and how much longer the fastest rival."""
    rows = results.by_case(contents["rows"]).get(case) if contents else None
    if not rows or results.cost_of(results.ours(rows)) is None:
        return "not measured"
    against = results.ratio(rows)
    versus = f", {against:.3g} x faster than {results.best_rival(rows)['name']}" if against else ""
    return f"{results.seconds(results.cost_of(results.ours(rows)))} ({rows[0]['gpu']}){versus}"


def targets(contents: dict | None, as_table: AsTable) -> str:
    """A line for every target; ``contents`` is the results file of a GPU, or None."""
    head = (
        "work",
        "target",
        "measured",
        "bytes",
        "products",
        "float32",
        "exponentials",
        "floor by arithmetic",
    )
    lines = []
    for target in TARGETS:
        seconds, slowest = target.floor(H200)
        counted = (
            amount(target.bytes, "B"), amount(target.products, "FLOP"), amount(target.flops, "FLOP"),
            amount(target.exps, ""),
        )  # fmt: skip
        floor = f"{results.seconds(seconds)}, {slowest}"
        lines.append((target.work, target.asked, measured(target.case, contents), *counted, floor))
    return as_table(head, lines)


def kernels(contents: dict, as_table: AsTable) -> str:
    """A line for every kernel that was compiled, with what was counted in its code."""
    made = f"nvcc {contents['nvcc']}, Triton {contents['triton']}, {contents['arch']}"
    head = ("kernel", "registers", "threads", "shared memory", "blocks an SM", "counted in its code")
    lines = []
    for kernel in contents["kernels"]:
        shared = f"{kernel['shared'] / 1024:.3g} KB" if "shared" in kernel else ""
        counts = "; ".join(f"{what} {number:.4g}" for what, number in kernel.get("counts", {}).items())
        facts = (str(kernel.get(fact, "")) for fact in ("registers", "threads"))
        name = f"`{kernel['name']}`, {kernel['language']}"
        lines.append((name, *facts, shared, str(kernel.get("blocks", "")), counts))
    return f"{made}.\n\n{as_table(head, lines)}"
