"""Did the asked attribute change, and did everything else stay? Judged on edits of the rendered world.

    python -m benchmarks.quality.morph --edits 200 --loss geodesic --out results/geodesic

Edits are drawn from ``--seed``: a random scene (any shape, colours, size, texture), then one attribute,
object colour and background in turn, to another legal value. With ``--shapes N``, N edits of the shape
follow, which are reported beside the others and not among them. The picture is morphed with the default
recipe of ``--method`` (``--strength`` and ``--set`` change it), from the caption of the scene to that of the
edited scene, and judged by ``geokernels.world.judge``, which uses no CLIP.

  reached   the judge names the asked value
  kept      share of the other four attributes that it names as they were
  right     all five at once
  psnr      in dB, against the source, over the pixels that were not to change: outside the object, or
            inside it when the background was asked; for a shape, outside both outlines

Beside the judge's verdict stands the opinion of the embedded evaluation CLIP
(``benchmarks/quality/witness.py``), which neither guides nor selects:

  named     its zero-shot answer for the asked attribute is the asked value
  direction cosine between the change of its picture features and that of its text features

Both are also asked of a render of what was asked for: no edit can be expected to do better.

Each finished edit is one line of ``edits.jsonl``; a run that was stopped continues where it was. Shares come
with 95% intervals (Wilson's; for the mean of kept the normal one over edits), in ``summary.json`` and
``summary.md``. ``--workers`` processes of one thread each share the work, so that ``seconds`` are those of a
picture on one core while the others are busy too; ``--alone`` measures one picture at a time on every core.
The seeds 0 to 999 were used to choose the recipe; report on others. All losses at several strengths, and
adaptations beside edits: ``benchmarks.quality.plasticity``.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch

from geokernels import world
from geokernels._files import sha256, write_json, write_text
from geokernels.environment import versions
from geokernels.metrics import wilson_interval
from geokernels.models.clip import EVALUATION, load_clip
from geokernels.models.clip_sources import EMBEDDED
from geokernels.models.embedded import embedded
from geokernels.pipelines import ClipInversionConfig, LayerEditConfig, clip_inversion, edit_layer
from geokernels.pipelines.guidance.terms import MAIN
from geokernels.runs.shards import WHOLE

from ..harness.machine import machine
from .edits import ATTRIBUTES, as_stored, attribute_of, draw, judge_edit, mean_of, percent
from .lines import add_shard, shard_given, work_through
from .witness import Witness

CONFIGS = {"clip-inversion": ClipInversionConfig, "text2live": LayerEditConfig}
TARGETS = {"reached": 0.90, "kept": 0.92, "right": 0.75, "seconds": 10.0, "shape reached": 0.50}

_encoder, _witness = None, None  # one of each a process


def run_edit(task: tuple[int, str, int, ClipInversionConfig | LayerEditConfig]) -> dict:
    """Morph and judge one edit."""
    index, attribute, seed, config = task
    scene, target = draw(seed, index, attribute)
    source = world.render(scene)[0]
    texts = world.caption(scene)[0], world.caption(target)[0]
    chance = torch.Generator().manual_seed(seed * 1_000_003 + index)
    start = time.perf_counter()
    morph = edit_layer if isinstance(config, LayerEditConfig) else clip_inversion
    result = morph(source, [_encoder], *texts, config=config, generator=chance)
    edited = result.composite if isinstance(config, LayerEditConfig) else result.picture
    seconds = time.perf_counter() - start

    return {
        "index": index,
        "attribute": attribute,
        "from": texts[0],
        "to": texts[1],
        **judge_edit(edited, scene, target, attribute),
        "seconds": round(seconds, 3),
        "witness": _witness(source, as_stored(edited), world.render(target)[0], texts, attribute)._asdict(),
    }


def start_worker(weights: str | None, threads: int) -> None:
    """Load the CLIP that guides, and the one that only evaluates, once a process."""
    global _encoder, _witness
    torch.set_num_threads(threads)
    _encoder, _witness = load_clip("world", weights), Witness()


def opinions(rows: list[dict]) -> dict:
    """What the evaluation CLIP says of one group of edits."""
    n, said = len(rows), [row["witness"] for row in rows]
    asked = [row["wanted"][row["attribute"]] for row in rows]
    judged = [row["seen"][row["attribute"]] for row in rows]

    def share(key: str, answers: list[str | None]) -> dict:
        return wilson_interval(sum(w[key] == a for w, a in zip(said, answers)), n)._asdict()

    return {
        "named": share("named", asked),
        "named of truth": share("named_of_truth", asked),
        "as the judge": share("named", judged),
        "direction": mean_of([w["direction"] for w in said], "mean"),
        "direction of truth": mean_of([w["direction_of_truth"] for w in said], "mean"),
    }


def summarise(rows: list[dict]) -> dict:
    """Shares with intervals over one group of edits."""
    n = len(rows)
    lost: dict[str, int] = {}
    for row in rows:
        for name, value in row["wanted"].items():
            if name != row["attribute"] and row["seen"][name] != value:
                lost[name] = lost.get(name, 0) + 1
    return {
        "edits": n,
        "reached": wilson_interval(sum(row["reached"] for row in rows), n)._asdict(),
        # whole edits are the independent trials: the four attributes of one picture fail together
        "kept": mean_of([row["kept"] for row in rows], "share"),
        "right": wilson_interval(sum(row["right"] for row in rows), n)._asdict(),
        "lost": lost,
        "psnr": round(statistics.fmean(row["psnr"] for row in rows), 2),
        "seconds": round(statistics.median(row["seconds"] for row in rows), 2),
        "witness": opinions(rows),
    }


def groups(rows: list[dict]) -> dict[str, dict]:
    """Colour and background together and apart, and the shapes beside them."""
    members = {"colour and background": [row for row in rows if row["attribute"] != "shape"]}
    for attribute in (*ATTRIBUTES, "shape"):
        members[attribute] = [row for row in rows if row["attribute"] == attribute]
    return {name: summarise(group) for name, group in members.items() if group}


def as_markdown(summary: dict) -> str:
    """The judge's table, with what it was measured on, and the second opinion."""
    lines = [
        f"{summary['method']}, {summary['loss']} loss, strength {summary['strength']}, "
        f"seed {summary['seed']}, {summary['steps']} steps, {summary['machine']['processor']}",
        "",
        "| edits of | n | asked reached | others kept | all right | PSNR, untouched | s a picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in summary["groups"].items():
        shares = (percent(group[key]) for key in ("reached", "kept", "right"))
        lines.append(
            f"| {name} | {group['edits']} | {' | '.join(shares)} | {group['psnr']} dB | {group['seconds']} |"
        )
    lines += [
        "",
        "Of the same pictures, what the evaluation CLIP says, which guided nothing and selected nothing:",
        "",
        "| edits of | asked named | of true edits | as the judge | direction | of true edits |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in summary["groups"].items():
        said = group["witness"]
        cosines = (f"{said[key]['mean']:.3f}" for key in ("direction", "direction of truth"))
        shares = (percent(said[key]) for key in ("named", "named of truth", "as the judge"))
        lines.append(f"| {name} | {' | '.join((*shares, *cosines))} |")
    return "\n".join(lines) + "\n"


def settings(args: argparse.Namespace) -> ClipInversionConfig | LayerEditConfig:
    """The default recipe with what the command line changes."""
    config = CONFIGS[args.method](loss=args.loss)
    kinds = {field.name for field in fields(config)}
    changes = {}
    for setting in args.set:
        name, _, value = setting.partition("=")
        if name not in kinds:
            raise SystemExit(f"--set must name a setting of {type(config).__name__}, got {name!r}")
        value = value if name in ("loss", "parametrisation") else json.loads(value)
        changes[name] = tuple(value) if isinstance(value, list) else value
    if args.strength is not None:
        changes["strength"] = args.strength
    return replace(config, **changes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=200, help="edits of object colour and background")
    parser.add_argument("--shapes", type=int, default=0, help="edits of the shape, reported beside them")
    parser.add_argument("--method", choices=tuple(CONFIGS), default="clip-inversion")
    parser.add_argument("--loss", choices=("geodesic", "directional"), default="geodesic")
    parser.add_argument("--strength", type=float, help="weight of the text's direction; the default recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="any other setting")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--weights", help="another weights file for the world's CLIP")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--alone", action="store_true", help="one picture at a time on every core")
    parser.add_argument("--out", type=Path, required=True)
    add_shard(parser)
    args = parser.parse_args()
    shard = shard_given(parser, args)

    config = settings(args)
    header = {
        "method": args.method,
        "config": json.loads(json.dumps(asdict(config))),
        "seed": args.seed,
        "edits": args.edits,
    }
    header["weights"] = sha256(args.weights) if args.weights else "packaged"
    header["witness"] = sha256(embedded(EMBEDDED[EVALUATION]))
    tasks = [(i, attribute_of(i, args.edits), args.seed, config) for i in range(args.edits + args.shapes)]
    workers, threads = (1, os.cpu_count()) if args.alone else (args.workers, 1)
    rows = work_through(
        args.out / "edits.jsonl",
        header,
        tasks,
        run_edit,
        start=start_worker,
        given=(args.weights, threads),
        workers=workers,
        shard=shard,
    )
    if shard != WHOLE:
        return
    summary = {
        "loss": config.loss,
        "strength": config.weight(MAIN[config.loss]),
        "steps": config.steps,
        **header,
        "targets": TARGETS,
        "groups": groups(rows),
        "machine": machine(),
        "versions": versions(),
        "workers": workers,
        "threads": threads,
    }
    write_json(args.out / "summary.json", summary)
    write_text(args.out / "summary.md", as_markdown(summary))
    print(as_markdown(summary))


if __name__ == "__main__":
    main()
