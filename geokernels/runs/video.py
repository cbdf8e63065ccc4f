"""Runs an edit of a clip in a folder: footage, atlas, edit, frames, the record."""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .._files import scratch_folder, write_text
from ..environment import machine, peak_memory_mib, versions
from ..losses import lay_over
from ..media.clips import VideoSource
from ..media.films import Sound, mp4_writer
from ..media.pictures import (
    chequered,
    fit,
    gif,
    png,
    write_bytes,
    write_grey,
    write_layer,
    write_picture,
)
from ..models.atlas import LayeredAtlas, save_atlas
from ..models.optical_flow import Flow
from ..pipelines import AtlasFit, AtlasFitConfig, Footage, VideoEdit, prepare_footage
from ..pipelines.run_state import require_state
from ..report.page import FILM_SIDE, PICTURE_SIDE
from ..report.video import ShownClip, video_page
from .folder import RunFolder
from .loop import interrupts_between_steps

# Called with a stage, how far it is and of how many, the descent, if it is one, and its seconds.
Progress = Callable[[str, int, int | None, AtlasFit | VideoEdit | None, float], None]


VIDEO, BESIDE, ANIMATION, PAGE = "edited.mp4", "side-by-side.mp4", "edited.gif", "report.html"
ATLAS, EDIT, ALPHA = "atlas.safetensors", "edit.png", "alpha.png"


KEPT, SIDE, GAP = 24, 192, 4  # frames of page and animation, their longest side, and what is between two


class Kept(NamedTuple):
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
    ) -> Kept:
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
        silent = Sound(sound.path, sound.frames, warn=lambda sentence: None)  # which is said once
        with (
            mp4_writer(self.file(VIDEO), sound=sound) as add,
            mp4_writer(self.file(BESIDE), sound=silent) as add_beside,
        ):
            for index, frame, time in zip(count(), edit.frames(), times):
                given = footage.frame(index)
                error += (edit.atlas.frame(index).cpu() - given).square().mean().item() / T
                write_picture(self.file(f"frames/{index:04d}.png"), frame)
                add(frame, time)
                add_beside(beside(given, frame), time)
                if index in wanted:
                    before.append(small(given))
                    after.append(small(frame))
                tell("writing", index + 1, T)
        return Kept(before, after, wanted, round(-10 * math.log10(max(error, 1e-10)), 2))

    def finish(self, record: dict, edit: VideoEdit, kept: Kept) -> None:
        """Write the edit of the atlas, animation, page and, last, ``run.json``; then the checkpoint goes."""
        source, layer = edit.source[0].cpu(), edit.painted()[0].cpu()
        colour, opacity = layer[:3], layer[3:]
        write_layer(self.file(EDIT), colour, opacity)
        write_grey(self.file(ALPHA), opacity)
        both = [beside(a, b) for a, b in zip(kept.before, kept.after)]
        animation = gif(both, longest=2 * SIDE + GAP, hold=90)
        write_bytes(self.file(ANIMATION), animation)
        atlases = source, lay_over(colour, opacity, chequered(colour)), lay_over(colour, opacity, source)
        shown = ShownClip(
            animation,
            [png(fit(frame, FILM_SIDE, side="height"), longest=FILM_SIDE) for frame in both],
            kept.numbers,
            *(png(atlas, longest=PICTURE_SIDE) for atlas in atlases),
        )
        write_text(self.file(PAGE), video_page(record, shown))
        frames = [f"frames/{i:04d}.png" for i in range(record["frames"])]
        self.end(record, [ATLAS, EDIT, ALPHA, VIDEO, BESIDE, ANIMATION, PAGE, *frames])


def beside(a: Tensor, b: Tensor) -> Tensor:
    """Two frames of one height side by side, ``(3, h, 2 w + GAP)``."""
    return torch.cat([a, a.new_ones(3, a.shape[1], GAP), b], 2)


def small(frame: Tensor) -> Tensor:
    """A frame as page and animation show it; kept small, so that memory does not grow with the clip."""
    return fit(frame, SIDE) if max(frame.shape) > SIDE else frame


