"""The plain ways to edit on a rectified flow: swap the words of an inversion, or of a picture made noisy."""

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..._checks import require_positive, require_share, settle
from ...models.flow import FlowModel
from ..edit.flow_inversion import leave_flow
from ..edit.flow_schedule import flow_schedule
from ..edit.source import schedule_for
from .flow_settings import FlowSettings, noises
from .lockstep import require_inverted
from .task import EditModels, EditTask


@dataclass(frozen=True)
class FlowSwapConfig(FlowSettings):
    """How the swap is sampled, by the solver and in the steps of the inversion.

    Attributes:
        guidance_scale: Of the target's words; None for that of the model's own pipeline: 7 for Stable
            Diffusion 3, 3.5 for FLUX.
    """

    guidance_scale: float | None = None

    published = MappingProxyType({"sd3": {"guidance_scale": 7.0}, "flux": {"guidance_scale": 3.5}})

    def __post_init__(self):
        settle(self)


@torch.no_grad()
def flow_swap(models: EditModels, task: EditTask, config: FlowSwapConfig) -> Tensor:
    """Sample the inverted noise with the target's words."""
    model = FlowModel(models.pipeline)
    config, source = config.settled(model), require_inverted(task.source)
    words = model.guided(
        model.read([""]).repeat(len(task.targets)), model.read(task.targets), config.guidance_scale
    )
    latents = leave_flow(
        model,
        source.latents.to(model.device, model.dtype),
        schedule_for(model, source).shares,
        words,
        guidance_scale=config.guidance_scale,
        solver=source.solver,
    )
    return model.pictures(latents)


@dataclass(frozen=True)
class FlowSDEditConfig(FlowSettings):
    """How noisy the picture is made (Meng et al., ICLR 2022).

    Settings that are None are those of the pipelines of diffusers that begin from a picture.

    Attributes:
        steps: Levels between noise and picture.
        strength: Share of the steps that are taken.
        guidance_scale: Of the target's words.
    """

    steps: int | None = None
    strength: float = 0.6
    guidance_scale: float | None = None

    published = MappingProxyType(
        {"sd3": {"steps": 50, "guidance_scale": 7.0}, "flux": {"steps": 28, "guidance_scale": 7.0}}
    )

    def __post_init__(self):
        settle(self)
        if self.steps is not None:
            require_positive("steps", self.steps)
        require_share("strength", self.strength)


@torch.no_grad()
def flow_sdedit(models: EditModels, task: EditTask, config: FlowSDEditConfig) -> Tensor:
    """Sample the picture, made noisy, with the target's words."""
    model = FlowModel(models.pipeline)
    config = config.settled(model)
    clean = model.encode(task.pictures)
    levels = flow_schedule(model, config.steps, clean.shape[-2:]).shares
    levels = levels[int(config.steps - config.steps * config.strength) :]
    words = model.guided(
        model.read([""]).repeat(len(task.targets)), model.read(task.targets), config.guidance_scale
    )
    noisy = (1 - levels[0]) * clean + levels[0] * noises(model, task)()
    return model.pictures(leave_flow(model, noisy, levels, words, guidance_scale=config.guidance_scale))
