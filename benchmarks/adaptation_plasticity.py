"""Does an adapted generator draw what was asked, and is the rest as it was? Judged on the rendered world.

    python -m benchmarks.adaptation_plasticity --adaptations 60 --out runs/adaptations

Adaptation ``i`` asks every sample of the embedded generator for one value of one attribute, attributes in
turn: from "an object" to, say, "an object on a green background". Each is run with every loss at every
strength, from the same latents, the same start and the same samples. The judge
(``geokernels.world.judge``), which uses no trained model, reads samples that the adaptation never visited,
before and after:

  reached   of the samples that did not show the asked value already (and could: no object has the colour
            of its background), the share that shows it now
  kept      share of their other four attributes that read as before

Both are means over adaptations, with 95% intervals over adaptations, which are the independent trials. A
strength is a point; the points of a loss that no other of its points beats in both are its front, and the
area below the front, from (0, 0), its hypervolume. The row "start" is what the transport of codes reaches
before any step, the same for all losses. A strength is a multiple of the recipe's learning rate: Adam divides
the weight of a loss out.

One adaptation with all losses and strengths is one line of ``adaptations.jsonl``; a run that was stopped
continues where it was, and ``--adaptations`` may grow. ``summary.json``, ``summary.md``, ``fronts.png`` and
``fronts.html`` are made of the lines that there are. Seeds 0 to 999 were used to choose the recipe; report
on others.
"""

import argparse
import json
import multiprocessing
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from geokernels import world
from geokernels._files import write_json, write_text
from geokernels.models import load_clip, load_generator
from geokernels.pipelines import Adaptation, AdaptationConfig
from geokernels.pipelines.nada import LEARNING_RATES
from geokernels.report.record import versions

from .fronts import draw_fronts, front, front_page, hypervolume
from .machine import machine
from .stability_plasticity import finished, mean_interval, percent

LOSSES = ("directional", "spherical", "geodesic")
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)  # times the recipe's learning rate
SAMPLES = 48
START = "start"
ORDER = ("colour", "background", "texture", "shape", "size")

_models = None  # generator and encoder of a process


