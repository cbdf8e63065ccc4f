"""Time the operators beside their rivals: ``python -m benchmarks.run [--only WORD] [--json FILE]``."""

import argparse
import json
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from . import cloud_cases, geodesic_cases, transport_cases
from .harness import machine, measure


def ratio(rows: list[dict]) -> float | None:
    """Time of the best rival over the time of our first contender, or None where one is missing."""
    ours = next((row.get("median_s") for row in rows if row["side"] == "ours"), None)
    rivals = [row["median_s"] for row in rows if row["side"] == "rival" and "median_s" in row]
    return min(rivals) / ours if ours and rivals else None


def table(rows: list[dict]) -> Table:
    """One case as a table: who, seconds, error."""
    table = Table(
        title=rows[0]["case"], caption=rows[0]["reason"], title_justify="left", caption_justify="left"
    )
    for column in ("", "median", "from", "to", "error"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        times = [
            f"{1e6 * row[key]:,.0f} us" if key in row else "wrong" for key in ("median_s", "min_s", "max_s")
        ]
        table.add_row(f"{row['side']}: {row['name']}", *times, f"{row['error']:.1e}")
    return table


def main() -> None:
    """Measure every case, print the tables, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this word")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="file for the rows, with machine and commit")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    console = Console()
    families = transport_cases, cloud_cases, geodesic_cases
    cases = [c for family in families for c in family.cases() if arguments.only in c.name]
    if not cases:
        parser.error(f"--only must occur in the name of a case, got {arguments.only!r}")
    results = []
    for case in track(cases, console=console, description="measuring"):
        rows = measure(case)
        results.append({"rows": rows, "ratio": ratio(rows)})
        console.print(table(rows))
        against = results[-1]["ratio"]
        console.print(
            f"  {against:.1f} x the best rival" if against else "  no ratio: a contender is missing"
        )
        if not rows[0]["quiet"]:
            console.print("  [yellow]the machine was disturbed during this case: measure it again[/]")
    if arguments.json:
        partial = arguments.json.with_suffix(".partial")
        partial.write_text(json.dumps({"machine": machine(), "cases": results}, indent=1) + "\n")
        partial.replace(arguments.json)
        console.print(f"wrote {arguments.json}")


if __name__ == "__main__":
    main()
