"""Runs a morph in a folder: frames, checkpoints, the record."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..pipelines import ClipInversion, LayerEdit, Layers
from .morph import FRAME_SIDE, MorphFolder
from .pictures import Picture, fit
from .record import machine, peak_memory_mib, versions

FRAMES = 20
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def frame_steps(steps: int) -> list[int]:
    """After which steps a frame is kept: denser at the start, where most happens; 0 is the source."""
    return sorted({round(steps * (i / (FRAMES - 1)) ** 1.5) for i in range(FRAMES)})


@contextmanager
def interrupts_between_steps() -> Iterator[Callable[[], None]]:
    """Hold what asks a run to stop back until the function given is called, so that no step is cut in half.

    That is Ctrl-C, the SIGTERM of schedulers and of machines that are taken away, and the SIGHUP of a
    terminal that is closed; one that is ignored, as under nohup, stays ignored. A second one acts at once.
    Outside the main thread signals cannot be held back, and are left alone.
    """
    pressed = False

    def note(number, frame):
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = {}
    try:
        for number in STOPPING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    except ValueError:
        yield check
        return
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