def asked(index: int, seed: int) -> tuple[str, str, str, str]:
    """Attribute, value, source and target text of adaptation ``index``."""
    attribute = ORDER[index % len(ORDER)]
    values = world.ATTRIBUTES[attribute]
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed)).tolist()
    value = values[order[index // len(ORDER) % len(values)]]
    return attribute, value, "an object", world.describe({attribute: value})


def score(before: list[dict], after: list[dict], attribute: str, value: str) -> dict[str, float]:
    """Shares of the samples that could be asked for ``value``."""
    opposite = {"colour": "background", "background": "colour"}.get(attribute)
    shown = {attribute, opposite} - {None}
    pairs = [(a, b) for a, b in zip(before, after) if all(a[name] != value for name in shown)]
    others = [a[name] == b[name] for a, b in pairs for name in a if name != attribute]
    return {
        "samples": len(pairs),
        "reached": sum(b[attribute] == value for _, b in pairs) / len(pairs),
        "kept": sum(others) / len(others),
    }


def start_worker() -> None:
    """Load the models once a process."""
    global _models
    torch.set_num_threads(1)
    _models = load_generator(), load_clip()


def run_adaptation(task: tuple[int, int, AdaptationConfig, tuple[float, ...]]) -> dict:
    """One adaptation with every loss at every strength."""
    index, seed, config, strengths = task
    model, encoder = _models
    attribute, value, *texts = asked(index, seed)
    unseen = torch.Generator().manual_seed(seed + index + 2**40)
    z = torch.randn(SAMPLES, model.config.style_dim, generator=unseen)
    with torch.no_grad():
        w = model.mapping(z)

    def begin(loss: str, factor: float) -> Adaptation:
        settings = replace(config, loss=loss, learning_rate=factor * LEARNING_RATES[config.train])
        chance = torch.Generator().manual_seed(seed * 1_000_003 + index)
        return Adaptation(model, [encoder], *texts, config=settings, generator=chance)

    def judged(run: Adaptation) -> dict[str, float]:
        # what a file would hold
        pictures = (run.pictures(w) * 255).round() / 255
        return score(before, world.judge(pictures).names(), attribute, value)

    first = begin(LOSSES[0], 1.0)
    before = world.judge((first.pictures(w) * 255).round() / 255).names()
    clock = time.process_time()
    first.prepare()
    found = {START: {"1": judged(first)}}
    seconds = {"prepare": time.process_time() - clock}
    for loss in LOSSES:
        found[loss], clock = {}, time.process_time()
        for factor in strengths:
            run = begin(loss, factor)
            run.prepare_like(first)
            while not run.done:
                run.step()
            found[loss][f"{factor:g}"] = judged(run)
        seconds[loss] = (time.process_time() - clock) / len(strengths)
    return {
        "index": index,
        "attribute": attribute,
        "value": value,
        "start": first.start and {"cosine": first.start.cosine, "taken": first.started},
        "found": found,
        "processor_seconds": {name: round(spent, 2) for name, spent in seconds.items()},
    }


def summarise(rows: list[dict]) -> dict[str, dict]:
    """Points with intervals, front and hypervolume of every loss."""
    summary = {}
    for loss in rows[0]["found"]:
        points = {}
        for factor in rows[0]["found"][loss]:
            scores = [row["found"][loss][factor] for row in rows]
            points[factor] = {
                key: mean_interval([score[key] for score in scores], "share") for key in ("reached", "kept")
            }
        pairs = {f: (p["reached"]["share"], p["kept"]["share"]) for f, p in points.items()}
        summary[loss] = {
            "points": points,
            "front": front(pairs),
            "hypervolume": hypervolume(list(pairs.values())),
        }
    return summary


def as_markdown(summary: dict) -> str:
    """One row a loss and strength."""
    lines = [
        f"{summary['adaptations']} adaptations of {SAMPLES} samples each, seed {summary['seed']}, "
        f"{summary['config']['steps']} steps, {summary['machine']['processor']}",
        "",
        "| loss | strength | reached | kept | on its front | hypervolume |",
        "|---|---|---|---|---|---|",
    ]
    for loss, found in summary["losses"].items():
        for factor, point in found["points"].items():
            shares = " | ".join(map(percent, point.values()))
            mark = "yes" if factor in found["front"] else ""
            lines.append(f"| {loss} | {factor} | {shares} | {mark} | {found['hypervolume']:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adaptations", type=int, default=60)
    parser.add_argument("--steps", type=int, help="of each; the default recipe's")
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=STRENGTHS, help="times the learning rate"
    )
    parser.add_argument("--no-start", action="store_true", help="from the generator as it is")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    config = AdaptationConfig()
    if args.steps is not None:
        config = replace(config, steps=args.steps)
    if args.no_start:
        config = replace(config, guess=2.0)
    strengths = tuple(args.strengths)
    header = {
        "config": json.loads(json.dumps(asdict(config))),
        "seed": args.seed,
        "strengths": list(strengths),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "adaptations.jsonl"
    rows = finished(path, header)
    tasks = [(i, args.seed, config, strengths) for i in range(args.adaptations) if i not in rows]
    with path.open("a") as file:
        if not rows and file.tell() == 0:
            file.write(json.dumps(header) + "\n")
            file.flush()
        # a fresh interpreter each: forking after torch has started threads can hang
        with multiprocessing.get_context("spawn").Pool(args.workers, start_worker) as pool:
            for row in pool.imap_unordered(run_adaptation, tasks):
                rows[row["index"]] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(f"\r{len(rows)} of {args.adaptations}", end="", flush=True)
    print()
    done = [rows[i] for i in sorted(rows)]
    summary = {"adaptations": len(done), **header, "losses": summarise(done)}
    summary |= {"machine": machine(), "versions": versions()}
    write_json(args.out / "summary.json", summary)
    write_text(args.out / "summary.md", as_markdown(summary))
    draw_fronts(args.out / "fronts.png", summary["losses"], "asked attribute reached", "others kept")
    write_text(args.out / "fronts.html", front_page("Adaptations", summary, args.out / "fronts.png"))
    print(as_markdown(summary))


if __name__ == "__main__":
    main()
