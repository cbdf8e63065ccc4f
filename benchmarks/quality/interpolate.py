"""Which coupling of prompts gives the better path, on the rendered world's own diffusion model.

    python -m benchmarks.quality.interpolate --pairs 120 --out runs/prompts

Half of the pairs are similar: captions of one template in which one attribute differs, so that words stand
in the same places. Half are dissimilar: scenes without a common value, each captioned by any template and
with any subset of attributes, so that words stand elsewhere. Every coupling draws the same pair from the same
noise at the same times; pictures are compared in 8 bits.

  length      sum of the distances of neighbours, by the feature distance of the world's CLIP
  smoothness  1 - Gini's coefficient of these
  worst step  the largest of them, in mean steps
  end         1 - distance of the last picture to the one its prompt gives, as a share of the whole way's
  object      share of the pictures between the ends in which the judge names shape, colour and background
  all five    share in which it names every attribute; the judge uses no model

What transport itself changes, the rows it sends elsewhere and the cost it saves, needs no picture:
``--couplings-only``. Whom a picture follows that is drawn from one prompt's words and the other's padding,
the rows that are padding in both: ``--swap-padding``.

Means over pairs with 95% intervals, and the difference of every coupling to row by row on the same pairs.
Each finished pair is one line of ``pairs.jsonl``; a run that was stopped continues there.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from geokernels import world
from geokernels._files import write_json, write_text
from geokernels.metrics import mean_interval, score_path
from geokernels.models import load_clip, load_diffusion
from geokernels.models.embedded import embedded
from geokernels.models.text_to_image import PADDING, Embedding, TextToImage
from geokernels.pipelines import feature_metric
from geokernels.pipelines.interpolate.couplings import COUPLINGS, prompt_path
from geokernels.runs.shards import WHOLE
from geokernels.world.captions import random_attributes

from ..harness.machine import machine
from .lines import add_shard, shard_given, work_through

MEASURES = ("length", "smoothness", "worst_step", "fidelity", "object", "all_five")
FACTS = ("words", "words_moved", "moved", "saved", "padding")
HEADS = ("length", "smoothness", "worst step", "end", "object", "all five")
BATCH = 16


@dataclass(frozen=True)
class Settings:
    """What is drawn of each pair."""

    seed: int
    frames: int
    steps: int
    guidance: float
    rows: str


def chance_of(index: int, seed: int) -> torch.Generator:
    """What is random of a pair."""
    return torch.Generator().manual_seed(seed * 1_000_003 + index)


def draw_pair(index: int, seed: int) -> tuple[str, list[str]]:
    """The kind of a pair, and its two prompts."""
    chance = chance_of(index, seed)
    first = world.sample_scenes(1, generator=chance)
    if index % 2 == 0:
        attribute = list(world.ATTRIBUTES)[(index // 2) % len(world.ATTRIBUTES)]
        second = world.edit(first, attribute, generator=chance)
        return "similar", [world.caption(scene)[0] for scene in (first, second)]
    names = first.names()[0]
    second = first
    while any(second.names()[0][name] == value for name, value in names.items()):
        second = world.sample_scenes(1, generator=chance)
    prompts = []
    for scene, said in zip((first, second), random_attributes(2, generator=chance)):
        template = world.TEMPLATES[int(torch.randint(len(world.TEMPLATES), (), generator=chance))]
        prompts += world.caption(scene, template, attributes=said)
    return "dissimilar", prompts


def draw_paths(
    model: TextToImage, keys: list[Embedding], negative: Embedding, noise: Tensor, how: Settings
) -> tuple[dict[str, Tensor], Tensor]:
    """Pictures of every coupling in 8 bits, and the one of the last prompt alone."""
    chance = torch.Generator().manual_seed(how.seed)
    times = torch.linspace(0, 1, how.frames)
    clouds = [
        prompt_path(keys, coupling=coupling, rows=how.rows, generator=chance).segments[0].at(times)
        for coupling in COUPLINGS
    ]
    # paths share their beginning, often their end, and where transport moves nothing all of it
    rows, which = torch.cat([*clouds, keys[1].rows[None]]).unique(dim=0, return_inverse=True)
    pictures = torch.cat(
        [
            model.draw(
                part,
                None,
                negative,
                noise.expand(len(part), -1, -1, -1),
                steps=how.steps,
                guidance_scale=how.guidance,
            )
            for part in rows.split(BATCH)
        ]
    )
    pictures = pictures.mul(255).round().div(255)[which]
    return dict(zip(COUPLINGS, pictures.split(how.frames))), pictures[-1]


def score(pictures: Tensor, goal: Tensor, distance: Callable) -> dict[str, float]:
    """Everything that is measured of one path."""
    steps = distance(pictures[:-1], pictures[1:])
    chord, missed = distance(pictures[[0, -1]], goal.expand(2, -1, -1, -1)).tolist()
    seen = world.judge(pictures[1:-1]).names()
    shown = [all(names[a] for a in ("shape", "colour", "background")) for names in seen]
    return {
        **score_path(steps, missed=missed, chord=chord)._asdict(),
        "object": statistics.fmean(shown),
        "all_five": statistics.fmean(all(names.values()) for names in seen),
    }


def coupled(keys: list[Embedding], rows: str) -> dict[str, float]:
    """What transport changes of going row by row, and whose the cost of that is."""
    first, last = keys
    (exact,) = prompt_path(keys, rows=rows).segments
    moved = (exact.end != last.rows).any(1)
    cost = (last.rows - first.rows).square().sum(1)
    padding = (first.kinds == PADDING) & (last.kinds == PADDING)
    return {
        "words": int((~padding).sum()),
        "words_moved": int(moved[~padding].sum()),
        "moved": int(moved.sum()),
        "saved": 1 - float((exact.end - exact.start).square().sum() / cost.sum()),
        "padding": float(cost[padding].sum() / cost.sum()),
    }


def couple_pair(index: int, model: TextToImage, how: Settings) -> dict:
    """A pair, and what transport does to it; nothing is drawn."""
    kind, prompts = draw_pair(index, how.seed)
    keys = [model.encode(prompt) for prompt in prompts]
    return {"index": index, "kind": kind, "prompts": prompts, **coupled(keys, how.rows)}


@torch.no_grad()
def run_pair(index: int, model: TextToImage, negative: Embedding, distance: Callable, how: Settings) -> dict:
    """Draw and measure one pair."""
    _, prompts = draw_pair(index, how.seed)
    keys = [model.encode(prompt) for prompt in prompts]
    noise = torch.randn(1, *model.latent_shape(), generator=chance_of(index, how.seed))
    paths, goal = draw_paths(model, keys, negative, noise, how)
    return {
        **couple_pair(index, model, how),
        "paths": {coupling: score(pictures, goal, distance) for coupling, pictures in paths.items()},
    }


@torch.no_grad()
def swap_padding(
    index: int, model: TextToImage, negative: Embedding, distance: Callable, how: Settings
) -> dict:
    """How far the padding of the second prompt takes the picture of the first one's words."""
    kind, prompts = draw_pair(index, how.seed)
    first, last = (model.encode(prompt) for prompt in prompts)
    padding = (first.kinds == PADDING) & (last.kinds == PADDING)
    rows = torch.stack([first.rows, last.rows, torch.where(padding[:, None], last.rows, first.rows)])
    noise = torch.randn(1, *model.latent_shape(), generator=chance_of(index, how.seed)).expand(3, -1, -1, -1)
    pictures = model.draw(rows, None, negative, noise, steps=how.steps, guidance_scale=how.guidance)
    words, pads = distance(pictures[[2, 2]], pictures[:2]).tolist()
    here, there, mixed = world.judge(pictures).names()
    read = [(mixed[a] == here[a], mixed[a] == there[a]) for a in here if here[a] != there[a]]
    return {
        "kind": kind,
        "way": words / (words + pads),
        "read": [sum(hits) for hits in zip(*read)] if read else [0, 0],
        "of": len(read),
    }


