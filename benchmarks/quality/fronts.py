"""Fronts of two shares that are both to be large: which points count, their area, how they look.

A row is a trial (an edit, an adaptation) with what every loss reached and kept at every strength:
``row["found"][loss][strength] == {"reached": 0.9, "kept": 0.8, ...}``.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from geokernels.metrics import wilson_interval
from geokernels.report.page import details, figure, page, section, table, text

from .edits import mean_of, percent

INKS = {"directional": "#3157d5", "spherical": "#c4551a", "geodesic": "#13714a", "start": "#1d1f23"}
LOSSES = ("directional", "spherical", "geodesic")
START = "start"  # what is there before any step, the same for all losses
AGAINST = LOSSES[0]  # the others' hypervolumes are compared with
RESAMPLED = 2000


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


def share_interval(values: list[float]) -> dict[str, float]:
    """A mean over trials with its 95% interval: Wilson's where every trial is 0 or 1, else the normal one."""
    if set(values) <= {0.0, 1.0}:
        return wilson_interval(int(sum(values)), len(values))._asdict()
    return mean_of(values, "share")


def summarise(rows: Sequence[Mapping]) -> dict[str, dict]:
    """Points with intervals, front and hypervolume of every loss, and how it compares with ``AGAINST``.

    The hypervolumes' intervals are from resampling trials, all losses alike, so that the difference of two
    losses has not the spread of the trials in it.
    """
    summary, volumes = {}, _resampled(rows)
    for loss, strengths in rows[0]["found"].items():
        points = {}
        for name in strengths:
            scores = [row["found"][loss][name] for row in rows]
            points[name] = {
                key: share_interval([score[key] for score in scores]) for key in ("reached", "kept")
            }
            if "psnr" in scores[0]:
                points[name]["psnr"] = round(statistics.fmean(score["psnr"] for score in scores), 2)
        pairs = {name: (p["reached"]["share"], p["kept"]["share"]) for name, p in points.items()}
        summary[loss] = {
            "points": points,
            "front": front(pairs),
            "hypervolume": hypervolume(list(pairs.values())),
            "hypervolume interval": _middle(volumes[loss]),
        }
        if loss not in (START, AGAINST):
            summary[loss][f"less {AGAINST}"] = _middle(volumes[loss] - volumes[AGAINST])
    return summary


def _resampled(rows: Sequence[Mapping]) -> dict[str, torch.Tensor]:
    """Hypervolumes of every loss on trials drawn with replacement, ``(RESAMPLED,)``."""
    chance = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(rows), (RESAMPLED, len(rows)), generator=chance)
    volumes = {}
    for loss, strengths in rows[0]["found"].items():
        values = torch.tensor(
            [[[row["found"][loss][n][k] for k in ("reached", "kept")] for n in strengths] for row in rows],
            dtype=torch.float64,
        )
        volumes[loss] = torch.tensor([hypervolume(points) for points in values[drawn].mean(1).tolist()])
    return volumes


def _middle(values: torch.Tensor) -> list[float]:
    """The middle 95% of ``values``."""
    return torch.quantile(values.double(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()


def points_of(losses: Mapping[str, Mapping]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and cells of the table of all points."""
    fidelity = any("psnr" in p for result in losses.values() for p in result["points"].values())
    rows = []
    for loss, result in losses.items():
        for name, point in result["points"].items():
            shares = [percent(point[key]) for key in ("reached", "kept")]
            more = [f"{point['psnr']:.1f} dB"] if fidelity else []
            rows.append((loss, name, *shares, *more, "yes" if name in result["front"] else ""))
    head = ("loss", "strength", "reached", "kept", *(["PSNR, untouched"] if fidelity else []))
    return (*head, "on its front"), rows


def areas_of(losses: Mapping[str, Mapping]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and cells of the table of hypervolumes."""
    rows = []
    for loss, result in losses.items():
        low, high = result["hypervolume interval"]
        less = result.get(f"less {AGAINST}")
        apart = f"{less[0]:+.3f} to {less[1]:+.3f}" if less else ""
        rows.append((loss, f"{result['hypervolume']:.3f} [{low:.3f}, {high:.3f}]", apart))
    return ("loss", "hypervolume", f"difference from {AGAINST}"), rows


def as_markdown(losses: Mapping[str, Mapping]) -> str:
    """Both tables."""
    parts = []
    for head, rows in (points_of(losses), areas_of(losses)):
        parts.append([head, ("---",) * len(head), *rows])
    return "\n\n".join("\n".join(f"| {' | '.join(cells)} |" for cells in part) for part in parts) + "\n"


def draw_fronts(path: Path, panels: Mapping[str, Mapping[str, Mapping]]) -> None:
    """Draw every point with its intervals, fronts joined, a panel a pipeline, into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (6.2 * len(panels), 5)
    drawing, places = pyplot.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for axes, (title, losses) in zip(places[0], panels.items()):
        for loss, result in losses.items():
            _draw_front(axes, loss, result)
        axes.set_title(title)
        axes.set_xlabel("plasticity: asked attribute reached")
        axes.set_ylabel("stability: other attributes kept")
        axes.legend()
        axes.grid(alpha=0.25)
    drawing.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(drawing)


def _draw_front(axes, loss: str, result: Mapping) -> None:
    points, ink = result["points"], INKS.get(loss, "#666a73")
    x, y = ([p[key] for p in points.values()] for key in ("reached", "kept"))
    spread = [[[p["share"] - p["low"] for p in v], [p["high"] - p["share"] for p in v]] for v in (x, y)]
    at = [p["share"] for p in x], [p["share"] for p in y]
    axes.errorbar(
        *at, xerr=spread[0], yerr=spread[1], fmt="o", ms=4, lw=0.6, color=ink, ecolor=ink + "66", label=loss
    )
    on = sorted((points[n]["reached"]["share"], points[n]["kept"]["share"]) for n in result["front"])
    axes.plot(*zip(*on), color=ink, lw=1.5)
    for name, *place in zip(points, *at):
        axes.annotate(name, place, textcoords="offset points", xytext=(4, 4), fontsize=7, color=ink)


def front_page(summary: Mapping, drawing: Path) -> str:
    """One page: the drawing, and for each pipeline its tables and settings."""
    lead = (
        f"<p>Unseen edits and adaptations, seed {summary['seed']}: results on the rendered world, read by a "
        "judge that uses no trained model. Shares are means with 95% intervals over edits or adaptations.</p>"
    )
    sections = [
        section("Fronts", figure(drawing.read_bytes(), "Shares reached against shares kept, by loss"))
    ]
    for name, part in summary["pipelines"].items():
        tables = [
            table(head, [tuple(map(text, cells)) for cells in rows])
            for head, rows in (points_of(part["losses"]), areas_of(part["losses"]))
        ]
        note = f"{part['trials']} {part['unit']}, {part['config']['steps']} steps each. {part['strength']}"
        sections.append(section(name, *tables, details("Every setting", part["config"]), note=note))
    return page("Stability and plasticity", lead, sections)
