"""Trials counted and drawn: points with intervals, fronts, hypervolumes, differences trial by trial.

A row is a trial (an edit, an adaptation) with what every arm reached and kept at every strength after some
numbers of steps: ``row["found"][arm][strength][steps] == {"reached": 0.9, "kept": 0.8, "right": 0.5, ...}``.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from geokernels.metrics import wilson_interval

from .edits import mean_of, percent

INKS = {"directional": "#3157d5", "geodesic": "#13714a", "geodesic with IMR": "#c4551a"}
AGAINST = "directional"  # whose trials the other arms' are compared with
SHARES = ("reached", "kept", "right")
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
    """What every arm came to: points, front and hypervolume after the last reading, and differences.

    Intervals of hypervolumes and differences are from resampling trials, all arms alike, so that the
    difference of two arms has not the spread of the trials in it.
    """
    chance = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(rows), (RESAMPLED, len(rows)), generator=chance)
    last = list(next(iter(next(iter(rows[0]["found"].values())).values())))[-1]
    volumes = {arm: _volumes(rows, arm, last, drawn) for arm in rows[0]["found"]}
    summary = {}
    for arm, strengths in rows[0]["found"].items():
        points = {
            strength: {steps: _point(rows, arm, strength, steps, drawn) for steps in found}
            for strength, found in strengths.items()
        }
        at = {s: tuple(found[last][key]["share"] for key in SHARES[:2]) for s, found in points.items()}
        summary[arm] = {
            "points": points,
            "front": front(at),
            "hypervolume": hypervolume(list(at.values())),
            "hypervolume interval": _middle(volumes[arm]),
        }
        if arm != AGAINST:
            summary[arm][f"hypervolume, less {AGAINST}"] = _middle(volumes[arm] - volumes[AGAINST])
    return summary


def _point(rows: Sequence[Mapping], arm: str, strength: str, steps: str, drawn: Tensor) -> dict:
    scores, others = ([row["found"][a][strength][steps] for row in rows] for a in (arm, AGAINST))
    point: dict = {key: share_interval([score[key] for score in scores]) for key in SHARES}
    if "psnr" in scores[0]:
        point["psnr"] = round(statistics.fmean(score["psnr"] for score in scores), 2)
    if arm != AGAINST:
        for key in SHARES + ("psnr",) * ("psnr" in scores[0]):
            apart = torch.tensor([a[key] - b[key] for a, b in zip(scores, others)], dtype=torch.float64)
            low, high = _middle(apart[drawn].mean(1))
            point[f"{key}, less {AGAINST}"] = {"share": apart.mean().item(), "low": low, "high": high}
    return point


def _volumes(rows: Sequence[Mapping], arm: str, steps: str, drawn: Tensor) -> Tensor:
    """Hypervolumes on trials drawn with replacement, ``(RESAMPLED,)``."""
    strengths = rows[0]["found"][arm]
    values = torch.tensor(
        [[[row["found"][arm][s][steps][key] for key in SHARES[:2]] for s in strengths] for row in rows],
        dtype=torch.float64,
    )
    return torch.tensor([hypervolume(points) for points in values[drawn].mean(1).tolist()])


def _middle(values: Tensor) -> list[float]:
    """The middle 95% of ``values``."""
    return torch.quantile(values.double(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()


def points_of(part: Mapping) -> str:
    """A stage's points as a table: every arm at every strength after every reading."""
    places = [
        (arm, strength, steps, point)
        for arm, result in part["arms"].items()
        for strength, found in result["points"].items()
        for steps, point in found.items()
    ]
    fidelity = "psnr" in places[0][-1]
    less = f"right, less {AGAINST}"
    head = ["loss", "strength", "steps", *SHARES, less]
    head += ["PSNR, untouched", f"less {AGAINST}"] if fidelity else []
    rows = [head, ["---"] * len(head)]
    for *names, point in places:
        apart = points_apart(point[less]) if less in point else ""
        more = [f"{point['psnr']:.1f} dB", _decibels_apart(point)] if fidelity else []
        rows.append([*names, *(percent(point[key]) for key in SHARES), apart, *more])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def points_apart(difference: Mapping[str, float]) -> str:
    """A difference of shares with its interval, in percentage points."""
    share, low, high = (100 * difference[key] for key in ("share", "low", "high"))
    return f"{share:+.1f} [{low:+.1f}, {high:+.1f}]"


