"""Edits a clip in a folder: the clip is read, its atlas fitted, the atlas edited, the frames written."""

import math
import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .._files import write_text
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
from ..report.page import FILM_SIDE, PICTURE_SIDE
from ..report.video import ShownClip, video_page
from .folder import RunFolder
from .loop import Job, Tell

VIDEO, BESIDE, ANIMATION, PAGE = "edited.mp4", "side-by-side.mp4", "edited.gif", "report.html"
ATLAS, EDIT, ALPHA = "atlas.safetensors", "edit.png", "alpha.png"
KEPT, SIDE, GAP = 24, 192, 4  # frames of page and animation, their longest side, and what is between two


class VideoFolder(RunFolder):
    """Where one edit of a clip is written; ``path`` need not exist yet."""

    command = "video"
    names = (
        *map(re.escape, (ATLAS, EDIT, ALPHA, VIDEO, BESIDE, ANIMATION, PAGE)),
        r"frames/\d{4,}\.png",
    )


class Clip(NamedTuple):
    """What is edited, and how it is read.

    Attributes:
        frames: Where frames are read.
        masks: Where masks are read; None to find them from motion.
        flow: Estimator of optical flow.
        empty_masks: Whether masks may be empty, where the object is out of sight.
        needs_object: Whether it is the object that is to be edited, and not what is behind it.
    """

    frames: VideoSource
    masks: VideoSource | None
    flow: Flow
    empty_masks: bool = False
    needs_object: bool = True


class Kept(NamedTuple):
    """What is kept of the frames while they are written."""

    before: list[Tensor]  # at most KEPT, (3, h, w)
    after: list[Tensor]
    numbers: list[int]  # of these frames
    psnr: float  # of the frames as the atlas has them, in dB


