"""Tables of results: a line for each method of an evaluation, or for each attribute that the judge reads."""

import math
import statistics
from collections.abc import Mapping, Sequence

from .intervals import mean_interval, wilson_interval

# Every column, and whether more of it is better; those of the judge are for the rendered world.
BETTER = {
    "clip_score": True,
    "clip_score_edit": True,
    "directional": True,
    "structure": False,
    "perceptual": False,
    "psnr_outside": True,
    "ssim_outside": True,
    "mse_outside": False,
    "perceptual_outside": False,
    "reached": True,
    "kept": True,
    "right": True,
    "background": True,
}
SHARES = ("reached", "right")  # of edits, where the others are means
COLUMNS = tuple(BETTER)


def summarise(rows: Sequence[dict], labels: Sequence[str]) -> dict[str, dict]:
    """For each method the number of edits and of failures, and of each column the value and its bounds.

    Shares of edits reached or right count failures as not; their bounds are Wilson's. Other columns are means
    of what there is, ``n`` of them, finite, with 1.96 standard errors either way.
    """
    return {label: _summary([row for row in rows if row["method"] == label]) for label in labels}


def _summary(rows: list[dict]) -> dict:
    made = [row for row in rows if row["failure"] is None]
    summary: dict = {
        "edits": len(rows),
        "failed": len(rows) - len(made),
        "seconds": statistics.fmean(row["seconds"] for row in made) if made else None,
    }
    for name in COLUMNS:
        values = [float(row[name]) for row in made if row[name] is not None]
        finite = [value for value in values if math.isfinite(value)]
        if name in SHARES:
            judged = [row for row in rows if row["attribute"] is not None]
            interval = wilson_interval(int(sum(values)), len(judged)) if judged and values else None
            summary[name] = interval and dict(zip(("value", "low", "high", "n"), (*interval, len(judged))))
        else:
            summary[name] = _mean(finite) if finite else None
    return summary


def _mean(values: list[float]) -> dict[str, float]:
    interval = mean_interval(values)
    return {"value": interval.mean, "low": interval.low, "high": interval.high, "n": len(values)}


def summary_rows(summary: dict[str, dict]) -> tuple[list[str], list[list[object]]]:
    """Head and lines of a table: of each column the value and both bounds."""
    bounds = ("value", "low", "high", "n")
    head = ["method", "edits", "failed", "seconds"]
    head += [name if part == "value" else f"{name}_{part}" for name in COLUMNS for part in bounds]
    lines = []
    for label, of in summary.items():
        cells = [(of[name] or {}).get(part) for name in COLUMNS for part in bounds]
        lines.append([label, of["edits"], of["failed"], of["seconds"], *cells])
    return head, lines


def readable(summary: dict[str, dict]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table for people, without the columns that nobody has."""
    columns = [name for name in COLUMNS if any(of[name] for of in summary.values())]
    arrows = [f"{name.replace('_', ' ')} {'↑' if BETTER[name] else '↓'}" for name in columns]
    lines = []
    for label, of in summary.items():
        seconds = "" if of["seconds"] is None else f"{of['seconds']:.2f}"
        cells = [_cell(name, of[name]) for name in columns]
        lines.append([label, str(of["edits"]), str(of["failed"]), *cells, seconds])
    return ["method", "edits", "failed", *arrows, "s an edit"], lines


def markdown(summary: dict[str, dict]) -> str:
    """The same table in Markdown."""
    head, lines = readable(summary)
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def shares(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, str]]:
    """Rows of a table: attribute, share named, share as asked, with 95% intervals; "" where there is none."""

    def share(hits: int, trials: int) -> str:
        return str(wilson_interval(hits, trials)) if trials else ""

    return [
        (attribute, share(c["named"], c["samples"]), share(c["as_asked"], c["asked"]))
        for attribute, c in counts.items()
    ]


def _cell(name: str, interval: dict | None) -> str:
    if interval is None:
        return ""
    if name in SHARES:
        return f"{100 * interval['value']:.0f}% [{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"
    half = (interval["high"] - interval["low"]) / 2
    return (
        f"{100 * interval['value']:.1f}% ± {100 * half:.1f}"
        if name == "kept"
        else f"{interval['value']:.3g} ± {half:.2g}"
    )
