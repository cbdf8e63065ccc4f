"""Adapts a generator of pictures in a folder, and inverts a real picture into it."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._files import write_text
from ..media.pictures import gif, grid, png, write_bytes, write_picture
from ..models import Generator, save_generator
from ..models.stylegan2_files import FORMATS
from ..pipelines import Adaptation, WInversion
from ..report.adapt import ROWS, ShownAdaptation, adapt_page
from ..report.page import PICTURE_SIDE
from ..world import judge
from ..world.captions import understand
from .folder import RunFolder
from .frames import as_kept, as_shown, kept_steps
from .loop import Job, Tell

FRAMES = 6
SAMPLES = 16
WAY = (0.25, 0.5, 0.75, 1.0)  # to the start
SIDE = 128  # longest side of a kept sample
PAGE_ANIMATION = 384  # longest side of the page's animation

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


class AdaptJob(Job):
    """An adaptation with all that is kept on the way; ``real``, if given, is inverted first.

    Args:
        model: The network as it was given.
        adaptation: Fresh, of that network.
        real: An inversion into that network, fresh, or None.
        folder: Claimed already.
        facts: See :class:`geokernels.runs.loop.Job`.
        seed: Chooses the samples that are shown.
    """

    def __init__(
        self,
        model: Generator,
        adaptation: Adaptation,
        real: WInversion | None,
        folder: AdaptFolder,
        *,
        facts: dict,
        seed: int,
    ):
        self.model, self.adaptation, self.real = model, adaptation, real
        config = {name: stage.facts["config"] for name, stage in self.stages()}
        super().__init__(folder, facts=facts, config=config, device=str(adaptation.device))
        # beyond the seeds of scenes and views: no latent of the pool is among the samples
        chance = torch.Generator().manual_seed(seed + 2**40)
        z = torch.randn(SAMPLES, model.config.style_dim, generator=chance, dtype=torch.float32)
        with torch.no_grad():
            w = model.mapping(z.to(model.latent_avg))
            self.w = model.truncate(w, adaptation.config.truncation)
        self.frames: list[Tensor] = []
        self.labels: list[str] = []

    def prepare(self, tell: Tell) -> None:
        """Keep the samples as they are before."""
        if not self.frames:
            self.frames, self.labels = [as_kept(self.adaptation.pictures(self.w), SIDE)], ["before"]

    def stages(self) -> Iterator[tuple[str, WInversion | Adaptation]]:
        """The inversion, if there is one, and the adaptation."""
        if self.real is not None:
            yield "invert", self.real
        yield "adapt", self.adaptation

    def keep(self, name: str, stage: WInversion | Adaptation) -> None:
        """Keep the samples where it is time."""
        if stage is not self.adaptation:
            return
        if stage.index == 1:
            self._keep_way()
        if stage.index in kept_steps(stage.steps, FRAMES):
            self.frames.append(as_kept(stage.pictures(self.w), SIDE))
            self.labels.append(f"step {stage.index}")

    def _keep_way(self) -> None:
        """Keep samples on the way to the adaptation's start."""
        if not self.adaptation.started:
            return
        for extent in WAY:
            with torch.no_grad():
                codes = self.adaptation.start.map.part(extent)(self.w)
                parts = codes.split(self.adaptation.config.chunk)
                shown = torch.cat([self.model.synthesis(part) for part in parts])
            self.frames.append(as_kept(shown.clamp(0, 1), SIDE))
            self.labels.append(f"{extent:.0%} of the way to the start")

    def preview(self) -> Tensor | None:
        """The samples as they were kept last."""
        return grid(list(as_shown(self.frames[-1:])[0])) if self.frames else None

    def state_dict(self) -> dict:
        """The kept samples."""
        return {"frames": self.frames, "labels": self.labels}

    def load_state_dict(self, state: dict) -> None:
        """Take back the kept samples."""
        self.frames, self.labels = [frame.cpu() for frame in state["frames"]], list(state["labels"])

    def last_good(self, name: str, stage: WInversion | Adaptation) -> str:
        """Write the network as the last good step left it."""
        if stage is not self.adaptation:
            where = self.folder.path / self.folder.checkpoint
            return f"the inversion after step {stage.index} is kept in {where}"
        self._save_model()
        where = self.folder.path / self.folder.generator
        return f"the generator after step {stage.index} is kept as {where}"

    def record(self) -> dict:
        """How it started, which layers learnt, and what the judge makes of it."""
        start = self.adaptation.start
        if start is not None:
            start = {
                "cosine": round(start.cosine, 4),
                "score": round(start.score, 4),
                "taken": self.adaptation.started,
            }
        return {
            "start": start,
            "layers": [list(rows) for rows in self.adaptation.chosen],
            "judged": _judged(self.frames, self.facts),
        }

    def finish(self, record: dict) -> Collection[str]:
        """Write the network, pictures, animation and page."""
        file = self.folder.file
        self._save_model()
        frames, real = as_shown(self.frames), self._real_pictures()
        grids = [grid(list(frame)) for frame in frames]
        write_picture(file(BEFORE), grids[0])
        write_picture(file(AFTER), grids[-1])
        strip = png(metamorphosis(frames))
        write_bytes(file(STRIP), strip)
        write_bytes(file(ANIMATION), gif(grids, longest=512, each=250))
        for name, shown in zip(REAL, real):
            write_picture(file(name), shown)
        shown = ShownAdaptation(
            png(grids[0], longest=PICTURE_SIDE),
            png(grids[-1], longest=PICTURE_SIDE),
            gif(grids, longest=PAGE_ANIMATION, each=250),
            strip,
            self.labels,
            [png(picture, longest=PICTURE_SIDE) for picture in real],
        )
        write_text(file(PAGE), adapt_page(record, shown))
        return [self.folder.generator, BEFORE, AFTER, STRIP, ANIMATION, PAGE, *REAL[: len(real)]]

    def _save_model(self) -> None:
        save_generator(self.adaptation.model, self.folder.file(self.folder.generator))

    @torch.no_grad()
    def _real_pictures(self) -> list[Tensor]:
        """The given picture, its inversion, and what the adapted network makes of it."""
        if self.real is None:
            return []
        adapted = self.adaptation.model.synthesis(self.real.w)[0].clamp(0, 1)
        return [self.real.goal[0].cpu(), self.real.picture().cpu(), adapted.cpu()]


def metamorphosis(frames: Sequence[Tensor]) -> Tensor:
    """Some samples over the steps: a row a sample, a column a kept step, ``(3, ..., ...)``."""
    rows = min(ROWS, len(frames[0]))
    return grid([frame[i] for i in range(rows) for frame in frames], columns=len(frames))


def _judged(frames: list[Tensor], facts: dict) -> dict[str, dict]:
    """What the judge makes of the samples; nothing unless they and the prompt are of the rendered world."""
    asked, had = understand(facts["to"][0]), understand(facts["from"])
    if facts["model"] != "world" or asked is None:
        return {}
    asked = {name: value for name, value in asked.items() if (had or {}).get(name) != value}
    before, after = (judge(frame).names() for frame in as_shown([frames[0], frames[-1]]))
    verdicts = {}
    for name in before[0]:
        pairs = [(was[name], now[name]) for was, now in zip(before, after)]
        goal = asked.get(name)
        verdicts[name] = {
            "asked": goal,
            "before": sum(was == goal for was, _ in pairs) / len(pairs) if goal else 0.0,
            "after": sum(now == goal for _, now in pairs) / len(pairs) if goal else 0.0,
            "kept": sum(was == now for was, now in pairs) / len(pairs),
        }
    return verdicts
