"""Pix2Pix-Zero (Parmar et al., SIGGRAPH 2023), as diffusers ships it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._renamed import Renamed
from .shipped import hushed, made_of, one_by_one, restored
from .task import EditModels, EditTask


@dataclass(frozen=True)
class Pix2PixZeroConfig(Renamed, guidance="guidance_scale"):
    """How the edit is held to the source's attention.

    Attributes:
        guidance_scale: Scale of classifier-free guidance.
        amount: Length of the step against the difference of the attention to the prompt.
    """

    guidance_scale: float = 7.5
    amount: float = 0.1


def pix2pix_zero(models: EditModels, task: EditTask, config: Pix2PixZeroConfig) -> Tensor:
    """Edit along the difference of two prompts' embeddings, where many sentences of each were published.

    The inversion is the one that all methods share, not the regularised one of the publication.
    """
    base = models.pipeline
    if task.source.skip > 1:  # diffusers' pipeline takes every step
        raise ValueError(
            f"Pix2Pix-Zero begins at the noisiest level, where an inversion ends that leaves out at most 1 "
            f"timestep at either end, got skip = {task.source.skip}"
        )
    parts = {"inverse_scheduler": None, "caption_generator": None, "caption_processor": None}
    pipeline = made_of(base, "StableDiffusionPix2PixZeroPipeline", scheduler="DDIMScheduler", **parts)

    def edit(i: int, picture: Tensor, chance: torch.Generator) -> Tensor:
        caption, target = task.source.captions[i], task.targets[i]
        return pipeline(
            prompt=caption,
            source_embeds=pipeline.get_embeds([caption]),
            target_embeds=pipeline.get_embeds([target]),
            latents=task.source.latents[i : i + 1].to(base.unet.device, base.unet.dtype),
            num_inference_steps=task.source.steps,
            guidance_scale=config.guidance_scale,
            cross_attention_guidance_amount=config.amount,
            height=picture.shape[-2],
            width=picture.shape[-1],
            generator=chance,
            output_type="pt",
        ).images

    with hushed(), restored(base.unet), torch.no_grad():
        return one_by_one(task, edit)
