"""No edit at all: a picture out of its own noise with its own caption, which no method can keep better."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.flow import FlowModel, latent_model
from ..edit.flow_inversion import leave_flow
from ..edit.source import schedule_for
from .lockstep import require_inverted
from .task import EditModels, EditTask


@dataclass(frozen=True)
class NoEditConfig:
    """Nothing is to be chosen."""


@torch.no_grad()
def no_edit(models: EditModels, task: EditTask, config: NoEditConfig) -> Tensor:
    """Sample the sources again, without guidance; a rectified flow by the solver of its inversion."""
    model, source = latent_model(models.pipeline), task.source
    schedule, words = schedule_for(model, source), model.read(source.captions)
    latents = source.latents.to(model.device, model.dtype)
    if isinstance(model, FlowModel):
        solver = require_inverted(source).solver
        latents = leave_flow(model, latents, schedule.shares, (words,), guidance_scale=1.0, solver=solver)
        return model.pictures(latents)
    for i, t in enumerate(schedule.timesteps):
        output = model(latents, t, words)
        latents = schedule.split(latents, output, schedule.shares[i]).at(schedule.shares[i + 1])
    return model.pictures(latents)
