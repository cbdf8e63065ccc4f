"""What a diffusion model adds to a blend: in how many of its frames is there an object that can be named?

    python -m benchmarks.quality.blend_model --pairs 8 --frames 9 --out benchmarks/results/blend-model.json

The rendered pairs of ``blend_path``, of a seed of which no setting was chosen, each by three ways:

  model           the embedded diffusion model draws the frames in between, and reads no text
  blend           the pictures are moved, and no model takes part
  cross-dissolve  one picture fades into the other

What is measured is what ``blend_path`` measures, and the judge uses no model. Everything is counted on
pictures in 8 bits. Pairs are done one after the other, by one thread: a result does not depend on how many.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from geokernels._files import write_json
from geokernels.metrics import mean_interval
from geokernels.models import load_clip, load_diffusion
from geokernels.pipelines import Blend, BlendConfig, feature_metric
from geokernels.pipelines.run_state import plain

from ..harness.machine import machine
from .blend_path import MEASURES, SHOWN, faded, measured, rendered

WAYS = ("model", "blend", "cross-dissolve")


def films(first: Tensor, second: Tensor, model, config: BlendConfig) -> dict[str, Tensor]:
    """The frames of every way."""
    plainly = Blend(first, second, config=config)
    plainly.finish()
    found = plainly.result()
    drawn = Blend(first, second, config=config, maps=found.maps, model=model)
    drawn.finish()
    frames = (drawn.result().frames, found.frames, faded(first, second, found.times))
    return dict(zip(WAYS, frames))


def run_pair(first: Tensor, second: Tensor, model, distance: Callable, config: BlendConfig) -> dict:
    """Everything that is measured of one pair, by way."""
    made = films(first, second, model, config)
    with torch.no_grad():
        return {way: measured(frames, distance, judged=True) for way, frames in made.items()}


def summary_of(rows: list[tuple[str, dict]]) -> dict:
    """Means with 95% intervals, by kind and way, and of how far the model is above the blend without it."""
    kinds = {}
    for kind in dict.fromkeys(kind for kind, _ in rows):
        group = [ways for of, ways in rows if of == kind]
        table = {}
        for name in MEASURES:
            columns = {way: [ways[way][name] for ways in group] for way in WAYS}
            columns["gain"] = [a - b for a, b in zip(columns["model"], columns["blend"])]
            table[name] = {way: mean_interval(values)._asdict() for way, values in columns.items()}
        kinds[kind] = {"pairs": len(group), "measures": table}
    return kinds


def as_markdown(kinds: dict) -> str:
    """A table, a row for each kind of pairs and way."""
    lines = [f"| pairs | | {' | '.join(SHOWN.values())} |", "|---|---|" + "---|" * len(SHOWN)]
    for kind, group in kinds.items():
        for way in WAYS:
            found = [group["measures"][name][way] for name in SHOWN]
            cells = [f"{one['mean']:.2f} ± {one['half']:.2f}" for one in found]
            lines.append(f"| {kind}, {group['pairs']} | {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=8, help="of each kind")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--level", type=float, help="of noise, from which frames are drawn")
    parser.add_argument("--steps", type=int, help="from noise to pictures")
    parser.add_argument("--out", type=Path, help="file of the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    said = {name: value for name in ("level", "steps") if (value := getattr(args, name)) is not None}
    config = BlendConfig(frames=args.frames, recipe="world", **said)
    distance, model, rows = feature_metric(load_clip("world")), load_diffusion("world"), []
    for kind, first, second in rendered(args.pairs, args.seed):
        rows.append((kind, run_pair(first, second, model, distance, config)))
        print(f"\r{len(rows)} pairs", end="", flush=True)
    kinds = summary_of(rows)
    print("\n" + as_markdown(kinds))
    if args.out is not None:
        how = {"pairs": args.pairs, "frames": args.frames, "seed": args.seed, "config": plain(config)}
        write_json(args.out, {**how, "kinds": kinds, "machine": machine()})


if __name__ == "__main__":
    main()
