"""InstructPix2Pix (Brooks et al., CVPR 2023), as diffusers ships it: a model that reads commands."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._renamed import Renamed
from .shipped import hushed, one_by_one
from .task import EditModels, EditTask


@dataclass(frozen=True)
class InstructPix2PixConfig(Renamed, guidance="guidance_scale", image_guidance="image_guidance_scale"):
    """How strictly command and picture are followed.

    Attributes:
        guidance_scale: Scale of guidance by the command.
        image_guidance_scale: Scale of guidance by the picture.
    """

    guidance_scale: float = 7.5
    image_guidance_scale: float = 1.5


@torch.no_grad()
def instruct_pix2pix(models: EditModels, task: EditTask, config: InstructPix2PixConfig) -> Tensor:
    """Edit by the command, with a pipeline that was trained for it."""
    pipeline = models.instructed
    if pipeline is None:
        raise ValueError("InstructPix2Pix needs a pipeline trained to follow instructions, got none")
    pipeline.set_progress_bar_config(disable=True)

    def edit(i: int, picture: Tensor, chance: torch.Generator) -> Tensor:
        return pipeline(
            task.instructions[i],
            image=picture.to(pipeline.vae.dtype),
            num_inference_steps=task.source.steps,
            guidance_scale=config.guidance_scale,
            image_guidance_scale=config.image_guidance_scale,
            generator=chance,
            output_type="pt",
        ).images

    with hushed():
        return one_by_one(task, edit)
