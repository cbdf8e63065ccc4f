"""Losses compared by what they reach and what they keep: edits of pictures and of generators, judged.

    python -m benchmarks.quality.plasticity --edits 200 --adaptations 60 --out runs/fronts

Every edit of a picture (``benchmarks/quality/plasticity_morph.py``) and every adaptation of the
embedded generator (``benchmarks/quality/plasticity_adapt.py``) is run with the directional, the
spherical (great-circle) and the geodesic loss at five strengths each, all else equal, by the default recipe.

  reached   the judge finds the asked value of the asked attribute (plasticity)
  kept      share of the other four attributes that the judge finds as they were (stability)

Both are means over trials, the edits or adaptations, with 95% intervals over these. A strength is a point;
the points of a loss that no other of its points beats in both are its front, and the area below the front,
from (0, 0), its hypervolume, with intervals from resampling trials. The row "start" is what is there before
any step, the same for all losses: the first guess of an edit, the transport of codes of an adaptation.

One trial with all losses and strengths is one line of ``edits.jsonl`` or ``adaptations.jsonl``; a run that
was stopped continues where it was, and the counts may grow. ``summary.json``, ``fronts.png`` and
``fronts.html`` are made of the lines that there are; with counts of 0, of these alone. Seeds 0 to 999 were
used to choose the recipes; report on others.
"""

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from geokernels._files import write_json, write_text
from geokernels.environment import versions
from geokernels.pipelines import AdaptationConfig

from ..harness.machine import machine
from . import plasticity_adapt as adaptations
from . import plasticity_morph as inversions
from .fronts import as_markdown, draw_fronts, front_page, summarise
from .lines import work_through


def run_edits(out: Path, count: int, args: argparse.Namespace) -> dict | None:
    """Edit pictures; the part of the summary that tells of it, None where there is nothing to tell."""
    config = inversions.METHODS[args.method](recipe="world")
    if args.steps is not None:
        config = replace(config, steps=args.steps)
    header = {"method": args.method, **_header(config, args.seed, inversions.STRENGTHS)}
    tasks = inversions.tasks(count, args.seed, config, args.method, inversions.STRENGTHS)
    path, start = out / "edits.jsonl", inversions.start_worker
    rows = work_through(path, header, tasks, inversions.run_edit, start=start, workers=args.workers)
    return _part(inversions, header, rows)


def run_adaptations(out: Path, count: int, args: argparse.Namespace) -> dict | None:
    """Adapt generators; the part of the summary that tells of it, None where there is nothing to tell."""
    config = AdaptationConfig(recipe="world")
    if args.steps is not None:
        config = replace(config, steps=args.steps)
    header = _header(config, args.seed, adaptations.STRENGTHS)
    tasks = adaptations.tasks(count, args.seed, config, adaptations.STRENGTHS)
    path, start = out / "adaptations.jsonl", adaptations.start_worker
    rows = work_through(path, header, tasks, adaptations.run_adaptation, start=start, workers=args.workers)
    return _part(adaptations, header, rows)


def _header(config, seed: int, strengths: tuple[float, ...]) -> dict:
    return {"config": json.loads(json.dumps(asdict(config))), "seed": seed, "strengths": list(strengths)}


def _part(kind, header: dict, rows: list[dict]) -> dict | None:
    if not rows:
        return None
    told = {"unit": kind.UNIT, "trials": len(rows), "strength": kind.STRENGTH}
    return {**header, **told, "losses": summarise(rows)}


def report(summary: dict, out: Path, pages: Path) -> None:
    """Write the summary to ``out``, the drawing and the page to ``pages``, and print the tables."""
    parts = summary["pipelines"]
    write_json(out / "summary.json", summary)
    pages.mkdir(parents=True, exist_ok=True)
    drawing = pages / "fronts.png"
    draw_fronts(
        drawing, {f"{name}, {part['trials']} {part['unit']}": part["losses"] for name, part in parts.items()}
    )
    write_text(pages / "fronts.html", front_page(summary, drawing))
    for name, part in parts.items():
        print(f"{name}: {part['trials']} {part['unit']}, {part['config']['steps']} steps each.", end=" ")
        print(f"{part['strength']}\n\n{as_markdown(part['losses'])}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--adaptations", type=int, default=60)
    parser.add_argument("--method", choices=tuple(inversions.METHODS), default="clip-inversion")
    parser.add_argument("--steps", type=int, help="of each run; the default recipe's")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, required=True, help="folder of the lines and the summary")
    parser.add_argument("--pages", type=Path, help="folder of the drawing and the page; as --out")
    args = parser.parse_args(arguments)

    parts = {args.method: run_edits, "adapt": run_adaptations}
    counts = {args.method: args.edits, "adapt": args.adaptations}
    results = {name: run(args.out, counts[name], args) for name, run in parts.items()}
    results = {name: part for name, part in results.items() if part}
    if not results:
        raise SystemExit(f"{args.out} holds no trials, and none were asked for")
    known = {"seed": args.seed, "machine": machine(), "versions": versions()}
    report({**known, "pipelines": results}, args.out, args.pages or args.out)


if __name__ == "__main__":
    main()
