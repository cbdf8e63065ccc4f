"""Runs a morph in a folder: frames, checkpoints, the record."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._files import write_text
from ..environment import machine, peak_memory_mib, versions
from ..losses import lay_over
from ..media.pictures import (
    Picture,
    chequered,
    fit,
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
from .loop import interrupts_between_steps

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
        animation = gif(frames)
        write_bytes(self.file(ANIMATION), animation)
        shown = ShownMorph(
            png(source, longest=PICTURE_SIDE),
            png(result, longest=PICTURE_SIDE),
            animation,
            [png(frame, longest=FILM_SIDE) for frame in frames],
            labels,
            (source.shape[2], source.shape[1]),
            None if layers is None else shown_layer(layers),
        )
        write_text(self.file(PAGE), morph_page(record, shown))
        self.end(record, written)


def shown_layer(layers: Layers) -> ShownLayer:
    """A layered edit as its page shows it."""
    alone = lay_over(layers.edit, layers.alpha, chequered(layers.edit))
    return ShownLayer(
        png(alone, longest=PICTURE_SIDE),
        png(layers.alpha.expand(3, -1, -1), longest=PICTURE_SIDE),
        (layers.alpha == 0).float().mean().item(),
    )


def frame_steps(steps: int) -> list[int]:
    """After which steps a frame is kept: denser at the start, where most happens; 0 is the source."""
    return sorted({round(steps * (i / (KEPT - 1)) ** 1.5) for i in range(KEPT)})


def run_morph(
    inversion: ClipInversion | LayerEdit,
    original: Picture,
    folder: MorphFolder,
    *,
    facts: dict,
    resume: bool = False,
    checkpoint_every: int = 20,
    on_step: Callable[[ClipInversion | LayerEdit, float], None] = lambda inversion, seconds: None,
) -> dict:
    """Run ``inversion`` to its end in ``folder``, and write everything it leaves behind.

    Args:
        inversion: Fresh, at step 0; with ``resume`` it is taken to where the checkpoint stands.
        original: The picture it was given, with its transparency.
        folder: Claimed already.
        facts: What ``run.json`` says besides: prompts, seed, encoders.
        resume: Whether to continue from the folder's checkpoint.
        checkpoint_every: Steps between checkpoints.
        on_step: Called after each step with the seconds so far; a KeyboardInterrupt it raises leaves a
            checkpoint and is raised again.

    Returns:
        The record, as in ``run.json`` without the checksums.
    """
    device = str(inversion.source.device)
    inversion.prepare()
    frames, seconds = [_keep(original.rgb)], inversion.prepared_in
    if resume:
        state = folder.load(device)
        with folder.continuing(state, facts):
            inversion.load_state_dict(state["inversion"])
            frames, seconds = [frame.cpu() for frame in state["frames"]], float(state["seconds"])
    wanted = frame_steps(inversion.config.steps)

    def save() -> None:
        folder.save({"inversion": inversion.state_dict(), "frames": frames, "seconds": seconds}, facts)

    if not resume:
        # at once: an interruption before the first step must leave something to continue from
        save()
    with interrupts_between_steps() as check:
        while not inversion.done:
            start = time.perf_counter()
            try:
                inversion.step()
            except FloatingPointError:
                save()
                raise
            if inversion.index in wanted:
                frames.append(_keep(inversion.preview(FRAME_SIDE)))
            seconds += time.perf_counter() - start
            try:
                on_step(inversion, seconds)
                check()
            except KeyboardInterrupt:
                save()
                raise
            if inversion.index % checkpoint_every == 0:
                save()
    record = {
        "command": "morph",
        **facts,
        "config": dict(inversion.state_dict()["run"]["config"]),
        "seconds": round(seconds, 3),
        "steps_per_second": round(inversion.config.steps / max(seconds, 1e-9), 2),
        "peak_memory_mib": peak_memory_mib(device),
        "machine": machine(device),
        "versions": versions(),
        "terms": list(inversion.terms),
        "history": [[round(v, 6) for v in row] for row in inversion.history.tolist()],
    }
    shown = [frame.float() / 255 for frame in frames]
    layers = None
    if isinstance(inversion, LayerEdit):
        layers = Layers(*(layer.cpu() for layer in inversion.layers()))
    labels = ["source", *(f"step {k}" for k in wanted[1:])]
    folder.finish(record, original.rgb, inversion.picture().cpu(), original.alpha, shown, labels, layers)
    return record


def _keep(picture: Tensor) -> Tensor:
    """A frame as it is kept, at most ``FRAME_SIDE`` a side, 8 bits a channel."""
    shown = fit(picture, FRAME_SIDE) if max(picture.shape) > FRAME_SIDE else picture
    return shown.mul(255).round().to(torch.uint8).cpu()