class VideoJob(Job):
    """An edit of a clip.

    Args:
        clip: What is edited.
        begin: Makes the edit, at its first step, of footage and atlas.
        folder: Claimed already.
        scratch: Folder for what is large while the run lasts.
        facts: See :class:`geokernels.runs.loop.Job`.
        config: Settings of the edit.
        atlas: Fitted before, to be used again; None to fit one.
        fit_settings: Of the fit, besides what suits the size of the frames.
        seed: Of the fit.
        device: Where to fit.
    """

    every = 100

    def __init__(
        self,
        clip: Clip,
        begin: Callable[[Footage, LayeredAtlas], VideoEdit],
        folder: VideoFolder,
        scratch: Path,
        *,
        facts: dict,
        config: dict,
        atlas: LayeredAtlas | None = None,
        fit_settings: dict | None = None,
        seed: int = 0,
        device: str = "cpu",
    ):
        super().__init__(folder, facts=facts, config={"edit": config}, device=device)
        self.clip, self.begin, self.scratch, self.atlas = clip, begin, scratch, atlas
        self.fit_settings, self.seed = fit_settings or {}, seed
        self.footage: Footage | None = None
        self.times: list[Fraction] = []  # when each frame is shown, in seconds
        self.fit: AtlasFit | None = None
        self.edit: VideoEdit | None = None
        self.kept: Kept | None = None

    def prepare(self, tell: Tell) -> None:
        """Read the clip, and stand before the first step.

        Raises:
            ValueError: If the clip or its masks cannot be used, or no object was found that is to be edited.
        """
        tell("reading the clip", 0, None)
        clip = self.clip
        masks = None if clip.masks is None else clip.masks.masks(may_be_empty=clip.empty_masks)
        self.times.clear()
        self.footage = prepare_footage(
            self._frames(), clip.flow, masks=masks, folder=self.scratch, callback=tell
        )
        # before the fit, whose atlas would hold no object
        if self.atlas is None and clip.needs_object and not self.footage.masks.any():
            frames = len(self.footage)
            raise ValueError(
                f"masks must be given, or --layer background: in these {frames} frames nothing was found to "
                "move against the ground"
            )
        if self.atlas is None:
            config = fit_config(self.footage.size, **self.fit_settings)
            chance = torch.Generator().manual_seed(self.seed)
            self.fit = AtlasFit(self.footage, config=config, generator=chance, device=self.device)
        else:
            self.atlas.require_clip(self.footage.checksum)

    def _frames(self) -> Iterator[Tensor]:
        """The clip's frames, whose times are noted."""
        for frame, shown_at in self.clip.frames.timed():
            self.times.append(shown_at)
            yield frame

    def stages(self) -> Iterator[tuple[str, AtlasFit | VideoEdit]]:
        """The fit of the atlas, unless one was given, and the edit."""
        if self.fit is not None:
            yield "atlas", self.fit
        self.edit = self.begin(self.footage, self.fitted)
        yield "edit", self.edit

    def before(self, name: str, stage: AtlasFit | VideoEdit) -> None:
        """Write the atlas, which other runs can use again, once it is fitted."""
        if name == "edit":
            save_atlas(self.fitted, self.folder.file(ATLAS))

    @property
    def fitted(self) -> LayeredAtlas:
        """The atlas that is edited."""
        return self.atlas if self.fit is None else self.fit.atlas

    def complete(self, tell: Tell) -> None:
        """Make the edited frames one at a time, and write them as pictures, as a video, beside the given."""
        start, file, T = time.perf_counter(), self.folder.file, len(self.footage)
        wanted = sorted({round(i * (T - 1) / max(min(KEPT, T) - 1, 1)) for i in range(min(KEPT, T))})
        before, after, error = [], [], 0.0
        source = self.clip.frames
        sound = Sound(source.path, len(self.times), source.warn)
        silent = Sound(sound.path, sound.frames, warn=lambda sentence: None)  # which is said once
        with (
            mp4_writer(file(VIDEO), sound=sound) as add,
            mp4_writer(file(BESIDE), sound=silent) as add_beside,
        ):
            painted = self.edit.painted()
            for index, shown_at in enumerate(self.times):
                given, seen = self.footage.frame(index), self.edit.atlas.look(index)
                frame = self.edit.frame(index, painted, seen=seen)
                error += (seen.mixed().cpu() - given.flatten(1).T).square().mean().item() / T
                write_picture(file(f"frames/{index:04d}.png"), frame)
                add(frame, shown_at)
                add_beside(beside(given, frame), shown_at)
                if index in wanted:
                    before.append(small(given))
                    after.append(small(frame))
                tell("writing", index + 1, T)
        self.kept = Kept(before, after, wanted, round(-10 * math.log10(max(error, 1e-10)), 2))
        self.seconds["frames"] = time.perf_counter() - start

    def record(self) -> dict:
        """The clip, and how well the atlas has it."""
        height, width = self.footage.size
        atlas = {"clip": self.footage.checksum, "psnr": self.kept.psnr, "fitted": self.fit is not None}
        return {"frames": len(self.footage), "size": [width, height], "atlas": atlas}

    def finish(self, record: dict) -> Collection[str]:
        """Write the edit of the atlas, animation and page; the frames are written already."""
        file, kept = self.folder.file, self.kept
        source, layer = self.edit.source[0].cpu(), self.edit.painted()[0].cpu()
        colour, opacity = layer[:3], layer[3:]
        write_layer(file(EDIT), colour, opacity)
        write_grey(file(ALPHA), opacity)
        both = [beside(a, b) for a, b in zip(kept.before, kept.after)]
        animation = gif(both, longest=2 * SIDE + GAP, hold=90)
        write_bytes(file(ANIMATION), animation)
        atlases = source, lay_over(colour, opacity, chequered(colour)), lay_over(colour, opacity, source)
        shown = ShownClip(
            animation,
            [png(fit(frame, FILM_SIDE, side="height")) for frame in both],
            kept.numbers,
            *(png(atlas, longest=PICTURE_SIDE) for atlas in atlases),
        )
        write_text(file(PAGE), video_page(record, shown))
        frames = [f"frames/{i:04d}.png" for i in range(len(self.footage))]
        return [ATLAS, EDIT, ALPHA, VIDEO, BESIDE, ANIMATION, PAGE, *frames]


def fit_config(size: tuple[int, int], *, shape: dict | None = None, **settings) -> AtlasFitConfig:
    """The settings of the fit for frames of ``size`` (H, W); ``shape`` has what of its own is other."""
    config = AtlasFitConfig.of_size(size, **settings)
    return replace(config, shape=replace(config.shape, **shape)) if shape else config


def beside(a: Tensor, b: Tensor) -> Tensor:
    """Two frames of one height side by side, ``(3, h, 2 w + GAP)``."""
    return torch.cat([a, a.new_ones(3, a.shape[1], GAP), b], 2)


def small(frame: Tensor) -> Tensor:
    """A frame as page and animation show it; kept small, so that memory does not grow with the clip."""
    return fit(frame, SIDE) if max(frame.shape) > SIDE else frame
