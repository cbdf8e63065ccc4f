"""The page of an interpolation between prompts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .page import chart, figure, film, lasted, page, row, run_section, section, table, text

HEAD = ("coupling", "path length", "smoothness", "largest step", "end reached")
NAMES = {
    "ot": "optimal transport",
    "entropic": "entropic transport",
    "row": "row by row",
    "slerp": "row by row, on arcs",
    "random": "random rows",
}


class ShownPath(NamedTuple):
    """The pictures of one coupling's path, as files of PNG and GIF hold them."""

    animation: bytes  # there and back
    frames: Sequence[bytes]
    labels: Sequence[str]  # a word for each frame


def scores_table(scores: Mapping[str, Mapping | None]) -> list[tuple[str, ...]]:
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


def interpolation_page(record: dict, paths: Mapping[str, ShownPath]) -> str:
    """The page of a run: a path a coupling; ``record`` as in ``run.json``."""
    prompts = record["prompts"]
    said = ", ".join(f"<strong>“{text(prompt)}”</strong>" for prompt in prompts)
    lead = (
        f"<p>Pictures that the model “{text(record['model'])}” draws on the way through the prompts {said}. "
        "All of them start from the same noise unless the settings say otherwise; what changes is the "
        f"embedding of the prompt. This took {lasted(record)}.</p>"
    )
    scores = scores_table({coupling: path["score"] for coupling, path in record["paths"].items()})
    shown_paths = [_path_section(coupling, shown, prompts) for coupling, shown in paths.items()]
    measured = [_measured(record, scores)] if scores else []
    # the couplings have all other settings in common
    settings = {**next(iter(record["config"].values())), "coupling": list(paths)}
    return page(
        " → ".join(prompts),
        lead,
        [
            *(measured + shown_paths if len(paths) > 1 else shown_paths + measured),
            run_section(record, settings=settings, note=_invariant(record["invariance"])),
        ],
    )


def _path_section(coupling: str, shown: ShownPath, prompts: Sequence[str]) -> str:
    alt = f"On the way from {prompts[0]} to {prompts[-1]}, {NAMES[coupling]}"
    strip = film(shown.frames, alt, labels=shown.labels)
    return section(NAMES[coupling].capitalize(), row(figure(shown.animation, alt)), strip)


def _measured(record: dict, scores: list[tuple[str, ...]]) -> str:
    """How even the steps of each coupling are."""
    steps = {NAMES[coupling]: path["distances"] for coupling, path in record["paths"].items()}
    note = (
        f"A step is the distance ({record['distance']}) between two neighbouring pictures. Smoothness is 1 "
        "minus the Gini coefficient of the steps: 1 where all are equal. The end is reached (100%) where the "
        "last picture is the one that the last prompt gives by itself."
    )
    curves = chart(list(zip(*steps.values())), list(steps), one_scale=True, what="Distance of neighbours")
    return section(
        "How even the steps are", table(HEAD, [tuple(map(text, r)) for r in scores]), curves, note=note
    )


def _invariant(measured: Mapping[str, float]) -> str:
    return (
        "Exchanging a prompt's rows changes the model's output by "
        f"{100 * measured['permuted']:.1g}% of the prompt's whole effect, repeating each of them by "
        f"{100 * measured['repeated']:.1g}%."
    )
