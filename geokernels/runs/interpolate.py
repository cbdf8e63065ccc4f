"""Interpolates between prompts in a folder."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from .._files import write_text
from ..media.films import mp4_writer
from ..media.frame_files import FrameFiles, Lazily, evenly
from ..media.pictures import fit, gif, png, strip, write_bytes, write_picture
from ..pipelines import PromptInterpolation
from ..report.interpolate import NAMES, ShownPath, interpolation_page
from ..report.page import FILM_SIDE
from ..world import judge
from ..world.captions import reading
from .folder import RunFolder, texts
from .loop import Job
from .own_files import discard

PAGE = "report.html"
RATE = 10  # frames a second of an MP4
ON_STRIP, MOST_ANIMATED = 32, 240  # pictures that strip and GIF show at most, evenly chosen
EACH = 90  # milliseconds that the GIF shows one, where it shows all
STEMS = f"({'|'.join(['path', *NAMES])})"


@dataclass
class InterpolationFolder(RunFolder):
    """Where one interpolation, or one of each coupling, is written; ``path`` need not exist yet.

    Attributes:
        couplings: How many are written; one alone is called ``path``.
        mp4: Whether MP4 files are.
    """

    couplings: int = 1
    mp4: bool = False

    names = (
        re.escape(PAGE),
        rf"{STEMS}/\d{{3,}}\.png",
        rf"{STEMS}/drawn/\d{{3,}}\.png",
        rf"{STEMS}\.(png|gif)",
        rf"{STEMS}\.mp4",
    )

    def writes(self) -> tuple[str, ...]:
        """The files of one coupling, or of all."""
        stem = "(path)" if self.couplings == 1 else STEMS.replace("path|", "")
        names = tuple(name.replace(STEMS, stem) for name in self.names)
        return names if self.mp4 else names[:-1]

    def stem(self, coupling: str) -> str:
        """What the files of a coupling are called."""
        return coupling if self.couplings > 1 else "path"

    def drawn(self, coupling: str) -> FrameFiles:
        """Pictures in the order of drawing, those of rounds that were not the last among them."""
        return FrameFiles(lambda number: self.file(_drawn(self.stem(coupling), number)))

    def written(self) -> dict[str, str]:
        """The pictures of interrupted runs among them."""
        return super().written() | self._drawn_files()

    def end(self, record: dict, names: Collection[str]) -> None:
        """Remove the pictures in the order of drawing, last of all."""
        drawn = self._drawn_files()
        super().end(record, names)
        discard(self.path, drawn, self.names)

    def _drawn_files(self) -> dict[str, str]:
        """Checksums by name, as the checkpoint has them; of a damaged one, none."""
        files: dict[str, str] = {}
        with suppress(ValueError, LookupError, TypeError, AttributeError, OSError):
            for coupling, state in self._read()["stages"].items():
                stem = self.stem(coupling)
                files |= texts({_drawn(stem, number): said for number, said in enumerate(state["pictures"])})
        return files

    command = "interpolate"


class InterpolateJob(Job):
    """Paths through prompts, one a coupling.

    Args:
        runs: By the coupling's name, fresh.
        folder: Claimed already.
        facts: See :class:`geokernels.runs.loop.Job`.
        judged: Whether the pictures are of the rendered world, which the judge can read.
    """

    every = 1
    kept_on = "cpu"  # as pictures are

    def __init__(
        self,
        runs: Mapping[str, PromptInterpolation],
        folder: InterpolationFolder,
        *,
        facts: dict,
        judged: bool,
    ):
        config = {name: run.facts["config"] for name, run in runs.items()}
        device = str(next(iter(runs.values())).model.device)
        super().__init__(folder, facts=facts, config=config, device=device)
        self.runs, self.judged = runs, judged

    def stages(self) -> Iterable[tuple[str, PromptInterpolation]]:
        """The couplings."""
        return self.runs.items()

    def preview(self) -> Tensor | None:
        """The last picture of the path that is drawn."""
        shown = next((run.shown for run in reversed(self.runs.values()) if run.drawn), ())
        return shown[-1] if len(shown) else None

    def record(self) -> dict:
        """How even each path is, and how far the model reads rows as a set."""
        paths = {}
        for name, run in self.runs.items():
            distances, score = run.distances(), run.score()
            paths[name] = {
                "times": [round(t, 9) for t in run.times.tolist()],
                "distances": None if distances is None else [round(d, 6) for d in distances.tolist()],
                "score": score and score._asdict(),
                "rounds": run.round,
            }
        first = next(iter(self.runs.values()))
        invariance = {key: float(f"{value:.3g}") for key, value in first.invariance._asdict().items()}
        return {"invariance": invariance, "paths": paths}

    def finish(self, record: dict) -> Collection[str]:
        """Write pictures, animations and page."""
        names, shown = [PAGE], {}
        for coupling, run in self.runs.items():
            frames = run.shown
            animation = _animation(frames)
            names += self._write(self.folder.stem(coupling), frames, animation)
            film = Lazily(lambda frame: png(frame, longest=FILM_SIDE), frames)
            shown[coupling] = ShownPath(animation, film, self._labels(run, frames))
        write_text(self.folder.file(PAGE), interpolation_page(record, shown))
        return names

    def _write(self, stem: str, frames: Sequence[Tensor], animation: bytes) -> list[str]:
        file, names = self.folder.file, [f"{stem}/{i:03d}.png" for i in range(len(frames))]
        for name, frame in zip(names, frames):
            write_picture(file(name), frame)
        chosen = Lazily(frames.__getitem__, evenly(len(frames), ON_STRIP))
        write_picture(file(f"{stem}.png"), strip(chosen, height=min(128, frames[0].shape[-2])))
        write_bytes(file(f"{stem}.gif"), animation)
        names += [f"{stem}.png", f"{stem}.gif"]
        if self.folder.mp4:
            with mp4_writer(file(f"{stem}.mp4")) as add:
                for i, frame in enumerate(frames):
                    add(fit(frame, 512), Fraction(i, RATE))
            names.append(f"{stem}.mp4")
        return names

    def _labels(self, run: PromptInterpolation, frames: Sequence[Tensor]) -> Sequence[str]:
        if self.judged:
            return Lazily(lambda frame: reading(judge(frame[None]).names()[0]), frames)
        return [f"t = {t:.3f}" for t in run.times.tolist()]


def _drawn(stem: str, number: int) -> str:
    """Of the file of a picture in the order of drawing."""
    return f"{stem}/drawn/{number:03d}.png"


def _animation(frames: Sequence[Tensor]) -> bytes:
    """The GIF of a path there and back, as long where it shows some of the pictures alone."""
    chosen = evenly(len(frames), MOST_ANIMATED)
    each = round(EACH * (len(frames) - 1) / (len(chosen) - 1))
    return gif(Lazily(frames.__getitem__, [*chosen, *chosen[-2:0:-1]]), each=each)
