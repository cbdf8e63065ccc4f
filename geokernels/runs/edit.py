"""Runs diffusion edits in a folder: frames, checkpoints, the record."""

import math
import re
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .._files import write_text
from ..environment import machine, peak_memory_mib, versions
from ..media.pictures import fit, gif, grid, png, write_bytes, write_picture
from ..pipelines.edit.oig import OIGEdit
from ..pipelines.edit.source import EditSource
from ..report.edit import ShownEdits, edit_page
from ..report.page import FILM_SIDE, PICTURE_SIDE
from .folder import RunFolder
from .loop import interrupts_between_steps

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

    def finish(
        self,
        record: dict,
        given: Tensor | None,
        source: Tensor,
        edits: Tensor,
        frames: Sequence[Tensor],
        labels,
    ) -> None:
        """Write pictures, animation, page and, last, ``run.json``; then the checkpoint goes.

        Args:
            record: Everything for ``run.json`` but the checksums.
            given: The picture that was inverted, ``(3, H, W)``; None where the source was drawn.
            source: What comes out of the source's noise, ``(3, H, W)``.
            edits: What the edits became, ``(B, 3, H, W)``.
            frames: The edits at each kept step, ``(B, 3, h, w)``; the last are ``edits``.
            labels: A word for each frame.
        """
        names = [SOURCE, SHEET, ANIMATION, PAGE, *(f"edit-{i:02d}.png" for i in range(len(edits)))]
        write_picture(self.file(SOURCE), source)
        if given is not None:
            names.append(GIVEN)
            write_picture(self.file(GIVEN), given)
        shown = [*([] if given is None else [given]), source, *edits]
        write_picture(self.file(SHEET), grid([fit(p, SHEET_SIDE) for p in shown], columns=len(shown), gap=6))
        for i, edit in enumerate(edits):
            write_picture(self.file(f"edit-{i:02d}.png"), edit)
        grids = [grid(list(frame)) for frame in frames]
        write_bytes(self.file(ANIMATION), gif(grids, longest=512))
        pictures = ShownEdits(
            None if given is None else png(given, longest=PICTURE_SIDE),
            png(source, longest=PICTURE_SIDE),
            [png(edit, longest=PICTURE_SIDE) for edit in edits],
            [[png(frame[i], longest=FILM_SIDE) for frame in frames] for i in range(len(edits))],
            labels,
            gif(grids),
            (source.shape[2], source.shape[1]),
        )
        write_text(self.file(PAGE), edit_page(record, pictures))
        if (self.path / INVERSION).exists():
            names.append(INVERSION)
        self.end(record, names)


def kept_steps(steps: int) -> list[int]:
    """After which steps a frame is kept, the last among them."""
    return sorted({math.ceil(steps * (i + 1) / FRAMES) for i in range(FRAMES)})


def run_edit(
    edit: OIGEdit,
    given: Tensor | None,
    folder: EditFolder,
    *,
    facts: dict,
    inversion: EditSource | None = None,
    before: float = 0.0,
    resume: bool = False,
    checkpoint_every: int = 5,
    on_step: Callable[[OIGEdit, float], None] = lambda edit, seconds: None,
) -> dict:
    """Run ``edit`` to its end in ``folder``, and write everything it leaves behind.

    Args:
        edit: Fresh, of a single source; with ``resume`` it is taken to where the checkpoint stands.
        given: The picture that was inverted, or None.
        folder: Claimed already.
        facts: What ``run.json`` says besides: prompts, seed, models.
        inversion: What ``edit`` begins from, to be kept in the folder; None for what was drawn.
        before: Seconds spent on the inversion.
        resume: Whether to continue from the folder's checkpoint.
        checkpoint_every: Steps between checkpoints.
        on_step: Called after each step with the seconds so far; a KeyboardInterrupt it raises leaves a
            checkpoint and is raised again.

    Returns:
        The record, as in ``run.json`` without the checksums.
    """
    device, frames, seconds = str(edit.denoiser.device), [], before
    if resume:
        state = folder.load("cpu")
        with folder.continuing(state, facts):
            edit.load_state_dict(state["edit"])
            frames, seconds = list(state["frames"]), float(state["seconds"])

    def save() -> None:
        folder.save({"edit": edit.state_dict(), "frames": frames, "seconds": seconds}, facts)

    # at once: an interruption before the first step must leave something to continue from
    save()
    if inversion is not None:
        inversion.save(folder.file(INVERSION))
    with interrupts_between_steps() as check:
        while not edit.done:
            start = time.perf_counter()
            edit.step()
            if edit.index in kept_steps(edit.steps):
                frames.append(_keep(edit.pictures()))
            seconds += time.perf_counter() - start
            try:
                on_step(edit, seconds)
                check()
            except KeyboardInterrupt:
                save()
                raise
            if edit.index % checkpoint_every == 0:
                save()
    record = {
        "command": "edit",
        **facts,
        "config": dict(edit.state_dict()["run"]["config"]),
        "steps": edit.steps,
        "dtype": str(edit.denoiser.unet.dtype).removeprefix("torch."),
        "seconds": round(seconds, 3),
        "steps_per_second": round(edit.steps / max(seconds, 1e-9), 2),
        "peak_memory_mib": peak_memory_mib(device),
        "machine": machine(device),
        "versions": versions(),
        "terms": list(edit.terms),
        "history": [[[_plain(v) for v in row] for row in rows] for rows in edit.history.tolist()],
    }
    (source,) = edit.denoiser.pictures(edit.sources).cpu()
    shown = [frame.float() / 255 for frame in frames]
    labels = [f"step {k}" for k in kept_steps(edit.steps)]
    folder.finish(record, given, source, edit.pictures().cpu(), shown, labels)
    return record


def _plain(value: float) -> float | None:
    """A number of JSON's; None where a step was not guided."""
    return None if math.isnan(value) else round(value, 6)


def _keep(pictures: Tensor) -> Tensor:
    """Edits as they are kept, at most ``SIDE`` a side, 8 bits a channel, on the CPU."""
    shown = torch.stack([fit(p, SIDE) if max(p.shape) > SIDE else p for p in pictures])
    return shown.mul(255).round().to(torch.uint8).cpu()
