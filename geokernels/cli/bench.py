"""``geokernels bench``."""

import importlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import console, fail, sentences
from .options import Threads, out_option

CLONE = Path(__file__).resolve().parents[2]


def bench(
    rivals: Annotated[bool, typer.Option("--rivals", help="Time other libraries too.")] = False,
    json: Annotated[
        Path | None, out_option("File for the results, written after each case.", "--json")
    ] = None,
    only: Annotated[str, typer.Option(help="Cases whose name contains this.")] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what --json has of this machine and commit, undisturbed.")
    ] = False,
    threads: Threads = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Each has cases of its own.")] = "cpu",
) -> None:
    """Time the operators, correct ones only, against what the machine can do and against other libraries."""
    with sentences(bench):
        # the cases are not installed: they belong to a commit, and import other libraries
        if not (CLONE / "benchmarks/run.py").exists():
            raise ValueError("bench needs a clone of the repository, whose benchmarks are not installed")
        if device == "cuda" and not importlib.import_module("torch").cuda.is_available():
            raise ValueError("--device cuda needs a GPU, torch sees none")
        sys.path.insert(0, str(CLONE))
        try:
            run = importlib.import_module("benchmarks.run")
        except ModuleNotFoundError as error:
            fail(f'bench needs {error.name}, which is not installed: pip install "geokernels[bench]"')
        settings = {"only": only, "rivals": rivals, "json": json, "resume": resume, "threads": threads}
        settings["device"] = device
        code = run.command(**settings, console=console())
    raise typer.Exit(code)
