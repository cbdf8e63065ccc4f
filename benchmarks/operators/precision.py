"""Errors of Triton's transport by the precision of its products, against the definition in float64.

    TRITON_INTERPRET=1 python -m benchmarks.operators.precision --out FILE

In Triton's interpreter, or without that variable on a GPU. Fills the table of ``docs/transport.md``.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import geokernels as gk
from geokernels._files import write_json
from geokernels.kernels import triton
from geokernels.testing import cloud

from ..harness.machine import machine
from .rivals import squared_distances

N, M, D = 128, 160, 64
EPS = 0.05  # of the mean cost
STEPS = 10
PRECISIONS = {
    '`"fp32"` (the default; no tensor cores)': "fp32",
    '`"bf16x3"` (three products of two bfloat16 each)': "bf16x3",
    '`"tf32"`': "tf32",
    '`"bf16"`': "bf16",
}


def solved(x: Tensor, y: Tensor, eps: float, **options) -> tuple[Tensor, Tensor, Tensor]:
    """Value, potential and the value's gradient to x, in float64."""
    leaf = x.clone().requires_grad_()
    solution = gk.sinkhorn(leaf, y, eps=eps, tol=0.0, max_iter=STEPS, **options)
    (slope,) = torch.autograd.grad(solution.value.sum(), leaf)
    return tuple(part.detach().double().cpu() for part in (solution.value, solution.f, slope))


def errors(found: tuple[Tensor, ...], exact: tuple[Tensor, ...], eps: float) -> dict[str, float]:
    """The largest error of each, in its unit."""
    off = [(part - true).abs().max().item() for part, true in zip(found, exact, strict=True)]
    units = exact[0].abs().max().item(), eps, exact[2].abs().max().item()
    return dict(zip(("value", "potential", "gradient"), (a / b for a, b in zip(off, units)), strict=True))


def measure() -> list[dict]:
    """A row for each precision."""
    x, y = cloud(N, D, seed=0), cloud(M, D, seed=1)
    eps = EPS * squared_distances(x, y).mean().item()
    exact = solved(x, y, eps, backend="reference")
    near = [part.float() if triton.interpreted else part.float().cuda() for part in (x, y)]
    rows = [{"name": "`reference` in float32"} | errors(solved(*near, eps, backend="reference"), exact, eps)]
    for name, precision in PRECISIONS.items():
        found = solved(*near, eps, backend="triton", precision=precision)
        rows.append({"name": name} | errors(found, exact, eps))
    return rows


def as_markdown(rows: list[dict]) -> str:
    """A line for each precision, errors to one digit."""
    head = ("precision", "value, relative", "potential, in units of `eps`", "gradient of the value, relative")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        found = (f"{row[key]:.0e}".replace("e-0", "e-") for key in ("value", "potential", "gradient"))
        lines.append((row["name"], *found))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if not (triton.interpreted or torch.cuda.is_available()):
        parser.error("this needs TRITON_INTERPRET=1 or a GPU, torch sees none")
    rows = measure()
    write_json(args.out, {"rows": rows, "interpreted": triton.interpreted, "machine": machine()})
    print(as_markdown(rows))


if __name__ == "__main__":
    main()
