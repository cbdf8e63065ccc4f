"""Fronts of two shares that are both to be large: which points count, their area, how they look."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from geokernels.report.page import details, figure, page, section, table, text

from .stability_plasticity import percent

INKS = {"directional": "#3157d5", "spherical": "#c4551a", "geodesic": "#13714a", "start": "#1d1f23"}


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other beats: as large in both and larger in one."""

    def beaten(name: str) -> bool:
        x, y = points[name]
        return any(a >= x and b >= y and (a > x or b > y) for a, b in points.values())

    return [name for name in points if not beaten(name)]


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Area of the union of the rectangles from (0, 0) to each point.

    Example:
        >>> hypervolume([(0.5, 1.0), (1.0, 0.5), (0.4, 0.4)])
        0.75
    """
    area, reached = 0.0, 0.0
    for x, y in sorted(points, key=lambda point: -point[1]):
        if x > reached:
            area += (x - reached) * y
            reached = x
    return area


def draw_fronts(path: Path, losses: Mapping[str, Mapping], across: str, up: str) -> None:
    """Draw every point with its intervals, fronts joined, into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    for loss, found in losses.items():
        points, ink = found["points"], INKS.get(loss, "#666a73")
        x, y = ([p[key] for p in points.values()] for key in ("reached", "kept"))
        spread = [[[p["share"] - p["low"] for p in v], [p["high"] - p["share"] for p in v]] for v in (x, y)]
        at = [p["share"] for p in x], [p["share"] for p in y]
        axes.errorbar(*at, xerr=spread[0], yerr=spread[1], fmt="o", ms=4, lw=0.8, color=ink, label=loss)
        on = sorted((points[n]["reached"]["share"], points[n]["kept"]["share"]) for n in found["front"])
        axes.plot(*zip(*on), color=ink, lw=1.5)
        for name, *place in zip(points, *at):
            axes.annotate(name, place, textcoords="offset points", xytext=(4, 4), fontsize=7, color=ink)
    axes.set_xlabel(f"plasticity: {across}")
    axes.set_ylabel(f"stability: {up}")
    axes.legend()
    axes.grid(alpha=0.25)
    drawing.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(drawing)


def front_page(title: str, summary: Mapping, picture: Path) -> str:
    """One page: the drawing, the table, the settings."""
    rows = []
    for loss, found in summary["losses"].items():
        for name, point in found["points"].items():
            shares = [percent(point[key]) for key in ("reached", "kept")]
            mark = "yes" if name in found["front"] else ""
            rows.append((text(loss), text(name), *shares, mark, f"{found['hypervolume']:.3f}"))
    head = ("loss", "strength", "reached", "kept", "on its front", "hypervolume")
    lead = (
        f"<p>{summary['adaptations']} adaptations of the embedded generator, seed {summary['seed']}: results "
        "on the rendered world, read by a judge that uses no trained model.</p>"
    )
    return page(
        f"Stability and plasticity: {title.lower()}",
        lead,
        [
            section("Fronts", figure(picture.read_bytes(), "Shares reached against shares kept, by loss")),
            section("Points", table(head, rows), note="Means with 95% intervals over adaptations."),
            section("Settings", details("Every setting", summary["config"])),
        ],
    )
