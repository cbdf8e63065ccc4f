"""Runs an adaptation in a folder: samples on the way, checkpoints, a real picture, the record."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._files import write_text
from ..environment import machine, peak_memory_mib, versions
from ..media.pictures import fit, gif, grid, png, write_bytes, write_picture
from ..models import Generator, save_generator
from ..models.stylegan2_files import FORMATS
from ..pipelines import Adaptation, WInversion
from ..report.adapt import ROWS, ShownAdaptation, adapt_page
from ..report.page import PICTURE_SIDE
from ..world import judge
from ..world.captions import understand
from .folder import RunFolder
from .loop import interrupts_between_steps

FRAMES = 6
SAMPLES = 16
WAY = (0.25, 0.5, 0.75, 1.0)  # to the start
SIDE = 128  # longest side of a kept sample
PAGE_ANIMATION = 384  # longest side of the page's animation

Stage = WInversion | Adaptation


BEFORE, AFTER, STRIP, ANIMATION, PAGE = "before.png", "after.png", "strip.png", "adapt.gif", "report.html"
REAL = ("real.png", "real-inverted.png", "real-adapted.png")


@dataclass
class AdaptFolder(RunFolder):
    """Where one adaptation is written; ``path`` need not exist yet.

    Attributes:
        format: Ending of the generator's file.
    """

    command = "adapt"
    format: str = ".safetensors"

    names = (
        *map(re.escape, (BEFORE, AFTER, STRIP, ANIMATION, PAGE, *REAL)),
        *(re.escape(f"generator{ending}") for ending in FORMATS),
    )

    def writes(self) -> tuple[str, ...]:
        """The generator in its own format alone."""
        return (*self.names[: -len(FORMATS)], re.escape(self.generator))

    @property
    def generator(self) -> str:
        """Name of the adapted generator's file."""
        return f"generator{self.format}"

    def keep(self, model: Generator) -> None:
        """Write the generator alone."""
        save_generator(model, self.file(self.generator))

    def finish(
        self,
        record: dict,
        model: Generator,
        frames: Sequence[Tensor],
        labels: Sequence[str],
        real: Sequence[Tensor] = (),
    ) -> None:
        """Write generator, pictures, animation, page and, last, ``run.json``; then the checkpoint goes.

        Args:
            record: Everything for ``run.json`` but the checksums.
            model: The adapted generator.
            frames: The samples at each kept step, ``(n, 3, h, w)``; the first are the frozen generator's.
            labels: A word for each frame.
            real: The given picture, its inversion, and what the adapted generator makes of it; or nothing.
        """
        self.keep(model)
        grids = [grid(list(frame)) for frame in frames]
        write_picture(self.file(BEFORE), grids[0])
        write_picture(self.file(AFTER), grids[-1])
        strip = png(metamorphosis(frames))
        write_bytes(self.file(STRIP), strip)
        write_bytes(self.file(ANIMATION), gif(grids, longest=512, each=250))
        for name, shown in zip(REAL, real):
            write_picture(self.file(name), shown)
        shown = ShownAdaptation(
            png(grids[0], longest=PICTURE_SIDE),
            png(grids[-1], longest=PICTURE_SIDE),
            gif(grids, longest=PAGE_ANIMATION, each=250),
            strip,
            labels,
            [png(picture, longest=PICTURE_SIDE) for picture in real],
        )
        write_text(self.file(PAGE), adapt_page(record, shown))
        names = [self.generator, BEFORE, AFTER, STRIP, ANIMATION, PAGE, *REAL[: len(real)]]
        self.end(record, names)


def metamorphosis(frames: Sequence[Tensor]) -> Tensor:
    """Some samples over the steps: a row a sample, a column a kept step, ``(3, ..., ...)``."""
    rows = min(ROWS, len(frames[0]))
    return grid([frame[i] for i in range(rows) for frame in frames], columns=len(frames))


def kept_steps(steps: int) -> list[int]:
    """After which steps the samples are kept: denser at first, where most happens."""
    return sorted({round(steps * (i / (FRAMES - 1)) ** 1.5) for i in range(FRAMES)})


