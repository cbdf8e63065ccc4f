"""FlowEdit (Kulikov et al., ICCV 2025): from picture to picture by the difference of two velocities."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._checks import require_positive, settle
from ...models.flow import FlowModel
from ...models.latents import Words
from ..edit.flow_inversion import leave_flow
from ..edit.flow_schedule import flow_schedule
from .flow_settings import FlowSettings, noises
from .task import EditModels, EditTask

# of the paper, and of the code released with it (github.com/fallenshock/FlowEdit)
PUBLISHED = {
    "sd3": {"steps": 50, "n_max": 33, "source_guidance_scale": 3.5, "guidance_scale": 13.5},
    "flux": {"steps": 28, "n_max": 24, "source_guidance_scale": 1.5, "guidance_scale": 5.5},
}


@dataclass(frozen=True)
class FlowEditConfig(FlowSettings):
    """Where the way begins, and how strongly each side is guided.

    Settings that are None are those published for Stable Diffusion 3 or FLUX, whichever the model is.

    Attributes:
        steps: Levels between noise and picture.
        n_max: At how many steps from the end it begins.
        n_min: How many of the last steps are sampled with the target's words alone.
        n_avg: Noises over which the difference of a step is averaged.
        source_guidance_scale: Of the source's velocity.
        guidance_scale: Of the target's.
    """

    steps: int | None = None
    n_max: int | None = None
    n_min: int = 0
    n_avg: int = 1
    source_guidance_scale: float | None = None
    guidance_scale: float | None = None

    published = PUBLISHED

    def __post_init__(self):
        settle(self)
        require_positive("n_avg", self.n_avg)
        for name in ("steps", "n_max"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        steps, most = self.steps or math.inf, self.n_max or math.inf
        if not 0 <= self.n_min <= min(most, steps) or (self.n_max or 0) > steps:
            raise ValueError(
                f"n_min must be at most n_max, and n_max at most steps, got {self.n_min}, {self.n_max} "
                f"and {self.steps}"
            )


@torch.no_grad()
def flow_edit(models: EditModels, task: EditTask, config: FlowEditConfig) -> Tensor:
    r"""Edit without an inversion.

    At level $s$ the source is $X_s = (1 - s) X + s N$ with fresh noise $N$, the target $Z + X_s - X$, and
    $Z$ goes $s' - s$ along the target's velocity less the source's.
    """
    model = FlowModel(models.pipeline)
    config = config.settled(model)
    clean, draw = model.encode(task.pictures), noises(model, task)
    schedule = flow_schedule(model, config.steps, clean.shape[-2:])
    sides = _Sides(model, task, config)
    edits, levels, N = clean, schedule.shares, len(schedule)
    for i in range(N - config.n_max, N - config.n_min):
        difference = torch.zeros_like(clean)
        for _ in range(config.n_avg):
            noisy = (1 - levels[i]) * clean + levels[i] * draw()
            target, source = sides.velocities(noisy, edits + noisy - clean, levels[i])
            difference = difference + (target - source) / config.n_avg
        edits = edits + (levels[i + 1] - levels[i]) * difference
    if config.n_min:
        level = levels[N - config.n_min]
        noisy = (1 - level) * clean + level * draw()
        edits = leave_flow(
            model,
            edits + noisy - clean,
            levels[N - config.n_min :],
            sides.target,
            guidance_scale=config.guidance_scale,
        )
    return model.pictures(edits)


class _Sides:
    """Source and target, whose velocities one pass of all their copies gives."""

    def __init__(self, model: FlowModel, task: EditTask, config: FlowEditConfig):
        nothing = model.read([""]).repeat(len(task.targets))
        self.model, self.scales = model, (config.source_guidance_scale, config.guidance_scale)
        texts = task.source.captions, task.targets
        self.words = [
            model.guided(nothing, model.read(said), scale) for said, scale in zip(texts, self.scales)
        ]

    @property
    def target(self) -> tuple[Words, ...]:
        """The target's words."""
        return self.words[1]

    def velocities(self, source: Tensor, target: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Those of the target, and of the source."""
        copies = [len(words) for words in self.words]
        rows = torch.cat([source.repeat(copies[0], 1, 1, 1), target.repeat(copies[1], 1, 1, 1)])
        parts = self.model(rows, level, Words.cat([*self.words[0], *self.words[1]])).split(len(source))
        led = []
        for scale, own in zip(self.scales, (parts[: copies[0]], parts[copies[0] :])):
            led.append(own[0] if len(own) == 1 else own[0] + scale * (own[1] - own[0]))
        return led[1], led[0]
