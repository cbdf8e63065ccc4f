"""The page of the edit of a clip."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .page import (
    OWN_SCALES,
    asked,
    figure,
    film,
    guided,
    losses,
    memory,
    origin,
    page,
    row,
    run_section,
    section,
    text,
)


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
    before, (after,), fitted = record["from"], record["to"], record["atlas"]["fitted"]
    lead = (
        f"<p>The {text(record['config']['edit']['layer'])} of a clip was moved from "
        f"{asked(before, 'from')} to {asked(after, 'to')} by an edit of its atlas, "
        f"{guided(record, 'edit')}.</p>"
    )
    labels = [f"frame {number}" for number in shown.numbers]
    sections = [section("Losses of the edit", losses(record, "edit"), note=OWN_SCALES)]
    settings = {"Every setting of the edit": record["config"]["edit"]}
    if fitted:
        sections.append(section("Losses of the atlas", losses(record, "atlas"), note=OWN_SCALES))
        settings["Every setting of the atlas"] = record["config"]["atlas"]
    animation = figure(shown.animation, f"The clip: {before}; beside it the edit: {after}")
    return page(
        f"{before} → {after}",
        lead,
        [
            section("Before and after", animation),
            section("Frame by frame", film(shown.frames, after, labels=labels)),
            _atlas_section(shown),
            *sections,
            run_section(record, *_facts(record), settings=settings),
        ],
    )


def _facts(record: Mapping) -> list[tuple[str, str]]:
    seconds, (width, height) = record["seconds"], record["size"]
    return [
        ("clip", f"{record['frames']} frames of {width} x {height} pixels"),
        ("atlas", f"{seconds['atlas']:.1f} s" if record["atlas"]["fitted"] else "used again"),
        ("frames as the atlas has them", f"{record['atlas']['psnr']:.1f} dB"),
        ("edit", f"{seconds['edit']:.1f} s ({record['steps_per_second']['edit']:.1f} steps/s)"),
        memory(record),
        *origin(record),
    ]


def _atlas_section(shown: ShownClip) -> str:
    """The atlas before, the edit by itself, and the atlas with it."""
    return section(
        "The atlas",
        row(
            figure(shown.atlas, "The layer's atlas before", "before"),
            figure(shown.edit, "The edit by itself, over chequers where it is transparent", "the edit"),
            figure(shown.edited_atlas, "The atlas with the edit", "after"),
        ),
        note="One picture of the layer, through which every frame is edited.",
    )
