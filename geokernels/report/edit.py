"""The page of the diffusion edits of one picture."""

from collections.abc import Sequence
from typing import NamedTuple

from .page import asked, chart, cost, figure, film, lasted, origin, page, row, run_section, section, text


class ShownEdits(NamedTuple):
    """The pictures of edits, as files of PNG and GIF hold them."""

    given: bytes | None  # None where the source was drawn by the model
    source: bytes
    edits: Sequence[bytes]
    frames: Sequence[Sequence[bytes]]  # of every edit, on its way out of noise
    labels: Sequence[str]  # a word for each frame of an edit
    animation: bytes
    size: tuple[int, int]  # width and height of the source, in pixels


def edit_page(record: dict, shown: ShownEdits) -> str:
    """The page of the edits of one picture; ``record`` as in ``run.json``."""
    before, targets = record["from"], record["to"]
    began = "inverted" if record["picture"] else "drawn by the model"
    lead = (
        f"<p>A picture of {asked(before, 'from')}, {began}, became "
        f"{', '.join(asked(target, 'to') for target in targets)} on its way "
        f"out of noise: {record['steps']['edit']} DDIM steps of {text(record['model'])}, guided by CLIP "
        f"({text(', '.join(record['encoders']))}) and the source's features, in {lasted(record)}.</p>"
    )
    animation = figure(shown.animation, "The edits on their way out of noise")
    ways = [film(frames, name, labels=shown.labels) for frames, name in zip(shown.frames, targets)]
    note = "Each curve on its own scale; 0 where a step was not guided."
    width, height = shown.size
    facts = cost(record, "edit")
    facts += [("picture", f"{width} x {height} pixels"), ("precision", text(record["dtype"]))]
    return page(
        f"{before} → {targets[0]}" if len(targets) == 1 else f"Edits of {before}",
        lead,
        [
            section("Before and after", _before_and_after(before, targets, shown)),
            section("On the way", *ways, animation),
            section("Losses", *_charts(record), note=note),
            run_section(
                record, *facts, *origin(record), settings={"Every setting": record["config"]["edit"]}
            ),
        ],
    )


def _before_and_after(before: str, targets: Sequence[str], shown: ShownEdits) -> str:
    figures = [] if shown.given is None else [figure(shown.given, f"The picture given: {before}", "given")]
    figures.append(
        figure(shown.source, f"The source out of noise: {before}", "the source, out of its noise again")
    )
    figures += [figure(edit, f"The edit: {name}", text(name)) for edit, name in zip(shown.edits, targets)]
    return row(*figures)


def _charts(record: dict) -> list[str]:
    """The losses of every edit; 0 where a step was not guided."""
    terms = record["terms"]["edit"]
    return [
        chart([[value or 0.0 for value in step[i]] for step in record["history"]["edit"]], terms)
        for i in range(len(record["to"]))
    ]
