"""The folder that a morph leaves behind."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._files import write_text
from ..losses import lay_over
from ..pipelines import Layers
from .folder import RunFolder
from .page import chart, details, figure, film, page, picture, row, section, table, text
from .pictures import chequered, fit, gif, strip, write_bytes, write_grey, write_layer, write_picture

RESULT, FRAMES, ANIMATION, PAGE = "result.png", "frames.png", "morph.gif", "report.html"
EDIT, ALPHA = "edit.png", "alpha.png"  # of a layered edit, of which RESULT is the composite
FRAME_NAMES = r"frames/\d{3,}\.png"
FRAME_SIDE = 384  # longest side of a kept frame


@dataclass
class MorphFolder(RunFolder):
    """Where one morph is written; ``path`` need not exist yet.

    Attributes:
        layered: Whether it is by an edit layer, which is written too.
    """

    layered: bool = True

    names = (*map(re.escape, (RESULT, FRAMES, ANIMATION, PAGE)), FRAME_NAMES, *map(re.escape, (EDIT, ALPHA)))

    def writes(self) -> tuple[str, ...]:
        """Without a layer, not the layer's files."""
        return self.names if self.layered else self.names[:-2]

    command = "morph"

    def finish(
        self,
        record: dict,
        source: Tensor,
        result: Tensor,
        alpha: Tensor | None,
        frames: list[Tensor],
        labels: Sequence[str],
        layers: Layers | None = None,
    ) -> None:
        """Write pictures, animation, page and, last, ``run.json``; then the checkpoint goes.

        Args:
            record: Everything for ``run.json`` but the checksums.
            source: The picture before, ``(3, H, W)``.
            result: The picture after.
            alpha: Transparency for the result, or None.
            frames: Kept frames, each ``(3, h, w)``.
            labels: A word for each frame.
            layers: Of a layered edit, whose composite ``result`` is.
        """
        written = [RESULT, FRAMES, ANIMATION, PAGE]
        if layers is not None:
            write_layer(self.file(EDIT), layers.edit, layers.alpha)
            write_grey(self.file(ALPHA), layers.alpha)
            written = [EDIT, ALPHA, *written]
        write_picture(self.file(RESULT), result, alpha)
        write_picture(self.file(FRAMES), strip(frames, height=128))
        for i, frame in enumerate(frames):
            written.append(f"frames/{i:03d}.png")
            write_picture(self.file(written[-1]), frame)
        write_bytes(self.file(ANIMATION), gif(frames))
        write_text(self.file(PAGE), morph_page(record, source, result, frames, labels, layers))
        self.end(record, written)


def morph_page(
    record: dict,
    source: Tensor,
    result: Tensor,
    frames: Sequence[Tensor],
    labels: Sequence[str],
    layers: Layers | None = None,
) -> str:
    """The page of one morph."""
    before, after = record["from"], record["to"]
    lead = (
        f"<p>The picture was moved along the direction from <strong class=from>“{text(before)}”</strong> to "
        f"<strong class=to>“{text(after)}”</strong>, guided by CLIP "
        f"({text(', '.join(record['encoders']))}) with the "
        f"{text(record['config']['loss'])} loss, in {record['seconds']:.1f} seconds.</p>"
    )
    history = torch.tensor(record["history"], dtype=torch.float32)
    pictures = row(
        picture(source, f"The picture before: {before}", "before"),
        picture(result, f"The picture after: {after}", "after"),
        figure(gif(frames), f"Animation from {before} to {after}", "on the way", kind="gif"),
    )
    facts = [
        ("steps", text(record["config"]["steps"])),
        ("time", f"{record['seconds']:.1f} s ({record['steps_per_second']:.1f} steps/s)"),
        ("peak memory", f"{record['peak_memory_mib']:.0f} MiB"),
        ("picture", f"{source.shape[2]} x {source.shape[1]} pixels"),
        ("seed", text(record["seed"])),
        ("machine", text(record["machine"]["gpu"] or record["machine"]["cpu"])),
    ]
    return page(
        f"{before} → {after}",
        lead,
        [
            section("Before and after", pictures),
            *([] if layers is None else [layer_section(layers)]),
            section("On the way", film([fit(f, 128) for f in frames], after, labels=labels)),
            section("Losses", chart(history, record["terms"]), note="Each curve on its own scale."),
            section(
                "The run",
                table(("what", "value"), facts),
                details("Every setting", record["config"]),
                details("Versions", record["versions"]),
            ),
        ],
    )


def layer_section(layers: Layers) -> str:
    """The edit by itself, and how much of it covers the picture."""
    alone = lay_over(layers.edit, layers.alpha, chequered(layers.edit))
    kept = (layers.alpha == 0).float().mean().item()
    return section(
        "The edit layer",
        row(
            picture(alone, "The edit by itself, over chequers where it is transparent", "the edit"),
            picture(
                layers.alpha.expand(3, -1, -1), "The opacity of the edit, white where it covers", "alpha"
            ),
        ),
        note=f"{kept:.1%} of the picture is not touched by it.",
    )
