"""Fill the tables of the documents from the results: ``python -m benchmarks.tables [--check]``.

A table in ``docs/`` that shows results stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``,
with a NAME of ``TABLES``. ``benchmarks/results/`` holds the data alone.
"""

import argparse
import csv
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from geokernels.metrics.summary import COLUMNS, readable

from . import scaling
from .cost import adapt, card, edit, edit_time, flow, memory_large, morph, whole
from .cost import video as video_cost
from .cost.table import cost_table
from .gpu import tables as gpu_tables
from .harness.machine import ROOT
from .operators import precision
from .quality import (
    blend,
    blend_model,
    blend_path,
    conventions,
    fronts,
    interpolate,
    loss_contrast,
    loss_gradients,
    photographs,
)
from .quality import video as video_edit
from .quality.edits import percent
from .quality.plasticity import STAGES

RESULTS, DOCS = ROOT / "benchmarks/results", ROOT / "docs"
PLACE = re.compile(r"(<!-- table: (.+?) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
METHOD_COLUMNS = ("reached", "kept", "right", "background", "structure", "directional")


def load(name: str) -> dict:
    """A results file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def judged_edits(*names: str) -> str:
    """What edits by several losses came to, loss by loss."""
    head = ("loss", "edits of", "n", "asked reached", "others kept", "all right at once", "PSNR, untouched")
    rows = []
    for name in names:
        summary = load(f"stability-plasticity-{name}")
        loss = f"{summary['loss']}, strength {summary['strength']:g}"
        for kind, group in summary["groups"].items():
            shares = (percent(group[key]) for key in ("reached", "kept", "right"))
            rows.append((loss, kind, str(group["edits"]), *shares, f"{group['psnr']:.1f} dB"))
    return as_table(head, rows)


def compared_methods(name: str) -> str:
    """Methods of editing, by what the judge says, two other measures, and passes where they were counted."""
    lines = csv.DictReader((RESULTS / f"{name}.csv").read_text(encoding="utf-8").splitlines())
    summary = {line["method"]: _summary_of(line) for line in lines}
    head, rows = readable(summary)
    chosen = [0, *(i for name in METHOD_COLUMNS for i, title in enumerate(head) if title[:-2] == name)]
    if all(of["passes"] for of in summary.values()):
        chosen.append(head.index("passes an edit"))
    return as_table(
        [head[i] for i in chosen], [[f"`{row[0]}`", *(row[i] for i in chosen[1:])] for row in rows]
    )


def _summary_of(line: dict[str, str]) -> dict:
    """One method's summary, as the evaluation has it, from its line of the file."""
    summary: dict = {"edits": line["edits"], "failed": line["failed"], "seconds": float(line["seconds"])}
    summary["passes"] = float(line["passes"]) if line.get("passes") else None
    for name in COLUMNS:
        parts = {"value": name} | {part: f"{name}_{part}" for part in ("low", "high")}
        summary[name] = {part: float(line[key]) for part, key in parts.items()} if line[name] else None
    return summary


def trial_of(name: str) -> str:
    """What every arm of a stage of the trial came to."""
    part = load("plasticity/summary")["stages"][name]
    return f"{part['trials']} {part['title']}.\n\n{fronts.points_of(part)}"


def areas_of_trial() -> str:
    """Hypervolumes of the stages with several strengths."""
    stages = load("plasticity/summary")["stages"].values()
    return fronts.areas_of([part for part in stages if len(part["strengths"]) > 2])


def areas_by_the_worlds_recipe() -> str:
    """Hypervolumes of the world's recipe and of its start, as they were measured before the trial."""
    rows = []
    for part in load("plasticity/world")["pipelines"].values():
        for loss, found in part["losses"].items():
            low, high = found["hypervolume interval"]
            less = found.get("less directional")
            apart = f"{less[0]:+.3f} to {less[1]:+.3f}" if less else ""
            area = f"{found['hypervolume']:.3f} [{low:.3f}, {high:.3f}]"
            rows.append((f"{part['trials']} {part['unit']}", loss, area, apart))
    return as_table(("", "loss", "hypervolume", "less directional"), rows)


def measured_on_a_gpu() -> bool:
    """Whether a run on a GPU has been put beside the others."""
    return (RESULTS / "gpu.json").exists()


TABLES: dict[str, Callable[[], str]] = {
    "cost of adapt": lambda: cost_table(load("adaptation-cost"), adapt.COLUMNS, adapt.PATTERN),
    "cost of adapt, real size": lambda: cost_table(
        load("adaptation-cost-real"), adapt.COLUMNS, adapt.PATTERN
    ),
    "cost of edit": lambda: cost_table(load("editing-cost"), edit.COLUMNS, edit.PUBLISHED),
    "cost of edit, XL": lambda: cost_table(load("editing-cost-sdxl"), edit.COLUMNS, "exact"),
    "cost of edit, SD3": lambda: cost_table(load("editing-cost-sd3"), flow.COLUMNS, flow.FIRST),
    "cost of edit, FLUX": lambda: cost_table(load("editing-cost-flux"), flow.COLUMNS, flow.FIRST),
    "whole runs": lambda: whole.as_markdown(load("whole-runs")),
    "memory of large runs": lambda: memory_large.as_markdown(load("memory-large")),
    "memory": lambda: card.as_markdown(load),
    "time of edit": lambda: cost_table(load("editing-time"), edit_time.COLUMNS, edit.PUBLISHED),
    "cost of morph": lambda: cost_table(load("layer-edit-cost"), morph.COLUMNS, morph.PATTERN),
    "cost of morph, real size": lambda: cost_table(
        load("layer-edit-cost-real"), morph.COLUMNS, morph.PATTERN
    ),
    "cost of video": lambda: video_cost.as_markdown(load("video-cost")),
    "cost of video, real size": lambda: video_cost.as_markdown(load("video-cost-real")),
    "quality of video": lambda: video_edit.as_markdown(load("video-edit")),
    "maps of blend": lambda: blend.as_markdown(load("blend-maps")),
    "model of blend": lambda: blend_model.as_markdown(load("blend-model")["kinds"]),
    "path of blend": lambda: blend_path.as_markdown(load("blend-path")["kinds"]),
    "photographs": lambda: photographs.as_markdown(load("photographs")),
    "quality of morph": lambda: judged_edits("geodesic", "directional"),
    "quality of layers": lambda: judged_edits("text2live-geodesic", "text2live-directional"),
    "quality of edit": partial(compared_methods, "editing-world"),
    "conventions": lambda: conventions.as_markdown(load("conventions")),
    "quality of interpolate": lambda: interpolate.as_markdown(load("prompt-interpolation")),
    **{f"trial: {name}": partial(trial_of, name) for name in STAGES},
    "trial: hypervolumes": areas_of_trial,
    "hypervolumes of the world's recipe": areas_by_the_worlds_recipe,
    "targets on a GPU": lambda: gpu_tables.targets(load("gpu") if measured_on_a_gpu() else None, as_table),
    "kernels on a GPU": lambda: gpu_tables.kernels(load("gpu-compiled"), as_table),
    "precision of Triton": lambda: precision.as_markdown(load("triton-precision")["rows"]),
    "time over processes": lambda: scaling.times(load("scaling")),
    "bytes over processes": lambda: scaling.passed(load("scaling")),
    "processes on paper": lambda: scaling.on_paper(load("scaling")),
    "contrast of losses": lambda: loss_contrast.as_markdown(load("plasticity/contrast")["rows"]),
    "gradients of losses": lambda: loss_gradients.as_markdown(load("loss-gradients")["rows"]),
}


def fill(text: str) -> str:
    """``text`` with its tables as the results have them.

    Raises:
        ValueError: If it asks for a table that there is not, or a place has no end.
    """
    for name in re.findall(r"<!-- table: (.+?) -->", text):
        if name not in TABLES:
            raise ValueError(f"a table must be one of {', '.join(TABLES)}, got {name!r}")
    if len(PLACE.findall(text)) != text.count("<!-- table:"):
        raise ValueError("every <!-- table: NAME --> must have its <!-- end of table -->")
    return PLACE.sub(lambda place: f"{place[1]}{TABLES[place[2]]().rstrip()}\n{place[4]}", text)


def pages() -> list[Path]:
    """The documents that show results."""
    documents = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return [page for page in documents if "<!-- table:" in page.read_text(encoding="utf-8")]


def main() -> None:
    """Fill every document, or only look."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, and fail if a table is another")
    args = parser.parse_args()
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if fill(text) == text:
            continue
        if args.check:
            raise SystemExit(f"{page} shows another table than the results; python -m benchmarks.tables")
        page.write_text(fill(text), encoding="utf-8")


if __name__ == "__main__":
    main()
