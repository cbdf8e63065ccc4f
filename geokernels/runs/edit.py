"""Edits a picture with a diffusion model in a folder."""

import math
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from torch import Tensor

from .._files import write_text
from ..media.pictures import fit, gif, grid, png, write_bytes, write_picture
from ..pipelines.edit.oig import OIGEdit
from ..pipelines.edit.source import EditSource
from ..report.edit import ShownEdits, edit_page
from ..report.page import FILM_SIDE, PICTURE_SIDE
from .folder import RunFolder
from .frames import as_kept, as_shown
from .loop import Job, Tell

FRAMES = 10
SIDE = 256  # longest side of a kept frame
SHEET_SIDE = 192  # of a picture on the sheet

GIVEN, SOURCE, SHEET, INVERSION = "given.png", "source.png", "edits.png", "inversion.pt"
ANIMATION, PAGE = "edit.gif", "report.html"


class EditFolder(RunFolder):
    """Where edits of one picture are written; ``path`` need not exist yet."""

    command = "edit"
    names = (
        *map(re.escape, (GIVEN, SOURCE, SHEET, INVERSION, ANIMATION, PAGE)),
        r"edit-\d{2,}\.png",
    )

    def clear(self, keep: Collection[Path] = ()) -> None:
        """Remove an earlier run, the inversion of an interrupted one with it."""
        begun = self._record() is not None or self.begins()
        super().clear(keep)
        inversion = self.path / INVERSION
        if begun and inversion.resolve() not in {path.resolve() for path in keep}:
            inversion.unlink(missing_ok=True)


def edit_steps(steps: int) -> list[int]:
    """After which steps a frame is kept, the last among them."""
    return sorted({math.ceil(steps * (i + 1) / FRAMES) for i in range(FRAMES)})


class EditJob(Job):
    """Edits of one picture, or of one that the model draws.

    The inversion is kept in the folder, and a run that is continued begins from there.

    Args:
        begin: Makes the edits, at their first step, of what they begin from.
        invert: Makes what they begin from, at no index yet; is called with what to tell of each step.
        given: The picture that is inverted, or None.
        folder: Claimed already.
        facts: See :class:`geokernels.runs.loop.Job`.
        config: Settings of the edits.
        kept: An inversion that was made before, or None.
        device: Where the model is.
    """

    every = 5
    kept_on = "cpu"  # as frames are

    def __init__(
        self,
        begin: Callable[[EditSource], OIGEdit],
        invert: Callable[[Tell], EditSource],
        given: Tensor | None,
        folder: EditFolder,
        *,
        facts: dict,
        config: dict,
        kept: EditSource | None = None,
        device: str = "cpu",
    ):
        super().__init__(folder, facts=facts, config={"edit": config}, device=device)
        self.begin, self.invert, self.given, self.source = begin, invert, given, kept
        self.inverted = given is not None or kept is not None
        self.edit: OIGEdit | None = None
        self.frames: list[Tensor] = []

    def prepare(self, tell: Tell) -> None:
        """Invert the picture, or draw the source's noise."""
        if self.source is None:
            self.source = self.invert(tell)
        self.edit = self.begin(self.source)

    def stages(self) -> Iterator[tuple[str, OIGEdit]]:
        """The edits, which take their steps together."""
        yield "edit", self.edit

    def before(self, name: str, stage: OIGEdit) -> None:
        """Write the inversion, which other runs can use again."""
        if self.inverted:
            self.source.save(self.folder.file(INVERSION))

    def keep(self, name: str, stage: OIGEdit) -> None:
        """Keep a frame of every edit where it is time."""
        if stage.index in edit_steps(stage.steps):
            self.frames.append(as_kept(stage.pictures(), SIDE))

    def preview(self) -> Tensor | None:
        """The edits as they were kept last, side by side."""
        return grid(list(as_shown(self.frames[-1:])[0])) if self.frames else None

    def state_dict(self) -> dict:
        """The kept frames."""
        return {"frames": self.frames}

    def load_state_dict(self, state: dict) -> None:
        """Take back the kept frames."""
        self.frames = list(state["frames"])

    def finish(self, record: dict) -> Collection[str]:
        """Write pictures, animation and page."""
        file, edits = self.folder.file, self.edit.pictures().cpu()
        (source,) = self.edit.denoiser.pictures(self.edit.sources).cpu()
        names = [SOURCE, SHEET, ANIMATION, PAGE, *(f"edit-{i:02d}.png" for i in range(len(edits)))]
        write_picture(file(SOURCE), source)
        if self.given is not None:
            names.append(GIVEN)
            write_picture(file(GIVEN), self.given)
        shown = [*([] if self.given is None else [self.given]), source, *edits]
        write_picture(file(SHEET), grid([fit(p, SHEET_SIDE) for p in shown], columns=len(shown), gap=6))
        for i, edit in enumerate(edits):
            write_picture(file(f"edit-{i:02d}.png"), edit)
        frames = as_shown(self.frames)
        grids = [grid(list(frame)) for frame in frames]
        write_bytes(file(ANIMATION), gif(grids, longest=512))
        pictures = ShownEdits(
            None if self.given is None else png(self.given, longest=PICTURE_SIDE),
            png(source, longest=PICTURE_SIDE),
            [png(edit, longest=PICTURE_SIDE) for edit in edits],
            [[png(frame[i], longest=FILM_SIDE) for frame in frames] for i in range(len(edits))],
            [f"step {k}" for k in edit_steps(self.edit.steps)],
            gif(grids),
            (source.shape[2], source.shape[1]),
        )
        write_text(file(PAGE), edit_page(record, pictures))
        if (self.folder.path / INVERSION).exists():
            names.append(INVERSION)
        return names
