"""Do diffusion edits change what was asked, and leave the rest as it was? Judged on the rendered world.

    python -m benchmarks.editing --edits 100 --out runs/editing

Edit ``i`` asks a rendered picture for another value of one attribute, attributes in turn. The picture is
inverted by DDIM with its caption, and edited by every method from the same inversion:

  DDIM swap   the inverted noise is sampled with the target caption, and nothing guides it
  OIG         :func:`geokernels.pipelines.oig_edit`, exact, with the published weights; or as its name says

The judge (``geokernels.world.judge``), which uses no trained model, reads the results:

  reached     edits that show the asked value
  kept        share of the other four attributes that read as before
  right       edits with all five as they should be
  background  PSNR in dB to the picture outside of what may change; the mean of the edits it is finite for

Intervals are Wilson's for shares of edits, and 1.96 standard errors for means. "autoencoder" is the picture
encoded and decoded: what no method on these latents can surpass but by luck; "inversion" is what comes back
out of the noise with the source's own caption.

One batch of edits by all methods is one line of ``edits.jsonl``; a run that was stopped continues where it
was, and ``--edits`` may grow. ``summary.json``, ``summary.md`` and ``edits.png`` (source, inversion, then
the methods, an edit a row) are made of the lines that there are. Seeds 0 to 999 were used to choose settings;
report on others.
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from geokernels import world
from geokernels._files import write_json, write_text
from geokernels.metrics import outside_psnr, score_edit, wilson_interval
from geokernels.models import load_clip, load_diffusion, load_tiny_autoencoder
from geokernels.models.denoiser import Denoiser
from geokernels.pipelines import OIGConfig, ddim_inversion, oig_edit
from geokernels.report.pictures import grid, write_picture
from geokernels.report.record import versions

from .machine import machine

ORDER = ("colour", "background", "texture", "shape", "size")
BATCH = 10
SWAP = OIGConfig(until=0.0)
METHODS = {
    "DDIM swap": SWAP,
    "OIG": OIGConfig(),
    "OIG, structure 0.5": OIGConfig(structure=0.5),
    "OIG, released": OIGConfig(gradient="released"),
}


def ask(index: int, seed: int) -> tuple[world.Scenes, world.Scenes, str]:
    """Scene before, scene after, and the attribute of edit ``index``."""
    chance = torch.Generator().manual_seed(seed * 2**20 + index)
    before = world.sample_scenes(1, generator=chance)
    attribute = ORDER[index % len(ORDER)]
    return before, world.edit(before, attribute, generator=chance), attribute


def may_change(before: world.Scenes, after: world.Scenes, attribute: str, size: int) -> Tensor:
    """Where the true edit changes the picture, ``(1, size, size)`` bool."""
    first, second = world.object_mask(before, size)[0], world.object_mask(after, size)[0]
    return first < 1 if attribute == "background" else (first > 0) | (second > 0)


def score(picture: Tensor, index: int, seed: int) -> dict[str, float]:
    """What the judge says of the result of edit ``index``."""
    before, after, attribute = ask(index, seed)
    seen = world.judge(picture[None]).names()[0]
    found = score_edit(after.names()[0], seen, attribute)
    size = picture.shape[-1]
    background = outside_psnr(
        picture, world.render(before, size)[0], may_change(before, after, attribute, size)
    )
    return {**found._asdict(), "background": background, "attribute": attribute}


@torch.no_grad()
def edit_batch(models: tuple, indices: range, seed: int, steps: int, skip: int) -> tuple[dict, list[Tensor]]:
    """Scores and pictures of some edits by all methods."""
    pipeline, encoder, tiny = models
    asked = [ask(index, seed) for index in indices]
    size = Denoiser(pipeline).picture_size()[0]
    sources = torch.cat([world.render(before, size) for before, *_ in asked])
    captions = [world.caption(before)[0] for before, *_ in asked]
    targets = [world.caption(after)[0] for _, after, _ in asked]
    clock = time.process_time()
    inverted = ddim_inversion(pipeline, sources, captions, steps=steps, skip=skip)
    seconds = {"inversion": time.process_time() - clock}
    denoiser = Denoiser(pipeline)
    found = {"autoencoder": denoiser.pictures(denoiser.encode(sources))}
    for name, config in METHODS.items():
        clock = time.process_time()
        with torch.enable_grad():
            result = oig_edit(
                pipeline, encoder, inverted, targets, config=config, decoder=tiny if "tiny" in name else None
            )
        seconds[name] = time.process_time() - clock
        found[name] = result.pictures
        found.setdefault("inversion", result.sources)
    # what a file would hold
    found = {name: (pictures * 255).round() / 255 for name, pictures in found.items()}
    scores = {
        name: [score(picture, index, seed) for picture, index in zip(pictures, indices)]
        for name, pictures in found.items()
    }
    shown = [sources, found["inversion"], *(found[name] for name in METHODS)]
    return {"scores": scores, "seconds": seconds}, list(torch.stack(shown, 1).flatten(0, 1))


def run(models: tuple, out: Path, *, edits: int, seed: int, steps: int, skip: int) -> list[dict]:
    """Every batch that is not there yet; all lines."""
    path = out / "edits.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for line in lines:
        if (line["seed"], line["steps"], line["skip"]) != (seed, steps, skip):
            raise ValueError(f"{path} must be of this seed and these steps, or another folder be given")
    done = {line["first"] for line in lines}
    for first in range(0, edits, BATCH):
        if first in done:
            continue
        found, shown = edit_batch(models, range(first, first + BATCH), seed, steps, skip)
        write_picture(out / f"edits-{first:04d}.png", grid(shown, columns=2 + len(METHODS)))
        line = {"first": first, "seed": seed, "steps": steps, "skip": skip, **found}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        lines.append(line)
        write_summary(out, lines)
        print((out / "summary.md").read_text(), flush=True)
    return lines


def write_summary(out: Path, lines: list[dict]) -> None:
    """``summary.json`` and ``summary.md`` of the lines that there are."""
    rows = {}
    for name in lines[0]["scores"]:
        scores = [score for line in lines for score in line["scores"][name]]
        rows[name] = _row(scores)
        if name in METHODS:
            edits = BATCH * len(lines)
            rows[name]["seconds"] = sum(line["seconds"][name] for line in lines) / edits
    given = {key: lines[0][key] for key in ("seed", "steps", "skip")}
    what = {"edits": BATCH * len(lines), **given, "machine": machine(), "versions": versions()}
    write_json(out / "summary.json", {**what, "methods": rows})
    head = ["method", "reached", "kept", "right", "background dB", "CPU s an edit"]
    text = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, row in rows.items():
        cells = [name, *(_shares(row[key]) for key in ("reached", "kept", "right"))]
        cells += [f"{row['background'][0]:.1f} ± {row['background'][1]:.1f}"]
        cells += [f"{row['seconds']:.1f}" if "seconds" in row else ""]
        text.append(f"| {' | '.join(cells)} |")
    text += ["", "Reached, by attribute:", "", f"| method | {' | '.join(ORDER)} |", "|---" * 6 + "|"]
    for name, row in rows.items():
        cells = [name, *(f"{100 * row['by'][attribute]:.0f}%" for attribute in ORDER)]
        text.append(f"| {' | '.join(cells)} |")
    write_text(out / "summary.md", "\n".join(text) + "\n")


def _row(scores: list[dict]) -> dict:
    n = len(scores)
    kept = [score["kept"] for score in scores]
    finite = [score["background"] for score in scores if math.isfinite(score["background"])]
    return {
        "reached": wilson_interval(sum(score["reached"] for score in scores), n),
        "right": wilson_interval(sum(score["right"] for score in scores), n),
        "kept": (statistics.fmean(kept), *_bounds(kept)),
        "background": (statistics.fmean(finite), 1.96 * statistics.stdev(finite) / len(finite) ** 0.5),
        "by": {a: statistics.fmean(s["reached"] for s in scores if s["attribute"] == a) for a in ORDER},
    }


def _bounds(values: list[float]) -> tuple[float, float]:
    half = 1.96 * statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def _shares(interval: tuple[float, float, float]) -> str:
    share, low, high = (100 * value for value in interval)
    return f"{share:.0f}% ({low:.0f} to {high:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=100, help=f"in batches of {BATCH}")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--skip", type=int, default=1, help="timesteps left out at the inversion's ends")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--try", dest="trial", action="append", default=[], help="NAME=JSON of settings")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    for trial in args.trial:
        name, _, settings = trial.partition("=")
        METHODS[name] = replace(OIGConfig(), **json.loads(settings))
    torch.set_num_threads(args.threads)
    models = load_diffusion(), load_clip(), load_tiny_autoencoder()
    run(models, args.out, edits=args.edits, seed=args.seed, steps=args.steps, skip=args.skip)


if __name__ == "__main__":
    main()
