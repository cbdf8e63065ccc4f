"""Runs interpolations in a folder: checkpoints, Ctrl-C, the record."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from .._files import write_text
from ..environment import machine, peak_memory_mib, versions
from ..media.films import mp4_writer
from ..media.pictures import fit, gif, png, strip, write_bytes, write_picture
from ..pipelines import PromptInterpolation
from ..report.interpolate import NAMES, ShownPath, interpolation_page
from ..report.page import FILM_SIDE
from ..world import judge
from ..world.captions import reading
from .folder import RunFolder
from .loop import interrupts_between_steps

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
        found = [name.replace(STEMS, stem) for name in self.names]
        return tuple(found if self.mp4 else found[:-1])

    command = "interpolate"

    def finish(self, record: dict, frames: Mapping[str, Tensor], labels: Mapping[str, Sequence[str]]) -> None:
        """Write pictures, animations, page and, last, ``run.json``; then the checkpoint goes.

        Args:
            record: Everything for ``run.json`` but the checksums.
            frames: Of every coupling, ``(n, 3, H, W)``.
            labels: A word for each of them.
        """
        names, shown = [], {}
        for coupling, pictures in frames.items():
            animation = gif([*pictures, *pictures.flip(0)[1:-1]])
            stem = coupling if len(frames) > 1 else "path"
            names += self._write(stem, pictures, animation, mp4=record["mp4"])
            film = [png(frame, longest=FILM_SIDE) for frame in pictures]
            shown[coupling] = ShownPath(animation, film, labels[coupling])
        write_text(self.file(PAGE), interpolation_page(record, shown))
        self.end(record, [*names, PAGE])

    def _write(self, stem: str, pictures: Tensor, animation: bytes, *, mp4: bool) -> list[str]:
        frames = list(pictures)
        names = [f"{stem}/{i:03d}.png" for i in range(len(frames))]
        for name, frame in zip(names, frames):
            write_picture(self.file(name), frame)
        write_picture(self.file(f"{stem}.png"), strip(frames, height=min(128, pictures.shape[-2])))
        write_bytes(self.file(f"{stem}.gif"), animation)
        names += [f"{stem}.png", f"{stem}.gif"]
        if mp4:
            with mp4_writer(self.file(f"{stem}.mp4")) as add:
                for i, frame in enumerate(frames):
                    add(fit(frame, 512), Fraction(i, RATE))
            names.append(f"{stem}.mp4")
        return names


def run_interpolations(
    runs: Mapping[str, PromptInterpolation],
    folder: InterpolationFolder,
    *,
    facts: dict,
    judged: bool,
    resume: bool = False,
    on_batch: Callable[[str, PromptInterpolation, float], None] = lambda name, run, seconds: None,
) -> dict:
    """Run every interpolation to its end in ``folder``, and write everything they leave behind.

    Args:
        runs: One a coupling, by its name, fresh; with ``resume`` they go to where the checkpoint stands.
        folder: Claimed already.
        facts: What ``run.json`` says besides: prompts, seeds, model, distance.
        judged: Whether the pictures are of the rendered world, which the judge can read.
        resume: Whether to continue from the folder's checkpoint.
        on_batch: Called after each batch with the coupling and the seconds so far; a KeyboardInterrupt leaves
            a checkpoint.

    Returns:
        The record, as in ``run.json`` without the checksums.

    Raises:
        ValueError: If the checkpoint is of another run.
    """
    seconds = 0.0
    if resume:
        state = folder.load("cpu")
        with folder.continuing(state, facts):
            if set(state["runs"]) != set(runs):
                raise ValueError(
                    f"the checkpoint was made with coupling {', '.join(state['runs'])}, "
                    f"this run has {', '.join(runs)}"
                )
            seconds = float(state["seconds"])
            for name, run in runs.items():
                run.load_state_dict(state["runs"][name])
    with interrupts_between_steps() as check:
        for name, run in runs.items():
            while not run.done:
                start = time.perf_counter()
                run.step()
                seconds += time.perf_counter() - start
                states = {name: run.state_dict() for name, run in runs.items()}
                folder.save({"runs": states, "seconds": seconds}, facts)
                on_batch(name, run, seconds)
                check()
    record = _record(runs, facts, seconds)
    frames = {name: run.frames for name, run in runs.items()}
    folder.finish(record, frames, {name: _labels(runs[name], frames[name], judged) for name in runs})
    return record


def _record(runs: Mapping[str, PromptInterpolation], facts: dict, seconds: float) -> dict:
    first = next(iter(runs.values()))
    paths = {}
    for name, run in runs.items():
        distances, score = run.distances(), run.score()
        paths[name] = {
            "times": [round(t, 9) for t in run.times.tolist()],
            "distances": None if distances is None else [round(d, 6) for d in distances.tolist()],
            "score": score and score._asdict(),
            "rounds": run.round,
        }
    config = {key: value for key, value in first.state_dict()["run"]["config"].items() if key != "coupling"}
    device = str(first.model.device)
    return {
        "command": "interpolate",
        **facts,
        "config": {"coupling": list(runs), **config},
        "invariance": {key: float(f"{value:.3g}") for key, value in first.invariance._asdict().items()},
        "paths": paths,
        "seconds": round(seconds, 3),
        "peak_memory_mib": peak_memory_mib(device),
        "machine": machine(device),
        "versions": versions(),
    }


def _labels(run: PromptInterpolation, frames: Tensor, judged: bool) -> list[str]:
    if judged:
        return [reading(seen) for seen in judge(frames).names()]
    return [f"t = {t:.3f}" for t in run.times.tolist()]
