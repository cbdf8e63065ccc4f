"""What the compilers made of the GPU's kernels, as data: ``python -m benchmarks.gpu.compiled CUDA TRITON``.

Takes what ``scripts/inspect_cuda.py --json CUDA`` and ``scripts/compile_triton.py --json TRITON`` wrote, and
writes ``benchmarks/results/gpu-compiled.json``: the kernels that targets are about, for one architecture.
``python -m benchmarks.tables`` shows them in docs/bench.md. No GPU takes part.
"""

import argparse
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from .sources import ROOT, commit

RESULTS = ROOT / "benchmarks" / "results" / "gpu-compiled.json"
ARCH = "sm_90"
# double precision is for tests; of Triton's the cuts that the cases take
KEPT = {
    "CUDA": r"^(?!.*double)",
    "Triton": r"^(sweep|pairs|multiply) square \S+ 64$|^sinkhorn 128$|^geodesic \w+ 16$|^basis 16 ",
}
FACTS = ("name", "registers", "threads", "shared", "blocks")


def counts_of(kernel: dict) -> dict[str, float]:
    """What was counted in a kernel's code: an iteration by kinds of instructions, loads under way at once."""
    found = {f"{kind} an iteration": number for kind, number in (kernel.get("iteration") or {}).items()}
    if kernel.get("in_flight"):
        found["loads before the first store"] = max(kernel["in_flight"])
    return {what: number for what, number in (found | (kernel.get("counts") or {})).items() if number}


def chosen(language: str, kernels: list[dict]) -> list[dict]:
    """What is shown of the kernels of one file, in the order of their names."""
    kept = [
        kernel for kernel in kernels if kernel["arch"] == ARCH and re.search(KEPT[language], kernel["name"])
    ]
    if not kept:
        raise ValueError(f"the {language} file must have kernels for {ARCH}, it has none")
    found = []
    for kernel in sorted(kept, key=lambda kernel: kernel["name"]):
        facts = {fact: kernel[fact] for fact in FACTS if kernel.get(fact)}
        if language == "CUDA":
            facts.pop("shared", None)  # its launch asks for most of it
        found.append({"language": language} | facts | {"counts": counts_of(kernel)})
    return found


def compilers() -> dict[str, str | None]:
    """The versions of nvcc, where there is one, and of Triton."""
    try:
        said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    except OSError:
        said = ""
    release = re.search(r"release ([\d.]+)", said)
    return {"nvcc": release[1] if release else None, "triton": metadata.version("triton")}


def main(arguments: list[str] | None = None) -> int:
    """Write the results file; 2 where a file is not what it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0] + ".")
    parser.add_argument("cuda", type=Path, help="what scripts/inspect_cuda.py --json wrote")
    parser.add_argument("triton", type=Path, help="what scripts/compile_triton.py --json wrote")
    options = parser.parse_args(arguments)
    try:
        kernels = [
            kernel
            for language, path in (("CUDA", options.cuda), ("Triton", options.triton))
            for kernel in chosen(language, json.loads(path.read_text()))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    facts = {"arch": ARCH, "commit": commit(), **compilers()}
    lines = ",\n".join(json.dumps(kernel) for kernel in kernels)
    RESULTS.write_text(f'{json.dumps(facts)[:-1]}, "kernels": [\n{lines}\n]}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
