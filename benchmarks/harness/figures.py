"""The pictures of the benchmark page, drawn from rows onto a figure or a part of one."""

from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import NullFormatter

from . import rows as results
from .case import BATCH, ERROR, FEATURES, POINTS, TABLE, THREADS

WIN, LOSS, MUTED = "#1b7f5c", "#c2452d", "#8a8f98"
COLOURS = {
    "native": WIN,
    "eager": "#4c72b0",
    "eager in blocks": "#4c72b0",
    "torch.linalg": "#4c72b0",
    "torch.compile": "#8172b3",
    "torch.compile in blocks": "#8172b3",
    "POT": "#dd8452",
    "OTT-JAX": "#b5446e",
    "KeOps": "#937860",
    "GeomLoss": "#64a6bd",
    "GeomLoss, KeOps": "#64a6bd",
}
AXES = {
    POINTS: "points n",
    FEATURES: "features d",
    BATCH: "problems a call",
    ERROR: "marginal error reached (L1, both sides, float64)",
}


def label(name: str) -> str:
    """Ours is called by the package's name."""
    return "geokernels" if name == "native" else name


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def bars(canvas: FigureBase, rows: list[dict]) -> None:
    """How many times faster than the best rival each case of the table is; losses in another colour."""
    shown = with_ratio(rows)
    axes = canvas.subplots()
    for place, (_, ratio, own) in enumerate(shown):
        axes.barh(place, ratio - 1, left=1, color=WIN if ratio >= 1 else LOSS, height=0.62)
        target = results.ours(own)["targets"].get("ratio", 1)
        if target > 1:
            axes.plot([target] * 2, [place - 0.42, place + 0.42], color="black", lw=1.2)
        text = f" {ratio:.3g} x {results.best_rival(own)['name']}"
        axes.text(max(ratio, target), place, text, va="center", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", lw=0.8)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5), max(high, 2) * 6)  # room for the words
    axes.set_yticks(range(len(shown)), [name for name, *_ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "times faster than the fastest rival that is as exact; a black line marks the target", fontsize=8
    )
    _bare(axes)


def panels_of(rows: list[dict], series: str) -> dict[str, list[dict]]:
    """The timed rows of each curve of a series."""
    panels: dict[str, list[dict]] = {}
    for row in rows:
        if row["series"] == series and "median_s" in row:
            panels.setdefault(row["curve"], []).append(row)
    return panels


def curves(canvas: FigureBase, rows: list[dict], series: str) -> None:
    """A panel for each curve of a series, a line for each contender."""
    panels = panels_of(rows, series)
    for axes, (curve, points) in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        _lines(axes, points, x="error" if series == ERROR else "at")
        axes.set_title(curve, fontsize=9)
        axes.set_xlabel(AXES[series], fontsize=8)
        if series == ERROR:
            axes.invert_xaxis()


def _lines(axes: Axes, points: list[dict], *, x: str) -> None:
    names = dict.fromkeys(point["name"] for point in points)
    for name in names:
        own = sorted((p for p in points if p["name"] == name), key=lambda p: p[x])
        times = [p["median_s"] for p in own]
        quarters = [[p["median_s"] - p["q1_s"] for p in own], [p["q3_s"] - p["median_s"] for p in own]]
        style = {"color": COLOURS.get(name, MUTED), "lw": 2.2 if name == "native" else 1.3, "ms": 4}
        axes.errorbar([p[x] or 1e-9 for p in own], times, quarters, marker="o", label=label(name), **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    if x == "at":
        places = sorted({p["at"] for p in points})
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("seconds", fontsize=8)
    axes.grid(alpha=0.25, lw=0.5)
    axes.legend(fontsize=7, frameon=False)
    _bare(axes)


def speedups(rows: list[dict]) -> list[tuple[str, float, float]]:
    """Curve, number of threads, and how many times as fast as on one."""
    cases = results.by_case(row for row in rows if row["series"] == THREADS)
    curve_points = [(points[0]["curve"], points[0]["at"], results.ratio(points)) for points in cases.values()]
    return [point for point in curve_points if point[2]]


def threads(canvas: FigureBase, rows: list[dict]) -> None:
    """Speed-up over one thread."""
    shown = speedups(rows)
    names, counts = list(dict.fromkeys(curve for curve, *_ in shown)), sorted({at for _, at, _ in shown})
    axes, width = canvas.subplots(), 0.8 / len(counts)
    for i, count in enumerate(counts):
        gains = {curve: gain for curve, at, gain in shown if at == count}
        places = [names.index(curve) + (i - (len(counts) - 1) / 2) * width for curve in gains]
        axes.bar(
            places,
            list(gains.values()),
            0.9 * width,
            label=f"{count:g} threads",
            color=WIN,
            alpha=1 - 0.2 * i,
        )
        axes.axhline(count, color=MUTED, lw=0.8, ls=":")
        for place, gain in zip(places, gains.values()):
            axes.text(place, gain, f"{gain:.2f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(names)), [fill(name, 14) for name in names])
    axes.set_ylim(0, 1.2 * max(max(counts), *(gain for *_, gain in shown)))
    axes.set_ylabel("times as fast as one thread", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper right")
    _bare(axes)


def floors(canvas: FigureBase, rows: list[dict]) -> None:
    """How far ours is above the least possible time, for each case of the table."""
    shown = above_floor(rows)
    axes = canvas.subplots()
    axes.barh(range(len(shown)), [above for _, above in shown], color=COLOURS["eager"], height=0.6)
    for place, (_, above) in enumerate(shown):
        axes.text(above, place, f" {above:.3g}", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *(above for _, above in shown)), 3 * max(3, *(above for _, above in shown)))
    axes.axvline(1, color="black", lw=0.8)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("median time over the floor of this machine", fontsize=8)
    _bare(axes)


def above_floor(rows: list[dict]) -> list[tuple[str, float]]:
    """Cases of the table with ours over the floor."""
    cases = results.by_case(row for row in rows if row["series"] == TABLE)
    heights = [(name, results.ours(points).get("over_floor")) for name, points in cases.items()]
    return [(name, above) for name, above in heights if above]


def with_ratio(rows: list[dict]) -> list[tuple[str, float, list[dict]]]:
    """Cases of the table that have a ratio, with it and their rows."""
    cases = results.by_case(row for row in rows if row["series"] == TABLE)
    ratios = [(name, results.ratio(points), points) for name, points in cases.items()]
    return [case for case in ratios if case[1]]


def pictures(rows: list[dict]) -> dict[str, Figure]:
    """Every picture that the rows have something for, by name: "ratio", "floor", "threads" and the curves."""
    plans = {"ratio": (bars, with_ratio(rows)), "floor": (floors, above_floor(rows))}
    drawn = {}
    for name, (draw, shown) in plans.items():
        if shown:
            drawn[name] = Figure(figsize=(9.5, 0.8 + 0.4 * len(shown)), layout="constrained")
            draw(drawn[name], rows)
    for series in (ERROR, POINTS, FEATURES, BATCH):
        if count := len(panels_of(rows, series)):
            drawn[series] = Figure(figsize=(4.75 * count, 3.4), layout="constrained")
            curves(drawn[series], rows, series)
    if speedups(rows):
        drawn["threads"] = Figure(figsize=(9.5, 3), layout="constrained")
        threads(drawn["threads"], rows)
    return drawn


def front(rows: list[dict]) -> Figure:
    """The README's picture: the ratios, and error against time where it was measured."""
    height, lower = 0.8 + 0.4 * len(with_ratio(rows)), 3.2 if panels_of(rows, ERROR) else 0
    figure = Figure(figsize=(10, height + lower), layout="constrained")
    if not lower:
        bars(figure, rows)
        return figure
    above, below = figure.subfigures(2, 1, height_ratios=[height, lower])
    bars(above, rows)
    curves(below, rows, ERROR)
    return figure
