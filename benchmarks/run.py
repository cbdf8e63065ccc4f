"""Measure the operators, beside their rivals if asked: what ``geokernels bench`` runs."""

import argparse
import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from geokernels.environment import versions

from .harness import rows as results
from .harness.case import Case
from .harness.machine import Peaks, hold_to, machine
from .harness.timing import Canary, measure
from .operators import assignment as assignment_cases
from .operators import clouds as cloud_cases
from .operators import curves, memory
from .operators import exact as exact_cases
from .operators import geodesic as geodesic_cases
from .operators import gpu as gpu_cases
from .operators import transport as transport_cases

INTERRUPTED = 130
# what contenders run on, as pip calls it; OTT-JAX runs on JAX
LIBRARIES = "torch", "numpy", "scipy", "POT", "geomloss", "pykeops", "ott-jax", "jax", "lapx"

Jobs = dict[str, Callable[[], list[dict]]]


def all_cases(device: str = "cpu") -> list[Case]:
    """Every case that is timed on a device, the table's first."""
    if device == "cuda":
        return gpu_cases.cases()
    families = transport_cases, assignment_cases, exact_cases, cloud_cases, geodesic_cases, curves
    return [case for family in families for case in family.cases()]


def jobs(peaks: Callable[[int, str], Peaks], *, only: str, rivals: bool, device: str = "cpu") -> Jobs:
    """What to measure, by name of the case.

    Raises:
        ValueError: If ``only`` occurs in no name.
    """
    canary, known = Canary(device), {}
    for case in all_cases(device):
        count = case.threads or torch.get_num_threads()
        known[case.name] = partial(_timed, case, canary, peaks, count, rivals)
    for features in cloud_cases.FEATURES if device == "cpu" else ():
        known[memory.case_name(features)] = partial(memory.measure, features, rivals=rivals)
    kept = {name: job for name, job in known.items() if only in name}
    if not kept:
        raise ValueError(f"--only must occur in the name of a case, got {only!r}")
    return kept


def _timed(case: Case, canary: Canary, peaks: Callable, count: int, rivals: bool) -> list[dict]:
    rows = measure(case, canary=canary, peaks=peaks(count, case.device), rivals=rivals)
    return [row | {"on_threads": count} for row in rows]


def table(rows: list[dict]) -> Table:
    """One case as a table: who, how long, how wrong, how far above the floor."""
    shown = Table(
        title=rows[0]["case"], caption=rows[0]["reason"], title_justify="left", caption_justify="left"
    )
    for column in ("", "median", "quarters", "error", "over floor"):
        shown.add_column(column, justify="left" if not column else "right")
    for row in rows:
        error = f"{row['error']:.1e}" if "error" in row else ""
        if "why" in row:
            shown.add_row(f"{row['side']}: {row['name']}", row["why"], "", error, "")
        elif "megabytes" in row:
            shown.add_row(f"{row['side']}: {row['name']}", f"{row['megabytes']:.0f} MB", "", "", "")
        else:
            quarters = f"{results.seconds(row['q1_s'])} to {results.seconds(row['q3_s'])}"
            above = f"{row['over_floor']:.1f}" if "over_floor" in row else ""
            shown.add_row(
                f"{row['side']}: {row['name']}", results.seconds(row["median_s"]), quarters, error, above
            )
    return shown


def show(console: Console, rows: list[dict]) -> None:
    """The table, the ratio, what was asked for, and whether the machine was disturbed."""
    console.print(table(rows))
    if against := results.ratio(rows):
        console.print(f"  {against:.2g} x {results.best_rival(rows)['name']}")
    for verdict in results.verdicts(rows):
        console.print(f"  asked: {verdict.text}: {verdict.state}")
    if not rows[0]["quiet"]:
        console.print("  the machine was disturbed during this case: --resume measures it again")


