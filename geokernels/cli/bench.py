"""``geokernels bench``."""

from pathlib import Path
from typing import Annotated

import typer

from ..kernels import native
from .clone import Stopped, run_benchmarks
from .console import sentences
from .options import Threads, out_option


def bench(
    rivals: Annotated[bool, typer.Option("--rivals", help="Time other libraries too.")] = False,
    json: Annotated[
        Path | None, out_option("File for the results, written after each case.", "--json")
    ] = None,
    only: Annotated[str, typer.Option(help="Run only the cases whose name contains this text.")] = "",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Measure only what --json lacks: undisturbed results of this machine and commit stay.",
        ),
    ] = False,
    threads: Threads = None,
    simd: Annotated[
        str | None,
        typer.Option(help="Keep ours, torch and JAX to this SIMD level, such as avx2; else the widest."),
    ] = None,
    device: Annotated[str, typer.Option(help="Which cases to run: those for cpu, or for cuda.")] = "cpu",
) -> None:
    """Time the operators against the machine's peak and against other libraries.

    A case is timed only if its result is correct. All CPU threads are used, unless --threads says otherwise.
    Needs a clone of the repository.
    """
    options = ["--only", only, "--device", device]
    options += [] if json is None else ["--json", str(json)]
    options += [] if threads is None else ["--threads", str(threads)]
    options += [] if simd is None else ["--simd", simd]
    options += [*(["--rivals"] if rivals else []), *(["--resume"] if resume else [])]
    with sentences(bench):
        if device not in ("cpu", "cuda"):
            raise ValueError(f"--device must be cpu or cuda, got {device!r}")
        if simd is not None:
            native.require_simd_level("--simd", simd)
        try:
            run_benchmarks(options)
        except Stopped as stopped:
            raise typer.Exit(stopped.code) from None
