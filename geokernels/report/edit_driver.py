"""Runs diffusion edits in a folder: frames, checkpoints, the record."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ..pipelines.edit_source import EditSource
from ..pipelines.oig import OIGEdit
from .driver import interrupts_between_steps
from .edit import INVERSION, EditFolder
from .pictures import fit
from .record import machine, peak_memory_mib, versions

FRAMES = 10
SIDE = 256  # longest side of a kept frame


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