def measure_all(
    *,
    console: Console,
    only: str = "",
    rivals: bool = False,
    json: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
) -> list[dict]:
    """Measure every case, show it, and write all rows after each.

    Args:
        console: Where tables and progress go.
        only: Cases whose name contains this.
        rivals: Whether to time the others too.
        json: Results file, or None.
        resume: Keep what that file has of this machine and commit, and was not disturbed.
        device: ``"cpu"`` or ``"cuda"``, which have cases of their own.

    Returns:
        The rows, in the order of the cases.

    Raises:
        ValueError: If ``only`` names no case, ``resume`` has no file, or the file holds something else.
    """
    if resume and json is None:
        raise ValueError("--resume needs --json FILE, the results to go on with, got none")
    here, peaks = machine(), cache(Peaks.measure)
    # read even if it is replaced: only a results file is
    kept_rows = results.read(json)["rows"] if json and json.exists() else []
    earlier = kept_rows if resume else []
    done = {
        name: rows
        for name, rows in results.by_case(earlier).items()
        if results.finished(rows, here, rivals=rivals)
    }
    todo = jobs(peaks, only=only, rivals=rivals, device=device)
    measured, rows = {**done}, [row for kept in done.values() for row in kept]
    with warnings.catch_warnings(), _progress(console) as progress:
        warnings.simplefilter("ignore")  # rivals warn of what they do not reach
        task = progress.add_task("measuring", total=len(todo))
        for name, job in todo.items():
            progress.update(task, description=name)
            if name not in done:
                measured[name] = [row | here | {"rivals": rivals} for row in job()]
                rows = results.judged([row for kept in measured.values() for row in kept])
                show(console, results.by_case(rows)[name])
            progress.advance(task)
            if json:
                facts = [peaks(count, device).facts() for count in sorted({1, torch.get_num_threads()})]
                made = {"machine": here, "versions": versions(LIBRARIES), "peaks": facts, "rows": rows}
                results.write(json, made)
    return rows


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def disturbed(rows: list[dict]) -> list[str]:
    """Cases to be measured again."""
    return [name for name, case in results.by_case(rows).items() if not case[0]["quiet"]]


def wrong(rows: list[dict]) -> list[str]:
    """Cases in which ours has no figure: wrong, or failed."""
    return [name for name, case in results.by_case(rows).items() if "why" in results.ours(case)]


def command(
    *,
    only: str,
    rivals: bool,
    json: Path | None,
    resume: bool,
    threads: int | None,
    console: Console,
    device: str = "cpu",
) -> int:
    """What ``geokernels bench`` does; returns its exit code: 1 when ours is wrong, 130 when interrupted."""
    torch.set_num_threads(threads or torch.get_num_threads())
    try:
        rows = measure_all(console=console, only=only, rivals=rivals, json=json, resume=resume, device=device)
    except KeyboardInterrupt:
        kept = f"; --resume goes on with {json}" if json else ""
        console.print(f"Stopped{kept}.")
        return INTERRUPTED
    if again := disturbed(rows):
        console.print(f"Disturbed, to be measured again with --resume: {'; '.join(again)}.")
    if failed := wrong(rows):
        console.print(f"Ours is wrong or failed: {'; '.join(failed)}.")
    if json:
        console.print(f"Wrote {json}. The page: python -m benchmarks.page {json}")
    return 1 if failed else 0


def options() -> argparse.ArgumentParser:
    """What may be typed; ``geokernels bench`` passes it on."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0] + ".")
    parser.add_argument("--rivals", action="store_true", help="time other libraries too")
    parser.add_argument("--json", type=Path, help="file for the results, written after each case")
    parser.add_argument("--only", default="", help="run only the cases whose name contains this text")
    parser.add_argument("--resume", action="store_true", help="measure only what --json lacks")
    parser.add_argument("--threads", type=int, help="CPU threads; all of them by default")
    parser.add_argument("--simd", help="keep ours, torch and JAX to this SIMD level, such as avx2")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="which cases to run")
    return parser


def main() -> None:
    """Measure what was asked for on the command line."""
    given = vars(options().parse_args())
    console = Console(highlight=False, soft_wrap=True)
    try:
        if level := given.pop("simd"):
            hold_to(level)
        if given["device"] == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda needs a GPU, torch sees none")
        code = command(**given, console=console)
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