def _decibels_apart(point: Mapping) -> str:
    """A difference of PSNR with its interval; nothing of the arm that the others are compared with."""
    found = point.get(f"psnr, less {AGAINST}")
    return "{share:+.1f} [{low:+.1f}, {high:+.1f}]".format(**found) if found else ""


def areas_of(parts: Sequence[Mapping]) -> str:
    """Hypervolumes of the stages with several strengths, as a table."""
    head = ["", "loss", "hypervolume", f"less {AGAINST}"]
    rows = [head, ["---"] * len(head)]
    for part in parts:
        for arm, result in part["arms"].items():
            low, high = result["hypervolume interval"]
            less = result.get(f"hypervolume, less {AGAINST}")
            apart = f"{less[0]:+.3f} to {less[1]:+.3f}" if less else ""
            rows.append([part["title"], arm, f"{result['hypervolume']:.3f} [{low:.3f}, {high:.3f}]", apart])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def draw_fronts(path: Path, parts: Sequence[Mapping]) -> None:
    """Draw every point after the last reading with its intervals, fronts joined, a panel a stage."""
    with _panels(path, parts) as places:
        for axes, part in zip(places, parts):
            for arm, result in part["arms"].items():
                _draw_front(axes, arm, result)
            axes.set_xlabel("plasticity: asked attributes reached")
            axes.set_ylabel("stability: other attributes kept")
            axes.legend()


def draw_curves(path: Path, part: Mapping) -> None:
    """Draw every share of a stage over the steps, a panel a share, weaker strengths dashed."""
    with _panels(path, [part] * len(SHARES)) as places:
        for axes, key in zip(places, SHARES):
            for arm, result in part["arms"].items():
                for shift, (strength, found) in enumerate(reversed(result["points"].items())):
                    shares = [point[key] for point in found.values()]
                    at = [int(count) * 1.03**shift for count in found], [share["share"] for share in shares]
                    style = {"ls": ("-", "--", ":")[shift], "color": INKS.get(arm), "lw": 1.4, "ms": 4}
                    axes.errorbar(*at, yerr=_spread(shares), marker="o", label=f"{arm}, {strength}", **style)
            counts = [int(count) for count in found]
            axes.set_xscale("log")
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.minorticks_off()
            axes.set_xlabel("steps")
            axes.set_ylabel(key)
        places[0].legend(fontsize=8)


@contextmanager
def _panels(path: Path, parts: Sequence[Mapping]) -> Iterator[Sequence]:
    """Axes side by side, one a stage, saved as a PNG at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (5.4 * len(parts), 4.4)
    drawing, places = pyplot.subplots(1, len(parts), figsize=size, layout="constrained", squeeze=False)
    for axes, part in zip(places[0], parts):
        axes.set_title(f"{part['trials']} {part['title']}")
        axes.grid(alpha=0.25)
    yield places[0]
    drawing.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(drawing)


def _spread(shares: Sequence[Mapping]) -> list[list[float]]:
    """How far the intervals reach below and above; at 0 and 1 Wilson's may miss the share by a rounding."""
    below = [max(0.0, p["share"] - p["low"]) for p in shares]
    return [below, [max(0.0, p["high"] - p["share"]) for p in shares]]


def _draw_front(axes, arm: str, result: Mapping) -> None:
    points = {strength: list(found.values())[-1] for strength, found in result["points"].items()}
    ink = INKS.get(arm, "#666a73")
    x, y = ([point[key] for point in points.values()] for key in SHARES[:2])
    spread = _spread(x), _spread(y)
    at = [p["share"] for p in x], [p["share"] for p in y]
    axes.errorbar(
        *at, xerr=spread[0], yerr=spread[1], fmt="o", ms=4, lw=0.6, color=ink, ecolor=ink + "66", label=arm
    )
    on = sorted(tuple(points[name][key]["share"] for key in SHARES[:2]) for name in result["front"])
    axes.plot(*zip(*on), color=ink, lw=1.5)
    for name, *place in zip(points, *at):
        axes.annotate(name, place, textcoords="offset points", xytext=(4, 4), fontsize=7, color=ink)
