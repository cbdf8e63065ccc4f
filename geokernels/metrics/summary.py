"""Tables of results: a line for each method of an evaluation, or for each attribute that the judge reads."""

import math
import statistics
from array import array
from collections.abc import Iterable, Mapping, Sequence

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
COSTS = {"passes": ".0f", "seconds": ".2f"}  # of an edit, and how they are written


def summarise(rows: Iterable[dict], labels: Sequence[str]) -> dict[str, dict]:
    """For each method the number of edits and of failures, and of each column the value and its bounds.

    Shares of edits reached or right count failures as not; their bounds are Wilson's. Other columns are means
    of what there is, ``n`` of them, finite, with 1.96 standard errors either way.
    """
    gathered = {label: _Gathered() for label in labels}
    for row in rows:
        if row["method"] in gathered:
            gathered[row["method"]].add(row)
    return {label: of.summary() for label, of in gathered.items()}


class _Gathered:
    """What is summarised of one method: its numbers, and nothing else of its rows."""

    def __init__(self) -> None:
        self.edits = self.failed = self.judged = 0
        self.costs = {name: array("d") for name in COSTS}
        self.values = {name: array("d") for name in COLUMNS}

    def add(self, row: dict) -> None:
        self.edits += 1
        self.judged += row["attribute"] is not None
        if row["failure"] is not None:
            self.failed += 1
            return
        for name, values in self.costs.items():
            values.append(row[name])
        for name, values in self.values.items():
            if row[name] is not None:
                values.append(float(row[name]))

    def summary(self) -> dict:
        summary: dict = {"edits": self.edits, "failed": self.failed}
        for name, values in self.costs.items():
            summary[name] = statistics.fmean(values) if values else None
        for name, values in self.values.items():
            if name in SHARES:
                interval = wilson_interval(int(sum(values)), self.judged) if self.judged and values else None
                bounds = ("value", "low", "high", "n")
                summary[name] = interval and dict(zip(bounds, (*interval, self.judged)))
            else:
                finite = array("d", filter(math.isfinite, values))
                summary[name] = _mean(finite) if finite else None
        return summary


def _mean(values: Sequence[float]) -> dict[str, float]:
    interval = mean_interval(values)
    return {"value": interval.mean, "low": interval.low, "high": interval.high, "n": len(values)}


def summary_rows(summary: dict[str, dict]) -> tuple[list[str], list[list[object]]]:
    """Head and lines of a table: of each column the value and both bounds."""
    bounds = ("value", "low", "high", "n")
    head = ["method", "edits", "failed", "seconds", "passes"]
    head += [name if part == "value" else f"{name}_{part}" for name in COLUMNS for part in bounds]
    lines = []
    for label, of in summary.items():
        cells = [(of[name] or {}).get(part) for name in COLUMNS for part in bounds]
        lines.append([label, of["edits"], of["failed"], of["seconds"], of["passes"], *cells])
    return head, lines


def readable(summary: dict[str, dict]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table for people, without the columns that nobody has."""
    columns = [name for name in COLUMNS if any(of[name] for of in summary.values())]
    arrows = [f"{name.replace('_', ' ')} {'↑' if BETTER[name] else '↓'}" for name in columns]
    lines = []
    for label, of in summary.items():
        costs = ["" if of[key] is None else f"{of[key]:{form}}" for key, form in COSTS.items()]
        cells = [_cell(name, of[name]) for name in columns]
        lines.append([label, str(of["edits"]), str(of["failed"]), *cells, *costs])
    return ["method", "edits", "failed", *arrows, "passes an edit", "s an edit"], lines


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
