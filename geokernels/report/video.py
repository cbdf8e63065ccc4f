"""The folder that an edit of a clip leaves behind."""

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from .._files import write_text
from ..losses import lay_over
from ..pipelines import Footage, VideoEdit
from .films import Sound, mp4_writer
from .folder import RunFolder
from .page import chart, details, figure, film, page, picture, row, section, table, text
from .pictures import chequered, fit, gif, write_bytes, write_grey, write_layer, write_picture

VIDEO, BESIDE, ANIMATION, PAGE = "edited.mp4", "side-by-side.mp4", "edited.gif", "report.html"
ATLAS, EDIT, ALPHA = "atlas.safetensors", "edit.png", "alpha.png"
KEPT, SIDE, GAP = 24, 192, 4  # frames of page and animation, their longest side, and what is between two


class Shown(NamedTuple):
    """What is kept of the frames while they are written."""

    before: list[Tensor]  # at most KEPT, (3, h, w)
    after: list[Tensor]
    numbers: list[int]  # of these frames
    psnr: float  # of the frames as the atlas has them, in dB


class VideoFolder(RunFolder):
    """Where one edit of a clip is written; ``path`` need not exist yet."""

    command = "video"
    names = (
        *map(re.escape, (ATLAS, EDIT, ALPHA, VIDEO, BESIDE, ANIMATION, PAGE)),
        r"frames/\d{4,}\.png",
    )

    def write_frames(
        self,
        footage: Footage,
        edit: VideoEdit,
        times: Sequence[Fraction],
        sound: Sound,
        tell: Callable[[str, int, int | None], None],
    ) -> Shown:
        """Make the edited frames one at a time, and write them as pictures, as a video, beside the given.

        Args:
            footage: The frames as given.
            edit: At its last step.
            times: When each is shown, in seconds.
            sound: Of the clip.
            tell: Called with the number of frames that are written, and of all.
        """
        T = len(footage)
        wanted = sorted({round(i * (T - 1) / max(min(KEPT, T) - 1, 1)) for i in range(min(KEPT, T))})
        before, after, error = [], [], 0.0
        beside = Sound(sound.path, sound.frames, warn=lambda sentence: None)  # which is said once
        with (
            mp4_writer(self.file(VIDEO), sound=sound) as add,
            mp4_writer(self.file(BESIDE), sound=beside) as add_beside,
        ):
            for index, frame, time in zip(count(), edit.frames(), times):
                given = footage.frame(index)
                error += (edit.atlas.frame(index).cpu() - given).square().mean().item() / T
                write_picture(self.file(f"frames/{index:04d}.png"), frame)
                add(frame, time)
                add_beside(_beside(given, frame), time)
                if index in wanted:
                    before.append(_small(given))
                    after.append(_small(frame))
                tell("writing", index + 1, T)
        return Shown(before, after, wanted, round(-10 * math.log10(max(error, 1e-10)), 2))

    def finish(self, record: dict, edit: VideoEdit, shown: Shown) -> None:
        """Write the edit of the atlas, animation, page and, last, ``run.json``; then the checkpoint goes."""
        layer = edit.painted()[0].cpu()
        write_layer(self.file(EDIT), layer[:3], layer[3:])
        write_grey(self.file(ALPHA), layer[3:])
        write_bytes(self.file(ANIMATION), _animation(shown))
        write_text(self.file(PAGE), video_page(record, edit, shown))
        frames = [f"frames/{i:04d}.png" for i in range(record["frames"])]
        self.end(record, [ATLAS, EDIT, ALPHA, VIDEO, BESIDE, ANIMATION, PAGE, *frames])


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
    both = [_beside(a, b) for a, b in zip(shown.before, shown.after)]
    losses = [section("Losses of the edit", _chart(record), note="Each curve on its own scale.")]
    if fitted:
        losses.append(section("Losses of the atlas", _chart(fitted), note="Each curve on its own scale."))
    return page(
        f"{before} → {after}",
        lead,
        [
            section(
                "Before and after",
                figure(_animation(shown), f"The clip: {before}; beside it the edit: {after}", kind="gif"),
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


def _animation(shown: Shown) -> bytes:
    both = [_beside(a, b) for a, b in zip(shown.before, shown.after)]
    return gif(both, longest=2 * SIDE + GAP, hold=90)


def _beside(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, a.new_ones(3, a.shape[1], GAP), b], 2)


def _small(frame: Tensor) -> Tensor:
    """A frame as page and animation show it; kept small, so that memory does not grow with the clip."""
    return fit(frame, SIDE) if max(frame.shape) > SIDE else frame