class AdaptationRun:
    """An adaptation with all that is kept on the way; ``real``, if given, is inverted first.

    Args:
        model: The generator as it was given.
        adaptation: Fresh, of that generator.
        real: An inversion into that generator, fresh, or None.
        seed: Chooses the samples that are shown.
    """

    def __init__(self, model: Generator, adaptation: Adaptation, real: WInversion | None, *, seed: int):
        self.model, self.adaptation, self.real = model, adaptation, real
        self.seconds = 0.0
        # beyond the seeds of scenes and views: no latent of the pool is among the samples
        chance = torch.Generator().manual_seed(seed + 2**40)
        z = torch.randn(SAMPLES, model.config.style_dim, generator=chance, dtype=torch.float32)
        with torch.no_grad():
            w = model.mapping(z.to(model.latent_avg))
            self.w = model.truncate(w, adaptation.config.truncation)
        self.frames = [_keep(adaptation.pictures(self.w))]
        self.labels = ["before"]

    @property
    def stages(self) -> list[Stage]:
        """What is stepped to its end, one after the other."""
        return [stage for stage in (self.real, self.adaptation) if stage is not None]

    def advance(self, stage: Stage) -> None:
        """Take one step, and keep the samples where it is time."""
        start = time.perf_counter()
        if stage is self.adaptation and stage.index == 0 and len(self.frames) == 1:
            self._start(stage)
        stage.step()
        if stage is self.adaptation and stage.index in kept_steps(stage.config.steps):
            self.frames.append(_keep(stage.pictures(self.w)))
            self.labels.append(f"step {stage.index}")
        self.seconds += time.perf_counter() - start

    def _start(self, stage: Adaptation) -> None:
        """Prepare the adaptation, and keep samples on the way to its start."""
        stage.prepare()
        if not stage.started:
            return
        for extent in WAY:
            with torch.no_grad():
                codes = stage.start.map.part(extent)(self.w)
                shown = torch.cat([self.model.synthesis(part) for part in codes.split(stage.config.chunk)])
            self.frames.append(_keep(shown.clamp(0, 1)))
            self.labels.append(f"{extent:.0%} of the way to the start")

    def state_dict(self) -> dict:
        """Everything a later run needs: tensors, numbers and strings only."""
        return {
            "stages": [stage.state_dict() for stage in self.stages],
            "frames": self.frames,
            "labels": self.labels,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a state of the same run.

        Raises:
            ValueError: If the state belongs to another run.
        """
        if len(state["stages"]) != len(self.stages):
            has = "no real picture" if len(state["stages"]) == 1 else "a real picture"
            raise ValueError(f"the checkpoint was made with {has} to invert, this run differs")
        for stage, kept in zip(self.stages, state["stages"]):
            stage.load_state_dict(kept)
        self.frames = [frame.cpu() for frame in state["frames"]]
        self.labels, self.seconds = list(state["labels"]), float(state["seconds"])

    @torch.no_grad()
    def real_pictures(self) -> list[Tensor]:
        """The given picture, its inversion, and what the adapted generator makes of it."""
        if self.real is None:
            return []
        adapted = self.adaptation.model.synthesis(self.real.w)[0].clamp(0, 1)
        return [self.real.goal[0].cpu(), self.real.picture().cpu(), adapted.cpu()]


def run_adaptation(
    run: AdaptationRun,
    folder: AdaptFolder,
    *,
    facts: dict,
    resume: bool = False,
    checkpoint_every: int = 20,
    on_step: Callable[[Stage, float], None] = lambda stage, seconds: None,
) -> dict:
    """Run everything to its end in ``folder``, and write what it leaves behind.

    Args:
        run: Fresh; with ``resume`` it is taken to where the checkpoint stands.
        folder: Claimed already.
        facts: What ``run.json`` says besides: prompts, seed, encoders, generator.
        resume: Whether to continue from the folder's checkpoint.
        checkpoint_every: Steps between checkpoints.
        on_step: Called after each step of a stage with the seconds so far; a KeyboardInterrupt it raises
            leaves a checkpoint and is raised again.

    Returns:
        The record, as in ``run.json`` without the checksums.

    Raises:
        FloatingPointError: If a loss is no longer finite; checkpoint and generator of the last good step are
            kept in the folder, and the message says so.
    """
    if resume:
        state = folder.load(str(run.adaptation.device))
        with folder.continuing(state, facts):
            run.load_state_dict(state)
    else:
        # at once: an interruption before the first step must leave something to continue from
        folder.save(run.state_dict(), facts)
    with interrupts_between_steps() as check:
        for stage in run.stages:
            while not stage.done:
                try:
                    run.advance(stage)
                except FloatingPointError as error:
                    raise FloatingPointError(
                        f"{error}; {_keep_last_good(run, stage, folder, facts)}"
                    ) from error
                try:
                    on_step(stage, run.seconds)
                    check()
                except KeyboardInterrupt:
                    folder.save(run.state_dict(), facts)
                    raise
                if stage.index % checkpoint_every == 0:
                    folder.save(run.state_dict(), facts)
    record = _record(run, facts)
    folder.finish(record, run.adaptation.model, _shown(run.frames), run.labels, run.real_pictures())
    return record


def _keep_last_good(run: AdaptationRun, stage: Stage, folder: AdaptFolder, facts: dict) -> str:
    """Write what the last good step left, and say where."""
    folder.save(run.state_dict(), facts)
    if stage is not run.adaptation:
        return f"the inversion after step {stage.index} is kept in {folder.path / folder.checkpoint}"
    folder.keep(run.adaptation.model)
    return f"the generator after step {stage.index} is kept as {folder.path / folder.generator}"


def _record(run: AdaptationRun, facts: dict) -> dict:
    adaptation, device = run.adaptation, str(run.adaptation.device)
    start = adaptation.start
    found = None
    if start is not None:
        found = {
            "cosine": round(start.cosine, 4),
            "score": round(start.score, 4),
            "taken": adaptation.started,
        }
    record = {
        "command": "adapt",
        **facts,
        "config": dict(adaptation.state_dict()["run"]["config"]),
        "start": found,
        "seconds": round(run.seconds, 3),
        "steps_per_second": round(sum(s.config.steps for s in run.stages) / max(run.seconds, 1e-9), 2),
        "peak_memory_mib": peak_memory_mib(device),
        "machine": machine(device),
        "versions": versions(),
        "layers": [list(rows) for rows in adaptation.chosen],
        "terms": list(adaptation.terms),
        "history": [[round(v, 6) for v in row] for row in adaptation.history.tolist()],
    }
    if run.real is not None:
        record["real"] = {
            "terms": list(run.real.terms),
            "history": [[round(v, 6) for v in row] for row in run.real.history.tolist()],
        }
    judged = _judged(run.frames, facts)
    return {**record, "judged": judged} if judged else record


def _judged(frames: list[Tensor], facts: dict) -> dict[str, dict] | None:
    """What the judge makes of the samples, where they and the prompt are of the rendered world."""
    asked, had = understand(facts["to"]), understand(facts["from"])
    if facts["generator"] != "world" or asked is None:
        return None
    asked = {name: value for name, value in asked.items() if (had or {}).get(name) != value}
    shown = _shown([frames[0], frames[-1]])
    was, now = (judge(frame).names() for frame in shown)
    found = {}
    for name in was[0]:
        pairs = [(a[name], b[name]) for a, b in zip(was, now)]
        goal = asked.get(name)
        found[name] = {
            "asked": goal,
            "before": sum(a == goal for a, _ in pairs) / len(pairs) if goal else 0.0,
            "after": sum(b == goal for _, b in pairs) / len(pairs) if goal else 0.0,
            "kept": sum(a == b for a, b in pairs) / len(pairs),
        }
    return found


def _keep(pictures: Tensor) -> Tensor:
    """Samples as they are kept, at most ``SIDE`` a side, 8 bits a channel, on the CPU."""
    shown = torch.stack([fit(p, SIDE) if p.shape[-1] > SIDE else p for p in pictures])
    return shown.mul(255).round().to(torch.uint8).cpu()


def _shown(frames: list[Tensor]) -> list[Tensor]:
    return [frame.float() / 255 for frame in frames]
