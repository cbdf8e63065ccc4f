"""How a blend goes from one picture to another, beside a cross-dissolve.

    python -m benchmarks.quality.blend_path --pairs 40 --out benchmarks/results/blend-path.json

Rendered pairs, of which the judge can say what they show, and pairs of photographs:

  moved       the first and the last frame of a rendered clip: the object and the ground move
  similar     scenes that differ in one attribute
  dissimilar  scenes without a common value
  photographs pairs of scikit-image's public-domain pictures, shrunk to 256 pixels on the longer side
  views       each of these photographs and what a homography makes of it

Each is blended by the default settings, and faded in as many frames at the same times. Of either:

  length      sum of the distances of neighbours over the distance of the ends; 1 is the straight way
  smoothness  1 - Gini's coefficient of these distances
  worst step  the largest of them, in mean steps
  object      share of the frames in between in which the judge names shape, colour and background; rendered
  sharpness   what the frames in between have of the ends' mean gradient; 1 keeps it all

Distances are the root of the feature distance of the world's CLIP, which saw no photographs when it was
trained: there they are those of some network, and no more. A norm of the difference of pictures would not do:
by any of them the cross-dissolve is the straight line.
"""

import argparse
import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from geokernels import world
from geokernels._files import write_json
from geokernels.metrics import mean_interval, score_path
from geokernels.models import load_clip
from geokernels.pipelines import Blend, BlendConfig, feature_metric

from ..harness.machine import machine
from .photographs import picture

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # NASA's, and given away (CC0)
VIEWS = 3  # of each photograph
TILT = 0.12  # of a side, by which the corners of a view move
WAYS = ("blend", "cross-dissolve")
MEASURES = ("length", "smoothness", "worst_step", "sharpness", "object")


