"""Morphs a picture in a folder."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor

from .._files import write_text
from ..losses import lay_over
from ..media.pictures import (
    Picture,
    chequered,
    gif,
    png,
    strip,
    write_bytes,
    write_grey,
    write_layer,
    write_picture,
)
from ..pipelines import ClipInversion, LayerEdit, Layers
from ..report.morph import ShownLayer, ShownMorph, morph_page
from ..report.page import FILM_SIDE, PICTURE_SIDE
from .folder import RunFolder
from .frames import as_kept, as_shown, kept_steps
from .loop import Job

KEPT = 20  # frames
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

    command = "morph"
    names = (*map(re.escape, (RESULT, FRAMES, ANIMATION, PAGE)), FRAME_NAMES, *map(re.escape, (EDIT, ALPHA)))

    def writes(self) -> tuple[str, ...]:
        """Without a layer, not the layer's files."""
        return self.names if self.layered else self.names[:-2]


class MorphJob(Job):
    """A picture that is moved from one text to another.

    Args:
        run: Fresh, of the picture.
        original: The picture it was given, with its transparency.
        folder: Claimed already.
        facts: See :class:`geokernels.runs.loop.Job`.
    """

    def __init__(
        self, run: ClipInversion | LayerEdit, original: Picture, folder: MorphFolder, *, facts: dict
    ):
        super().__init__(
            folder, facts=facts, config={"morph": run.facts["config"]}, device=str(run.source.device)
        )
        self.run, self.original = run, original
        self.frames = [as_kept(original.rgb, FRAME_SIDE)]

    def stages(self) -> Iterator[tuple[str, ClipInversion | LayerEdit]]:
        """The morph alone."""
        yield "morph", self.run

    def keep(self, name: str, stage: ClipInversion | LayerEdit) -> None:
        """Keep a frame where it is time."""
        if stage.index in kept_steps(stage.steps, KEPT):
            self.frames.append(as_kept(stage.preview(FRAME_SIDE), FRAME_SIDE))

    def preview(self) -> Tensor:
        """The last frame that was kept."""
        return as_shown(self.frames[-1:])[0]

    def state_dict(self) -> dict:
        """The kept frames."""
        return {"frames": self.frames}

    def load_state_dict(self, state: dict) -> None:
        """Take back the kept frames."""
        self.frames = [frame.cpu() for frame in state["frames"]]

    def finish(self, record: dict) -> Collection[str]:
        """Write pictures, animation and page."""
        file, result = self.folder.file, self.run.picture().cpu()
        frames = as_shown(self.frames)
        layers = None
        names = [RESULT, FRAMES, ANIMATION, PAGE, *(f"frames/{i:03d}.png" for i in range(len(frames)))]
        if isinstance(self.run, LayerEdit):
            layers = Layers(*(layer.cpu() for layer in self.run.layers()))
            write_layer(file(EDIT), layers.edit, layers.alpha)
            write_grey(file(ALPHA), layers.alpha)
            names += [EDIT, ALPHA]
        write_picture(file(RESULT), result, self.original.alpha)
        write_picture(file(FRAMES), strip(frames, height=128))
        for i, frame in enumerate(frames):
            write_picture(file(f"frames/{i:03d}.png"), frame)
        animation = gif(frames)
        write_bytes(file(ANIMATION), animation)
        write_text(file(PAGE), morph_page(record, self._shown(result, frames, animation, layers)))
        return names

    def _shown(
        self, result: Tensor, frames: list[Tensor], animation: bytes, layers: Layers | None
    ) -> ShownMorph:
        source = self.original.rgb
        return ShownMorph(
            png(source, longest=PICTURE_SIDE),
            png(result, longest=PICTURE_SIDE),
            animation,
            [png(frame, longest=FILM_SIDE) for frame in frames],
            ["source", *(f"step {k}" for k in kept_steps(self.run.steps, KEPT)[1:])],
            (source.shape[2], source.shape[1]),
            None if layers is None else shown_layer(layers),
        )


def shown_layer(layers: Layers) -> ShownLayer:
    """A layered edit as its page shows it."""
    alone = lay_over(layers.edit, layers.alpha, chequered(layers.edit))
    return ShownLayer(
        png(alone, longest=PICTURE_SIDE),
        png(layers.alpha.expand(3, -1, -1), longest=PICTURE_SIDE),
        (layers.alpha == 0).float().mean().item(),
    )
