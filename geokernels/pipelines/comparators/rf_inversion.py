"""RF-Inversion (Rout et al., ICLR 2025): velocities are drawn to noise going up, and to the picture down."""

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..._checks import require_positive, require_share, settle
from ...models.flow import FlowModel
from ..edit.classifier_free import guided_output
from ..edit.flow_schedule import flow_schedule
from .flow_settings import FlowSettings, noises
from .task import EditModels, EditTask

# of the authors' README (github.com/LituRout/RF-Inversion), for FLUX.1 dev, with the guidance scale of the
# pipeline it calls (diffusers, examples/community); nothing was published for Stable Diffusion 3
PUBLISHED = {"steps": 28, "guidance_scale": 3.5}
UNGUIDED = 0.0  # the scale that a network reads on the way up, where guidance is an input


@dataclass(frozen=True)
class RFInversionConfig(FlowSettings):
    """How strongly the way is held, and where.

    Settings that are None are those published for FLUX, for Stable Diffusion 3 as well.

    Attributes:
        steps: Levels between noise and picture.
        gamma: Share of the velocity on the way up that leads straight to the noise that was drawn.
        eta: Share of the velocity on the way down that leads straight back to the picture.
        start: Share of the steps down after which ``eta`` begins.
        stop: Share of the steps down after which it ends: 7 of 28, as published.
        guidance_scale: Of the target's words. The way up has none, and no words.
    """

    steps: int | None = None
    gamma: float = 0.5
    eta: float = 0.9
    start: float = 0.0
    stop: float = 0.25
    guidance_scale: float | None = None

    published = MappingProxyType({"sd3": PUBLISHED, "flux": PUBLISHED})

    def __post_init__(self):
        settle(self)
        if self.steps is not None:
            require_positive("steps", self.steps)
        for name in ("gamma", "eta", "start", "stop"):
            require_share(name, getattr(self, name))


@torch.no_grad()
def rf_inversion(models: EditModels, task: EditTask, config: RFInversionConfig) -> Tensor:
    r"""Edit by an inversion of its own.

    Upwards $v + \gamma\,((y_1 - Y) / (1 - s) - v)$ with drawn noise $y_1$; downwards, within the window,
    $v + \eta\,((X - y_0) / s - v)$ with the picture $y_0$. Both are told the level of the state that they
    see; the released code tells the way up evenly spaced levels, wherever its shifted ones lie.
    """
    model = FlowModel(models.pipeline)
    config = config.settled(model)
    clean, noise = model.encode(task.pictures), noises(model, task)()
    levels = flow_schedule(model, config.steps, clean.shape[-2:]).shares
    N, empty = config.steps, model.read([""]).repeat(len(task.targets))
    unled = model.guided(empty, empty, UNGUIDED)[-1]
    x = clean
    for i in reversed(range(N)):
        level = levels[i + 1]
        velocity = model(x, level, unled)
        velocity = velocity + config.gamma * ((noise - x) / (1 - level) - velocity)
        x = x + (levels[i] - level) * velocity
    words = model.guided(empty, model.read(task.targets), config.guidance_scale)
    held = range(int(config.start * N), min(int(config.stop * N), N))
    for i in range(N):
        velocity = guided_output(model, x, levels[i], words, guidance_scale=config.guidance_scale)
        if i in held:
            velocity = velocity + config.eta * ((x - clean) / levels[i] - velocity)
        x = x + (levels[i + 1] - levels[i]) * velocity
    return model.pictures(x)
