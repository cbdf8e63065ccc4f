"""The folder that an interpolation leaves behind."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..media.pictures import gif
from .page import chart, details, figure, film, page, row, section, table, text

HEAD = ("coupling", "path length", "smoothness", "largest step", "end reached")
NAMES = {
    "ot": "optimal transport",
    "entropic": "entropic transport",
    "row": "row by row",
    "slerp": "row by row, on arcs",
    "random": "random rows",
}


def scores_table(scores: Mapping[str, dict | None]) -> list[tuple[str, ...]]:
    """Rows of the table of couplings under ``HEAD``; nothing where no distance was measured."""
    return [
        (
            NAMES[coupling],
            f"{score['length']:.3f}",
            f"{score['smoothness']:.3f}",
            f"{score['worst_step']:.2f} x mean",
            f"{100 * score['fidelity']:.1f}%",
        )
        for coupling, score in scores.items()
        if score is not None
    ]


def interpolation_page(
    record: dict, frames: Mapping[str, Tensor], labels: Mapping[str, Sequence[str]]
) -> str:
    """The page of a run."""
    prompts = record["prompts"]
    said = ", ".join(f"<strong>“{text(prompt)}”</strong>" for prompt in prompts)
    lead = (
        f"<p>Pictures by {text(record['model'])} on the way through {said}. Every picture starts from the "
        "same noise unless the settings say otherwise; what changes is what the model reads.</p>"
    )
    ways = [_way(name, pictures, labels[name], prompts) for name, pictures in frames.items()]
    measured = {name: run["score"] for name, run in record["paths"].items()}
    rows = scores_table(measured)
    return page(
        " → ".join(prompts),
        lead,
        [
            *ways,
            *([_measured(record, rows)] if rows else []),
            section(
                "The run",
                f"<p>{record['seconds']:.0f} seconds. {text(_invariant(record['invariance']))}</p>",
                details("Every setting", {**record["config"], "seeds": record["seeds"]}),
                details("Where", record["machine"]),
                details("Versions", record["versions"]),
            ),
        ],
    )


def _way(name: str, pictures: Tensor, labels: Sequence[str], prompts: Sequence[str]) -> str:
    alt = f"On the way from {prompts[0]} to {prompts[-1]}, {NAMES[name]}"
    moving = figure(gif([*pictures, *pictures.flip(0)[1:-1]]), alt, kind="gif")
    return section(NAMES[name].capitalize(), row(moving), film(list(pictures), alt, labels=labels))


def _measured(record: dict, rows: list[tuple[str, ...]]) -> str:
    steps = {name: run["distances"] for name, run in record["paths"].items()}
    history = torch.tensor(list(steps.values()), dtype=torch.float32).T
    note = (
        f"Steps and lengths by {record['distance']}. Smoothness is 1 minus Gini's coefficient of the steps; "
        "the end is reached where the last picture is the one that the last prompt gives by itself."
    )
    curves = chart(history, [NAMES[n] for n in steps], one_scale=True, what="Distance of neighbours")
    return section("How evenly", table(HEAD, [tuple(map(text, r)) for r in rows]), curves, note=note)


def _invariant(measured: dict) -> str:
    return (
        f"Exchanging a prompt's rows changes the model's output by {100 * measured['permuted']:.1g}% of what "
        f"the prompt changes, repeating each of them by {100 * measured['repeated']:.1g}%."
    )
