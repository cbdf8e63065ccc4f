"""The page of the edit of a clip."""

from collections.abc import Sequence
from typing import NamedTuple

from .page import asked, figure, film, guided, loss_sections, page, row, run_section, section, text


class ShownClip(NamedTuple):
    """The pictures of the edit of a clip, as files of PNG and GIF hold them."""

    animation: bytes  # the frames given, beside them the edited
    frames: Sequence[bytes]  # the same, one by one
    numbers: Sequence[int]  # of these frames
    atlas: bytes  # of the edited layer, as it was fitted
    edit: bytes  # by itself, over chequers
    edited_atlas: bytes


def video_page(record: dict, shown: ShownClip) -> str:
    """The page of one edit of a clip; ``record`` as in ``run.json``."""
    before, (after,), atlas = record["from"], record["to"], record["atlas"]
    width, height = record["size"]
    lead = (
        f"<p>The {text(record['config']['edit']['layer'])} of a clip was edited from "
        f"{asked(before, 'from')} to {asked(after, 'to')} in every frame at once, by an edit of its atlas, "
        f"{guided(record, 'edit')}</p>"
    )
    labels = [f"frame {number}" for number in shown.numbers]
    facts = [
        ("clip", f"{record['frames']} frames of {width} x {height} pixels"),
        ("atlas", "fitted to this clip" if atlas["fitted"] else "taken from an earlier run"),
        ("frames redrawn from the atlas", f"PSNR {atlas['psnr']:.1f} dB"),
    ]
    animation = figure(
        shown.animation, f"The clip: {before}; beside it the edit: {after}", "given, and edited"
    )
    return page(
        f"{before} → {after}",
        lead,
        [
            section("Before and after", animation),
            section("Frame by frame", film(shown.frames, after, labels=labels, wide=True)),
            _atlas_section(shown),
            *loss_sections(record),
            run_section(record, *facts),
        ],
    )


def _atlas_section(shown: ShownClip) -> str:
    """The atlas before, the edit by itself, and the atlas with it."""
    return section(
        "The atlas",
        row(
            figure(shown.atlas, "The layer's atlas before", "before"),
            figure(shown.edit, "The edit by itself, over chequers where it is transparent", "the edit alone"),
            figure(shown.edited_atlas, "The atlas with the edit", "with the edit"),
        ),
        note="One still picture of the layer: what is changed in it changes in every frame.",
    )