def interval(values: list[float]) -> dict[str, float]:
    """A mean and half of its 95% interval over pairs."""
    return mean_interval(values)._asdict()


def summarise(rows: list[dict]) -> dict:
    """Of one kind of pairs: every coupling, and its difference to row by row."""
    facts = {name: interval([float(row[name]) for row in rows]) for name in FACTS}
    if "paths" not in rows[0]:
        return {"pairs": len(rows), "facts": facts}
    of = {c: {m: [row["paths"][c][m] for row in rows] for m in MEASURES} for c in COUPLINGS}
    plain = of["row"]
    return {
        "pairs": len(rows),
        "facts": facts,
        "couplings": {c: {m: interval(v) for m, v in measured.items()} for c, measured in of.items()},
        "less row by row": {
            c: {m: interval([a - b for a, b in zip(v, plain[m])]) for m, v in measured.items()}
            for c, measured in of.items()
            if c != "row"
        },
    }


def kinds_of(rows: dict[int, dict]) -> dict[str, dict]:
    """The summary of every kind of which there are pairs."""
    kinds = {k: [row for row in rows.values() if row["kind"] == k] for k in ("similar", "dissimilar")}
    return {kind: summarise(group) for kind, group in kinds.items() if group}


def as_markdown(summary: dict) -> str:
    """Two tables for each kind of pairs."""
    lines = []
    if "frames" in summary:
        drawn = "{frames} pictures a path, {steps} steps, guidance {guidance}, rows {rows}, seed {seed}"
        lines += [f"Embedded diffusion model, {drawn.format(**summary)}", ""]
    for kind, group in summary["kinds"].items():
        of = {name: measured["mean"] for name, measured in group["facts"].items()}
        lines += [
            f"**{kind}**, {group['pairs']} pairs. Transport sends {of['moved']:.1f} of 77 rows to another "
            f"place, {of['words_moved']:.1f} of {of['words']:.1f} that are not padding in both prompts, and "
            f"saves {100 * of['saved']:.1f}% of the cost of going row by row; "
            f"{100 * of['padding']:.0f}% of that is the padding's.",
            "",
        ]
        if "couplings" not in group:
            continue
        lines += [f"| coupling | {' | '.join(HEADS)} |", f"|---|{'---|' * len(HEADS)}"]
        for title, table, sign in (
            ("", group["couplings"], ""),
            (" less row", group["less row by row"], "+"),
        ):
            for coupling, measured in table.items():
                cells = [f"{measured[m]['mean']:{sign}.3f} ± {measured[m]['half']:.3f}" for m in MEASURES]
                lines.append(f"| {coupling}{title} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def describe_swaps(rows: list[dict]) -> str:
    """A sentence for each kind of pairs."""
    lines = []
    for kind in ("similar", "dissimilar"):
        group = [row for row in rows if row["kind"] == kind]
        if not group:
            continue
        way, of = interval([row["way"] for row in group]), sum(row["of"] for row in group)
        words, padding = (sum(row["read"][i] for row in group) for i in (0, 1))
        lines.append(
            f"{kind}, {len(group)} pairs: with the other's padding the picture is {way['mean']:.2f} ± "
            f"{way['half']:.2f} of the way to the other's; of {of} attributes in which the two differ the "
            f"judge reads {words} as the words say and {padding} as the padding says"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=120, help="half of them similar, half not")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--rows", default="all")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--couplings-only", action="store_true", help="draw nothing, say what transport moves"
    )
    parser.add_argument(
        "--swap-padding", action="store_true", help="say whom words with other padding follow"
    )
    parser.add_argument("--out", type=Path, help="folder of the results")
    add_shard(parser)
    args = parser.parse_args()
    shard = shard_given(parser, args)
    if args.out is None and not (args.couplings_only or args.swap_padding):
        parser.error("--out must be given unless --couplings-only or --swap-padding")
    torch.set_num_threads(args.threads)
    how = Settings(args.seed, args.frames, args.steps, args.guidance, args.rows)

    model = TextToImage(load_diffusion("world"))
    if args.couplings_only:
        rows = {i: couple_pair(i, model, how) for i in range(args.pairs)}
        print(as_markdown({"kinds": kinds_of(rows)}))
        return
    distance, negative = feature_metric(load_clip("world")), model.encode_negative()
    if args.swap_padding:
        print(describe_swaps([swap_padding(i, model, negative, distance, how) for i in range(args.pairs)]))
        return
    record = json.loads(embedded("world-diffusion").with_suffix(".record.json").read_text())
    header = {**asdict(how), "model": record["sha256"]}
    tasks = [(index,) for index in range(args.pairs)]

    def work(task: tuple) -> dict:
        return run_pair(*task, model, negative, distance, how)

    path = args.out / "pairs.jsonl"
    done = work_through(path, header, tasks, work, start=lambda: None, workers=1, shard=shard)
    if shard != WHOLE:
        return
    rows = {row["index"]: row for row in done}
    summary = {**header, "kinds": kinds_of(rows), "machine": machine()}
    write_json(args.out / "summary.json", summary)
    write_text(args.out / "summary.md", as_markdown(summary))
    print(as_markdown(summary))


if __name__ == "__main__":
    main()