class VideoRun:
    """What is to be done with a clip, and how far it is.

    Args:
        clip: Where frames are read.
        flow: Estimator of optical flow.
        begin: Makes the edit, at its first step, of footage and atlas.
        masks: Where masks are read; None to find them from motion.
        empty_masks: Whether masks may be empty, where the object is out of sight.
        needs_object: Whether it is the object that is to be edited, and not what is behind it.
        atlas: Fitted before, to be used again; None to fit one.
        fit_settings: Of the fit, besides what suits the size of the frames.
        seed: Of the fit.
        device: Where to fit.
    """

    def __init__(
        self,
        clip: VideoSource,
        flow: Flow,
        begin: Callable[[Footage, LayeredAtlas], VideoEdit],
        *,
        masks: VideoSource | None = None,
        empty_masks: bool = False,
        needs_object: bool = True,
        atlas: LayeredAtlas | None = None,
        fit_settings: dict | None = None,
        seed: int = 0,
        device: str = "cpu",
    ):
        self.clip, self.flow, self.masks, self.atlas = clip, flow, masks, atlas
        self.empty_masks, self.needs_object = empty_masks, needs_object
        self.fit_settings, self.seed, self.device = fit_settings or {}, seed, device
        self._begin = begin
        self.footage: Footage | None = None
        self.times: list[Fraction] = []  # when each frame is shown, in seconds
        self.fit: AtlasFit | None = None
        self.edit: VideoEdit | None = None
        self.seconds = dict.fromkeys(("footage", "atlas", "edit", "frames"), 0.0)

    def prepare(self, scratch: Path, tell: Callable[[str, int, int | None], None]) -> None:
        """Read the clip, and stand before the first step.

        Raises:
            ValueError: If the clip or its masks cannot be used, or no object was found that is to be edited.
        """
        start = time.perf_counter()
        masks = None if self.masks is None else self.masks.masks(may_be_empty=self.empty_masks)
        self.times.clear()
        self.footage = prepare_footage(self._frames(), self.flow, masks=masks, folder=scratch, callback=tell)
        # before the fit, whose atlas would hold no object
        if self.atlas is None and self.needs_object and not self.footage.masks.any():
            count = len(self.footage)
            raise ValueError(
                f"masks must be given, or --layer background: in these {count} frames nothing was found to "
                "move against the ground"
            )
        if self.atlas is None:
            config = AtlasFitConfig.of_size(self.footage.size, **self.fit_settings)
            chance = torch.Generator().manual_seed(self.seed)
            self.fit = AtlasFit(self.footage, config=config, generator=chance, device=self.device)
        else:
            self.atlas.require_clip(self.footage.checksum)
        self.seconds["footage"] = time.perf_counter() - start

    def _frames(self) -> Iterator[Tensor]:
        """The clip's frames, whose times are noted."""
        for frame, shown_at in self.clip.timed():
            self.times.append(shown_at)
            yield frame

    def begin_edit(self) -> None:
        """Begin the second stage; the first is done."""
        self.edit = self._begin(self.footage, self.fitted)

    @property
    def fitted(self) -> LayeredAtlas:
        """The atlas that is edited."""
        return self.atlas if self.fit is None else self.fit.atlas

    def state_dict(self) -> dict:
        """Everything a later run needs: tensors, numbers and strings only."""
        stages = {"fit": self.fit, "edit": self.edit}
        states = {name: stage and stage.state_dict() for name, stage in stages.items()}
        return {**states, "seconds": dict(self.seconds)}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a state of the same run; :meth:`prepare` first.

        Raises:
            ValueError: If the state belongs to another run.
        """
        require_state(state["seconds"], self.seconds, "seconds")
        self.seconds |= {name: value for name, value in state["seconds"].items() if name != "footage"}
        if state["fit"] and self.fit is not None:
            self.fit.load_state_dict(state["fit"])
        if state["edit"]:
            self.begin_edit()
            self.edit.load_state_dict(state["edit"])


def run_video(
    run: VideoRun,
    folder: VideoFolder,
    *,
    facts: dict,
    resume: bool = False,
    checkpoint_every: int = 100,
    on_step: Progress = lambda stage, done, total, descent, seconds: None,
) -> dict:
    """Run everything to its end in ``folder``, and write what it leaves behind.

    Args:
        run: Fresh; with ``resume`` it is taken to where the checkpoint stands.
        folder: Claimed already.
        facts: What ``run.json`` says besides: prompts, seed, encoders.
        resume: Whether to continue from the folder's checkpoint.
        checkpoint_every: Steps between checkpoints.
        on_step: Called on every frame that is read or written and after every step; a KeyboardInterrupt it
            raises leaves a checkpoint and is raised again.

    Returns:
        The record, as in ``run.json`` without the checksums.
    """

    def save() -> None:
        folder.save(run.state_dict(), facts)

    state = folder.load(run.device) if resume else None
    if state is None and not folder.replaces:
        # at once: an interruption while the clip is read must leave something to continue from
        save()
    with scratch_folder(folder.path) as scratch, interrupts_between_steps() as check:

        def tell(stage: str, done: int, total: int | None) -> None:
            on_step(stage, done, total, None, 0.0)
            check()

        _prepare(run, scratch, folder, save, tell, fresh=state is None)
        if state is not None:
            with folder.continuing(state, facts):
                run.load_state_dict(state)
        if run.fit is not None:
            _descend(run, "atlas", run.fit, save, check, checkpoint_every, on_step)
        save_atlas(run.fitted, folder.file(ATLAS))
        if run.edit is None:
            run.begin_edit()
            run.edit.prepare()
            run.seconds["edit"] += run.edit.prepared_in
        _descend(run, "edit", run.edit, save, check, checkpoint_every, on_step)
        start = time.perf_counter()
        sound = Sound(run.clip.path, len(run.times), run.clip.warn)
        kept = folder.write_frames(run.footage, run.edit, run.times, sound, tell)
        run.seconds["frames"] = time.perf_counter() - start
        record = _record(run, facts, kept.psnr)
        folder.finish(record, run.edit, kept)
    return record


def _prepare(run: VideoRun, scratch: Path, folder: VideoFolder, save, tell, *, fresh: bool) -> None:
    """Read the clip; one that cannot be used leaves the folder as it was."""
    try:
        run.prepare(scratch, tell)
    except (ValueError, OSError):
        if fresh and not folder.replaces:
            folder.clear()
        raise
    except KeyboardInterrupt:
        if folder.replaces:
            folder.replace()
            save()
        raise
    if folder.replaces:
        folder.replace()
        save()


def _descend(
    run: VideoRun, stage: str, descent, save: Callable[[], None], check, every: int, on_step: Progress
) -> None:
    """Take what steps are left of one stage."""
    while not descent.done:
        start = time.perf_counter()
        try:
            descent.step()
        except FloatingPointError:
            save()
            raise
        run.seconds[stage] += time.perf_counter() - start
        try:
            on_step(stage, descent.index, descent.config.steps, descent, run.seconds[stage])
            check()
        except KeyboardInterrupt:
            save()
            raise
        if descent.done or descent.index % every == 0:
            save()


def _record(run: VideoRun, facts: dict, psnr: float) -> dict:
    footage, edit = run.footage, run.edit
    fitted = None
    if run.fit is not None:
        fitted = {"config": dict(run.fit.state_dict()["run"]["config"]), **_history(run.fit)}
    return {
        "command": "video",
        **facts,
        "frames": len(footage),
        "size": [footage.size[1], footage.size[0]],
        "config": dict(edit.state_dict()["run"]["config"]),
        "atlas": {"clip": footage.checksum, "psnr": psnr, "fit": fitted},
        "seconds": {stage: round(value, 3) for stage, value in run.seconds.items()},
        "steps_per_second": round(edit.config.steps / max(run.seconds["edit"], 1e-9), 2),
        "peak_memory_mib": peak_memory_mib(str(edit.source.device)),
        "machine": machine(str(edit.source.device)),
        "versions": versions(),
        **_history(edit),
    }


def _history(descent: AtlasFit | VideoEdit) -> dict:
    rows = [[round(v, 6) for v in row] for row in descent.history.tolist()]
    return {"terms": list(descent.terms), "history": rows}
