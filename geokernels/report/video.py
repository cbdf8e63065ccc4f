"""The folder that an edit of a clip leaves behind."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..losses import lay_over
from ..media.pictures import chequered, fit, gif
from ..pipelines import VideoEdit
from .page import chart, details, figure, film, page, picture, row, section, table, text

KEPT, SIDE, GAP = 24, 192, 4  # frames of page and animation, their longest side, and what is between two


class Shown(NamedTuple):
    """What is kept of the frames while they are written."""

    before: list[Tensor]  # at most KEPT, (3, h, w)
    after: list[Tensor]
    numbers: list[int]  # of these frames
    psnr: float  # of the frames as the atlas has them, in dB


def video_page(record: dict, edit: VideoEdit, shown: Shown) -> str:
    """The page of one edit of a clip."""
    before, after, fitted = record["from"], record["to"], record["atlas"]["fit"]
    seconds = record["seconds"]
    lead = (
        f"<p>The {text(record['config']['layer'])} of a clip was moved from "
        f"<strong class=from>“{text(before)}”</strong> to <strong class=to>“{text(after)}”</strong> by an "
        f"edit of its atlas, guided by CLIP ({text(', '.join(record['encoders']))}) with the "
        f"{text(record['config']['loss'])} loss, in {sum(seconds.values()):.1f} seconds.</p>"
    )
    labels = [f"frame {number}" for number in shown.numbers]
    facts = [
        ("clip", f"{record['frames']} frames of {record['size'][0]} x {record['size'][1]} pixels"),
        ("atlas", f"{seconds['atlas']:.1f} s" if fitted else "used again"),
        ("frames as the atlas has them", f"{record['atlas']['psnr']:.1f} dB"),
        ("edit", f"{seconds['edit']:.1f} s ({record['steps_per_second']:.1f} steps/s)"),
        ("peak memory", f"{record['peak_memory_mib']:.0f} MiB"),
        ("seed", text(record["seed"])),
        ("machine", text(record["machine"]["gpu"] or record["machine"]["cpu"])),
    ]
    both = [beside(a, b) for a, b in zip(shown.before, shown.after)]
    losses = [section("Losses of the edit", _chart(record), note="Each curve on its own scale.")]
    if fitted:
        losses.append(section("Losses of the atlas", _chart(fitted), note="Each curve on its own scale."))
    return page(
        f"{before} → {after}",
        lead,
        [
            section(
                "Before and after",
                figure(animation_of(shown), f"The clip: {before}; beside it the edit: {after}", kind="gif"),
            ),
            section("Frame by frame", film([fit(f, 128, side="height") for f in both], after, labels=labels)),
            atlas_section(edit),
            *losses,
            section(
                "The run",
                table(("what", "value"), facts),
                details("Every setting of the edit", record["config"]),
                details("Every setting of the atlas", fitted["config"] if fitted else {}),
                details("Versions", record["versions"]),
            ),
        ],
    )


def atlas_section(edit: VideoEdit) -> str:
    """The atlas before, the edit by itself, and the atlas with it."""
    source, layer = edit.source[0].cpu(), edit.painted()[0].cpu()
    colour, opacity = layer[:3], layer[3:]
    return section(
        "The atlas",
        row(
            picture(source, "The layer's atlas before", "before"),
            picture(
                lay_over(colour, opacity, chequered(colour)),
                "The edit by itself, over chequers where it is transparent",
                "the edit",
            ),
            picture(lay_over(colour, opacity, source), "The atlas with the edit", "after"),
        ),
        note="One picture of the layer, through which every frame is edited.",
    )


def _chart(of: dict) -> str:
    return chart(torch.tensor(of["history"], dtype=torch.float32), of["terms"])


def animation_of(shown: Shown) -> bytes:
    """A GIF of the frames, the given beside the edited."""
    both = [beside(a, b) for a, b in zip(shown.before, shown.after)]
    return gif(both, longest=2 * SIDE + GAP, hold=90)


def beside(a: Tensor, b: Tensor) -> Tensor:
    """Two frames of one height side by side, ``(3, h, 2 w + GAP)``."""
    return torch.cat([a, a.new_ones(3, a.shape[1], GAP), b], 2)


def small(frame: Tensor) -> Tensor:
    """A frame as page and animation show it; kept small, so that memory does not grow with the clip."""
    return fit(frame, SIDE) if max(frame.shape) > SIDE else frame
