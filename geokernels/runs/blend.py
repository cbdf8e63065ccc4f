"""Blends two pictures in a folder."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from .._files import write_text
from ..media.films import mp4_writer
from ..media.frame_files import FrameFiles, Lazily, evenly
from ..media.pictures import fit, gif, png, strip, write_bytes, write_picture
from ..metrics import score_path
from ..pipelines import Blend
from ..pipelines.blend.frames import over_white
from ..report.blend import ShownBlend, ShownMatch, blend_page
from ..report.page import FILM_SIDE, PICTURE_SIDE
from .folder import RunFolder, texts
from .loop import Job

STRIP, ANIMATION, FILM, PAGE = "frames.png", "blend.gif", "blend.mp4", "report.html"
RATE = 12  # frames a second of the MP4
HOLD = Fraction(1)  # seconds that it rests on each given picture
ON_STRIP, STRIP_HEIGHT = 9, 160
ANIMATED, MOST_ANIMATED = 256, 240  # longest side of the GIF, and frames of the film that it shows
FRAME_MS, REST_MS = 80, 700  # that it shows a frame, and rests on each given picture
LINES = 8  # matches that the page shows along each side
SEEN = 0.25  # confidence from which a match is shown


@dataclass
class BlendFolder(RunFolder):
    """Where one blend is written; ``path`` need not exist yet.

    Attributes:
        mp4: Whether a film is, beside the GIF.
    """

    mp4: bool = True

    command = "blend"
    names = (
        r"frames/\d{3,}\.png",
        re.escape(STRIP),
        re.escape(ANIMATION),
        re.escape(PAGE),
        re.escape(FILM),
    )

    def writes(self) -> tuple[str, ...]:
        """Without a film, not the film."""
        return self.names if self.mp4 else self.names[:-1]

    def frames(self) -> FrameFiles:
        """The frames, which are written as they are made."""
        return FrameFiles(lambda number: self.file(frame_name(number)))

    def written(self) -> dict[str, str]:
        """The frames of interrupted runs among them."""
        files = super().written()
        with suppress(ValueError, LookupError, TypeError, OSError):  # of a damaged checkpoint, none
            sums = self._read()["stages"]["blend"]["frames"]
            files |= texts({frame_name(number): checksum for number, checksum in enumerate(sums)})
        return files


class BlendJob(Job):
    """A film of one picture becoming another.

    Args:
        run: Fresh.
        folder: Claimed already.
        facts: See :class:`geokernels.runs.loop.Job`.
    """

    every = 1  # a checkpoint names the frames so far, which are files
    kept_on = "cpu"  # as frames are

    def __init__(self, run: Blend, folder: BlendFolder, *, facts: dict):
        device = str(run.first.rgb.device)
        super().__init__(folder, facts=facts, config={"blend": run.facts["config"]}, device=device)
        self.run = run

    def stages(self) -> Iterator[tuple[str, Blend]]:
        """The blend alone."""
        yield "blend", self.run

    def preview(self) -> Tensor | None:
        """The last frame."""
        return over_white(self.run.made[-1])[0] if self.run.made else None

    def record(self) -> dict:
        """How the pictures lie on each other, and how even the film is."""
        run, steps = self.run, self.run.distances()
        (H, W), places = run.places.size, run.places
        confidence = [sure.mean().item() for sure in (run.maps.confidence_a, run.maps.confidence_b)]
        return {
            "size": [W, H],
            "places": [[*places.first, *places.sizes[0][::-1]], [*places.second, *places.sizes[1][::-1]]],
            "matches": {
                "fixed": [] if run.fixed is None else run.fixed.tolist(),
                "missed": round(run.missed, 3),
                "confidence": [round(value, 4) for value in confidence],
                "folded": round(run.folded, 6),
            },
            "path": {
                "times": [round(t, 9) for t in run.times.tolist()],
                "distances": [round(d, 6) for d in steps.tolist()],
                "score": score_path(steps, missed=0.0, chord=1.0)._asdict(),
            },
        }

    def finish(self, record: dict) -> Collection[str]:
        """Write animations and page; the frames are written already, and read one at a time."""
        file, frames = self.folder.file, Lazily(lambda frame: over_white(frame)[0], self.run.made)
        names = [frame_name(number) for number in range(len(frames))]
        chosen = Lazily(frames.__getitem__, evenly(len(frames), ON_STRIP))
        write_picture(file(STRIP), strip(chosen, height=STRIP_HEIGHT))
        animation = _animation(frames)
        write_bytes(file(ANIMATION), animation)
        names += [STRIP, ANIMATION, PAGE]
        if self.folder.mp4:
            with mp4_writer(file(FILM)) as add:
                for i, frame in enumerate(frames):
                    add(frame, Fraction(i, RATE) + (HOLD if i else 0))
                add(frame, Fraction(len(frames), RATE) + 2 * HOLD)
            names.append(FILM)
        write_text(file(PAGE), blend_page(record, self._shown(frames, animation)))
        return names

    def _shown(self, frames: Sequence[Tensor], animation: bytes) -> ShownBlend:
        run = self.run
        sides = [(picture.rgb.shape[2], picture.rgb.shape[1]) for picture in (run.first, run.second)]
        trusts = (run.maps.confidence_a, run.maps.confidence_b)
        return ShownBlend(
            *(png(picture.rgb.cpu(), longest=PICTURE_SIDE) for picture in (run.first, run.second)),
            *(png(fit(sure[None].cpu(), PICTURE_SIDE).expand(3, -1, -1)) for sure in trusts),
            animation,
            Lazily(lambda frame: png(fit(frame, FILM_SIDE)), frames),
            [f"t = {t:.2f}" for t in run.times.tolist()],
            (sides[0], sides[1]),
            shown_matches(run),
        )


def frame_name(number: int) -> str:
    """Of the file of a frame."""
    return f"frames/{number:03d}.png"


def _animation(frames: Sequence[Tensor]) -> bytes:
    """The GIF of a film, as long as the film where it shows some of the frames alone."""
    chosen = evenly(len(frames), MOST_ANIMATED)
    each = round(FRAME_MS * (len(frames) - 1) / (len(chosen) - 1))
    shown = Lazily(frames.__getitem__, chosen)
    return gif(shown, longest=ANIMATED, hold=REST_MS, each=each, back=True)


def shown_matches(run: Blend) -> list[ShownMatch]:
    """The surest match of each part of the first picture, where it is sure, and all that the user fixed."""
    sure, to_b = run.maps.confidence_a.cpu(), run.maps.to_b.cpu()
    H, W = sure.shape
    found = []
    for rows in torch.arange(H).chunk(LINES):
        for columns in torch.arange(W).chunk(LINES):
            part = sure[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            best = int(part.argmax())
            y, x = int(rows[0]) + best // part.shape[1], int(columns[0]) + best % part.shape[1]
            if sure[y, x] >= SEEN:
                there = to_b[y, x].tolist()
                found.append(ShownMatch((x, y), (there[0], there[1]), float(sure[y, x])))
    fixed = [] if run.fixed is None else run.fixed.tolist()
    return [*found, *(ShownMatch((x, y), (u, v), None) for x, y, u, v in fixed)]
