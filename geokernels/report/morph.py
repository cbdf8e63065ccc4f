"""The page of a morph."""

from collections.abc import Sequence
from typing import NamedTuple

from .page import asked, figure, film, guided, loss_sections, page, row, run_section, section


class ShownLayer(NamedTuple):
    """The layer of a layered edit, as the page shows it."""

    alone: bytes  # PNG of the edit by itself, over chequers
    opacity: bytes  # PNG, white where the edit covers
    untouched: float  # share of the picture that it leaves as it was


class ShownMorph(NamedTuple):
    """The pictures of a morph, as files of PNG and GIF hold them."""

    before: bytes
    after: bytes
    animation: bytes
    frames: Sequence[bytes]
    labels: Sequence[str]  # a word for each frame
    size: tuple[int, int]  # width and height of the picture, in pixels
    layer: ShownLayer | None = None


def morph_page(record: dict, shown: ShownMorph) -> str:
    """The page of one morph; ``record`` as in ``run.json``."""
    before, (after,) = record["from"], record["to"]
    lead = (
        f"<p>The picture was edited from {asked(before, 'from')} to {asked(after, 'to')}, "
        f"{guided(record, 'morph')}</p>"
    )
    pictures = row(
        figure(shown.before, f"The picture before: {before}", "before"),
        figure(shown.after, f"The picture after: {after}", "after"),
        figure(shown.animation, f"Animation from {before} to {after}", "on the way"),
    )
    width, height = shown.size
    return page(
        f"{before} → {after}",
        lead,
        [
            section("Before and after", pictures),
            *([] if shown.layer is None else [_layer_section(shown.layer)]),
            section("On the way", film(shown.frames, after, labels=shown.labels)),
            *loss_sections(record),
            run_section(record, ("picture", f"{width} x {height} pixels")),
        ],
    )


def _layer_section(layer: ShownLayer) -> str:
    """The edit by itself, and how much of it covers the picture."""
    return section(
        "The edit layer",
        row(
            figure(
                layer.alone, "The edit by itself, over chequers where it is transparent", "the edit alone"
            ),
            figure(layer.opacity, "The opacity of the edit, white where it covers", "its opacity"),
        ),
        note=f"{layer.untouched:.1%} of the picture is left exactly as it was.",
    )