def rendered(pairs: int, seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """So many pairs of each kind."""
    for kind in ("moved", "similar", "dissimilar"):
        for index in range(pairs):
            chance = torch.Generator().manual_seed(seed * 1_000_003 + index)
            scene = world.sample_scenes(1, generator=chance)
            if kind == "moved":
                frames = world.render_clip(scene, 2, generator=chance).frames
                yield kind, frames[0], frames[-1]
                continue
            other = scene
            if kind == "similar":
                other = world.edit(
                    scene, list(world.ATTRIBUTES)[index % len(world.ATTRIBUTES)], generator=chance
                )
            names = scene.names()[0]
            while kind == "dissimilar" and any(
                other.names()[0][name] == value for name, value in names.items()
            ):
                other = world.sample_scenes(1, generator=chance)
            yield kind, world.render(scene)[0], world.render(other)[0]


def photographed(seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every pair of photographs, and views of each."""
    shots = {name: picture(name) for name in PHOTOGRAPHS}
    for i, first in enumerate(PHOTOGRAPHS):
        for second in PHOTOGRAPHS[i + 1 :]:
            yield "photographs", shots[first], shots[second]
        for view in range(VIEWS):
            yield "views", shots[first], tilted(shots[first], torch.Generator().manual_seed(seed + view))


def tilted(shot: Tensor, chance: torch.Generator) -> Tensor:
    """A photograph by a random homography, continued at its edges."""
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    moved = corners + 2 * TILT * (2 * torch.rand(4, 2, generator=chance, dtype=torch.float64) - 1)
    rows = []
    for (x, y), (u, v) in zip(corners.tolist(), moved.tolist()):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    h = torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), moved.reshape(-1))
    H, W = shot.shape[1:]
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in (H, W)), indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.cat([h, h.new_ones(1)]).view(3, 3).mT
    grid = (at[..., :2] / at[..., 2:]).float()
    return F.grid_sample(shot[None], grid[None], padding_mode="reflection", align_corners=True)[0]


def faded(first: Tensor, second: Tensor, times: Tensor) -> Tensor:
    """The cross-dissolve, in 8 bits, in frames that hold both pictures as a blend's do."""
    H, W = (max(a, b) for a, b in zip(first.shape[1:], second.shape[1:]))
    ends = []
    for shot in (first, second):
        h, w = shot.shape[1:]
        top, left = (H - h) // 2, (W - w) // 2
        ends.append(F.pad(shot, (left, W - w - left, top, H - h - top), value=1.0))
    mixed = torch.stack([torch.lerp(*ends, float(t)) for t in times])
    return mixed.mul(255).round() / 255


def sharpness(frames: Tensor) -> float:
    """Mean gradient of the frames in between, over that of the ends at the same time."""
    lengths = torch.stack([frames.diff(dim=d).abs().mean((1, 2, 3)) for d in (2, 3)]).sum(0)
    share = torch.linspace(0, 1, len(frames))
    return float((lengths / torch.lerp(lengths[:1], lengths[-1:], share))[1:-1].mean())


def named(frames: Tensor) -> float:
    """Share of the frames in between in which the judge names an object on a background."""
    seen = world.judge(frames[1:-1]).names()
    return statistics.fmean(all(one[name] for name in ("shape", "colour", "background")) for one in seen)


def measured(frames: Tensor, distance, *, judged: bool) -> dict[str, float | None]:
    """What one way is worth."""
    steps = torch.cat([distance(a[None], b[None]) for a, b in pairwise(frames)]).double().cpu()
    chord = float(distance(frames[:1], frames[-1:]))
    score = score_path(steps, missed=0.0, chord=chord)
    return {
        "length": score.length / chord,
        "smoothness": score.smoothness,
        "worst_step": score.worst_step,
        "sharpness": sharpness(frames),
        "object": named(frames) if judged else None,
    }


def run_pair(kind: str, first: Tensor, second: Tensor, distance, config: BlendConfig) -> dict:
    """Both ways of one pair."""
    run = Blend(first, second, config=config)
    run.finish()
    found = run.result()
    ways = (found.frames, faded(first, second, found.times))
    judged = kind in ("moved", "similar", "dissimilar")
    with torch.no_grad():
        scores = {way: measured(frames, distance, judged=judged) for way, frames in zip(WAYS, ways)}
    return {"kind": kind, "folded": found.folded, "ways": scores}


# as the table has them
SHOWN = {
    "object": "object named",
    "sharpness": "sharpness kept",
    "smoothness": "smoothness",
    "worst_step": "worst step",
    "length": "length",
}


def summary_of(rows: list[dict]) -> dict:
    """Means with 95% intervals, by kind and way, and of the differences."""
    kinds = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        group = [row["ways"] for row in rows if row["kind"] == kind]
        table = {}
        for name in MEASURES:
            if group[0]["blend"][name] is None:
                continue
            pairs = [[ways[way][name] for way in WAYS] for ways in group]
            columns = {way: [pair[i] for pair in pairs] for i, way in enumerate(WAYS)}
            columns["difference"] = [ours - theirs for ours, theirs in pairs]
            table[name] = {way: mean_interval(values)._asdict() for way, values in columns.items()}
        kinds[kind] = {"pairs": len(group), "measures": table}
    return kinds


def as_markdown(kinds: dict) -> str:
    """A table, two rows a kind: a film, and a cross-dissolve of the same pairs."""
    lines = [
        f"| pairs | | {' | '.join(SHOWN.values())} |",
        "|---|---|" + "---|" * len(SHOWN),
    ]
    for kind, group in kinds.items():
        for way in WAYS:
            cells = [_cell(group["measures"].get(name), way) for name in SHOWN]
            lines.append(f"| {kind}, {group['pairs']} | {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(measured: dict | None, way: str) -> str:
    return f"{measured[way]['mean']:.2f} ± {measured[way]['half']:.2f}" if measured else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=40, help="of each kind of rendered ones")
    parser.add_argument("--frames", type=int, default=13)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file of the results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    distance, config = feature_metric(load_clip("world")), BlendConfig(frames=args.frames, recipe="world")
    rows = []
    for kind, first, second in (*rendered(args.pairs, args.seed), *photographed(args.seed)):
        rows.append(run_pair(kind, first, second, distance, config))
        print(f"\r{len(rows)} pairs", end="", flush=True)
    kinds = summary_of(rows)
    print("\n" + as_markdown(kinds))
    if args.out is not None:
        how = {"pairs": args.pairs, "frames": args.frames, "seed": args.seed}
        write_json(args.out, {**how, "kinds": kinds, "machine": machine()})


if __name__ == "__main__":
    main()
