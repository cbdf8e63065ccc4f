r"""How much each convention of measuring moves each number, on edits that were made once.

    geokernels eval --world 100 --seed 1000 --steps 10 --batch 10 --out runs/conventions \
        --method oig --method ddim_swap:negative=empty
    python -m benchmarks.quality.conventions --run runs/conventions --out benchmarks/results/conventions.json

Every edit of the run is measured by the conventions of the rendered world, and again with one convention
changed at a time, and with all that PIE-Bench has otherwise. What is published is the mean change over the
edits, with 95% intervals. A convention of DINO or LPIPS needs their weights, and is not among these.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from geokernels._files import write_json
from geokernels.environment import versions
from geokernels.losses import feature_distance
from geokernels.media.pictures import read_picture
from geokernels.metrics import Conventions, mean_interval
from geokernels.metrics.conventions import FEATURES, TOKENS, WORLD
from geokernels.metrics.summary import COLUMNS
from geokernels.models import load_clip
from geokernels.models.clip import EVALUATION
from geokernels.runs.measures import Measures
from geokernels.world import read_edit_folder

from ..harness.machine import machine

BASE = Conventions(**WORLD, clip=EVALUATION, perceptual=FEATURES, structure=TOKENS)
CHANGES: dict[str, dict[str, object]] = {
    "border=true": {"border": True},
    "fill=grey": {"fill": "grey"},
    "fill=source": {"fill": "source"},
    "counted=outside": {"counted": "outside"},
    "ssim=uniform": {"ssim": "uniform"},
    "whole_masks=counted": {"whole_masks": "counted"},
    "jpeg=75": {"jpeg": 75},
    "jpeg=95": {"jpeg": 95},
    "compare_size=512": {"compare_size": 512},
    "compare_size=512, resample=bilinear": {"compare_size": 512, "resample": "bilinear"},
    "compare_size=48": {"compare_size": 48},
    "compare_size=48, mask_fit=nearest": {"compare_size": 48, "mask_fit": "nearest"},
    "brackets=kept": {"brackets": "kept"},
    "clip=world": {"clip": "world"},
    "all of PIE-Bench's": {"border": True, "jpeg": 75, "compare_size": 512},
}
JUDGED = ("reached", "kept", "right", "background")  # follow no conventions
NUMBERS = tuple(name for name in COLUMNS if name not in JUDGED)
# of these columns so many times the number is shown
SHOWN = {"structure": 1e3, "mse_outside": 1e3, "perceptual": 1e3, "perceptual_outside": 1e3}
SHOWN |= {"directional": 1e2, "ssim_outside": 1e2}


def measures_of(conventions: Conventions) -> Measures:
    """What the rendered world's CLIPs measure."""
    encoder = load_clip(conventions.clip)

    def tokens(pictures):
        return encoder.encode_image_and_tokens(pictures)[1]

    def distance(pictures, others):
        return feature_distance(encoder.image_features(pictures), encoder.image_features(others))

    names = {"structure": f"the tokens of {encoder.name}", "perceptual": f"features of {encoder.name}"}
    return Measures(encoder, tokens, distance, names, conventions=conventions)


def rows_of(run: Path) -> list[dict]:
    """The results of a run, in the order in which they came."""
    return [json.loads(line) for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def measured(run: Path, conventions: Conventions) -> Iterator[tuple[str, dict[str, float | None]]]:
    """The method and the numbers of every edit of a run."""
    measures, kept = measures_of(conventions), conventions.brackets == "kept"
    cases = {case.key: case for case in read_edit_folder(run / "edits", brackets=kept)}
    for row in rows_of(run):
        # without an attribute no judge is asked, whose verdict is in the run already
        case = replace(cases[row["key"]], attribute=None)
        picture = read_picture(run / row["picture"]).rgb
        yield row["method"], measures(case, read_picture(case.picture).rgb, picture)


def by_method(run: Path, conventions: Conventions) -> dict[str, list[dict]]:
    """The numbers of every edit, in the order of the run."""
    found: dict[str, list[dict]] = {}
    for method, numbers in measured(run, conventions):
        found.setdefault(method, []).append(numbers)
    return found


def moved(before: list[dict], after: list[dict]) -> dict[str, dict[str, float] | None]:
    """Of every number the mean change, over the edits that have it both times, with its interval."""
    changes = {}
    for name in NUMBERS:
        pairs = [(a[name], b[name]) for a, b in zip(before, after, strict=True)]
        finite = [b - a for a, b in pairs if None not in (a, b) and math.isfinite(a) and math.isfinite(b)]
        changes[name] = dict(mean_interval(finite)._asdict(), n=len(finite)) if finite else None
    return changes


def measure(run: Path) -> dict[str, dict]:
    """Of every method the numbers by the world's conventions, and how each change moves them."""
    base = by_method(run, BASE)
    methods: dict[str, dict] = {
        method: {"edits": len(rows), "base": means(rows), "moved": {}} for method, rows in base.items()
    }
    for name, change in CHANGES.items():
        other = by_method(run, replace(BASE, **change))
        for method, rows in base.items():
            methods[method]["moved"][name] = moved(rows, other[method])
        print(name, flush=True)
    return methods


def means(rows: list[dict]) -> dict[str, float]:
    """Of every number the mean over the edits that have it."""
    found = {}
    for name in NUMBERS:
        values = [row[name] for row in rows if row[name] is not None and math.isfinite(row[name])]
        found[name] = mean_interval(values).mean
    return found


def as_markdown(summary: Mapping) -> str:
    """A line for each change, with a change of each number by each method."""
    methods = summary["methods"]
    heads = [f"`{name}`" + (f" x {SHOWN[name]:g}" if name in SHOWN else "") for name in NUMBERS]
    lines = [["convention", *heads]]
    base = {name: [{"mean": of["base"][name], "half": 1} for of in methods.values()] for name in NUMBERS}
    first = [_cell(values, name, "") for name, values in base.items()]
    lines += [["---"] * len(lines[0]), ["the world's", *first]]
    for change in next(iter(methods.values()))["moved"]:
        cells = [_cell([of["moved"][change][name] for of in methods.values()], name) for name in NUMBERS]
        lines.append([f"`{change}`" if "=" in change else change, *cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(changes: list[Mapping | None], name: str, sign: str = "+") -> str:
    """The changes by every method; nothing where none moves."""
    if all(change is None or change["mean"] == change["half"] == 0 for change in changes):
        return ""
    scale = SHOWN.get(name, 1)
    return " / ".join("" if change is None else f"{change['mean'] * scale:{sign}.2f}" for change in changes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished `geokernels eval --world`")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    methods = measure(args.run)
    record = json.loads((args.run / "run.json").read_text(encoding="utf-8"))
    edits = {"seed": record["seeds"][0], "steps": record["config"]["edits"]["steps"]}
    facts = {"fingerprint": BASE.fingerprint, **edits, "methods": methods}
    write_json(args.out, {**facts, "machine": machine(), "versions": versions()})
    print(as_markdown(facts))


if __name__ == "__main__":
    main()
