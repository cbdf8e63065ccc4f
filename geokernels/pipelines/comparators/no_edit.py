"""No edit at all: a picture out of its own noise with its own caption, which no method can keep better."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.denoiser import Denoiser
from .task import EditModels, EditTask


@dataclass(frozen=True)
class NoEditConfig:
    """Nothing is to be chosen."""


@torch.no_grad()
def no_edit(models: EditModels, task: EditTask, config: NoEditConfig) -> Tensor:
    """Sample the sources again, without guidance."""
    denoiser = Denoiser(models.pipeline)
    schedule, words = task.source.schedule(models.pipeline.scheduler), denoiser.read(task.source.captions)
    latents = task.source.latents.to(denoiser.device, denoiser.dtype)
    for i, t in enumerate(schedule.timesteps):
        output = denoiser(latents, t, words)
        latents = schedule.split(latents, output, schedule.shares[i]).at(schedule.shares[i + 1])
    return denoiser.pictures(latents)
