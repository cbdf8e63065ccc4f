"""The page of the diffusion edits of one picture."""

from collections.abc import Sequence
from typing import NamedTuple

from .page import OWN_SCALES, asked, chart, figure, film, lasted, page, row, run_section, section, text


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
    began = "inverted into noise" if record["picture"] else "drawn by the model"
    lead = (
        f"<p>A picture of {asked(before, 'from')}, {began}, was edited to "
        f"{', '.join(asked(target, 'to') for target in targets)} while it was denoised: "
        f"{record['steps']['edit']} steps of the model “{text(record['model'])}”, guided by CLIP "
        f"({text(', '.join(record['encoders']))}) and by the features of the source. "
        f"This took {lasted(record)}.</p>"
    )
    animation = row(figure(shown.animation, "The edits while they are denoised"))
    ways = [
        f"{_name(name, targets)}{film(frames, name, labels=shown.labels)}"
        for frames, name in zip(shown.frames, targets)
    ]
    width, height = shown.size
    facts = ("picture", f"{width} x {height} pixels"), ("precision", text(record["dtype"]))
    return page(
        f"{before} → {targets[0]}" if len(targets) == 1 else f"Edits of {before}",
        lead,
        [
            section("Before and after", _before_and_after(before, targets, shown)),
            section("On the way", *ways, animation),
            section("Losses", *_charts(record), note=f"{OWN_SCALES} Steps without guidance count as 0."),
            run_section(record, *facts),
        ],
    )


def _before_and_after(before: str, targets: Sequence[str], shown: ShownEdits) -> str:
    figures = [] if shown.given is None else [figure(shown.given, f"The picture given: {before}", "given")]
    caption = "the source" if shown.given is None else "the source, reconstructed from its noise"
    figures.append(figure(shown.source, f"The source out of noise: {before}", caption))
    figures += [figure(edit, f"The edit: {name}", text(name)) for edit, name in zip(shown.edits, targets)]
    return row(*figures)


def _charts(record: dict) -> list[str]:
    """The losses of every edit; 0 where a step was not guided."""
    terms, targets = record["terms"]["edit"], record["to"]
    histories = [
        [[value or 0.0 for value in step[i]] for step in record["history"]["edit"]]
        for i in range(len(targets))
    ]
    return [_name(name, targets) + chart(rows, terms) for name, rows in zip(targets, histories)]


def _name(target: str, targets: Sequence[str]) -> str:
    """Which of several edits is shown; nothing where there is one."""
    return f"<p class=note>{text(target)}</p>" if len(targets) > 1 else ""
