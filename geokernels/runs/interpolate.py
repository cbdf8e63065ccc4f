"""Interpolates between prompts in a folder."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from .._files import write_text
from ..media.films import mp4_writer
from ..media.pictures import fit, gif, png, strip, write_bytes, write_picture
from ..pipelines import PromptInterpolation
from ..report.interpolate import NAMES, ShownPath, interpolation_page
from ..report.page import FILM_SIDE
from ..world import judge
from ..world.captions import reading
from .folder import RunFolder
from .loop import Job

PAGE = "report.html"
RATE = 10  # frames a second of an MP4
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

    names = (re.escape(PAGE), rf"{STEMS}/\d{{3,}}\.png", rf"{STEMS}\.(png|gif)", rf"{STEMS}\.mp4")

    def writes(self) -> tuple[str, ...]:
        """The files of one coupling, or of all."""
        stem = "(path)" if self.couplings == 1 else STEMS.replace("path|", "")
        names = tuple(name.replace(STEMS, stem) for name in self.names)
        return names if self.mp4 else names[:-1]

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
            frames = run.frames
            animation = gif([*frames, *frames.flip(0)[1:-1]])
            names += self._write(coupling if len(self.runs) > 1 else "path", frames, animation)
            film = [png(frame, longest=FILM_SIDE) for frame in frames]
            shown[coupling] = ShownPath(animation, film, self._labels(run, frames))
        write_text(self.folder.file(PAGE), interpolation_page(record, shown))
        return names

    def _write(self, stem: str, pictures: Tensor, animation: bytes) -> list[str]:
        file, frames = self.folder.file, list(pictures)
        names = [f"{stem}/{i:03d}.png" for i in range(len(frames))]
        for name, frame in zip(names, frames):
            write_picture(file(name), frame)
        write_picture(file(f"{stem}.png"), strip(frames, height=min(128, pictures.shape[-2])))
        write_bytes(file(f"{stem}.gif"), animation)
        names += [f"{stem}.png", f"{stem}.gif"]
        if self.folder.mp4:
            with mp4_writer(file(f"{stem}.mp4")) as add:
                for i, frame in enumerate(frames):
                    add(fit(frame, 512), Fraction(i, RATE))
            names.append(f"{stem}.mp4")
        return names

    def _labels(self, run: PromptInterpolation, frames: Tensor) -> list[str]:
        if self.judged:
            return [reading(seen) for seen in judge(frames).names()]
        return [f"t = {t:.3f}" for t in run.times.tolist()]
