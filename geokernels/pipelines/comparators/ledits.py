"""LEDITS++ (Brack et al., CVPR 2024), as diffusers ships it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._checks import require_share, settle
from ..._renamed import Renamed
from .attention import cross_attentions
from .shipped import hushed, made_of, one_by_one, restored
from .task import EditModels, EditTask


@dataclass(frozen=True)
class LeditsConfig(Renamed, guidance="guidance_scale"):
    """How far the edit goes, and where.

    Attributes:
        guidance_scale: Scale of the edit's guidance.
        threshold: Share of the picture that stays, by the quantile of the guidance.
        skip: Share of the noise's steps that the inversion does not enter.
    """

    guidance_scale: float = 5.0
    threshold: float = 0.9
    skip: float = 0.15

    def __post_init__(self):
        settle(self)
        require_share("threshold", self.threshold)
        require_share("skip", self.skip)


@torch.no_grad()
def ledits(models: EditModels, task: EditTask, config: LeditsConfig) -> Tensor:
    """Edit towards the target prompt out of its own inversion, which no other method can use.

    Its mask is the intersection of attention and guidance where the U-Net attends to the prompt at a quarter
    of the latents' size, as diffusers' code expects; elsewhere that of guidance alone.
    """
    base = models.pipeline
    pipeline = made_of(base, "LEditsPPPipelineStableDiffusion", scheduler="DPMSolverMultistepScheduler")
    pipeline.scheduler = type(pipeline.scheduler).from_config(
        pipeline.scheduler.config, algorithm_type="sde-dpmsolver++", solver_order=2
    )
    coarse = base.unet.down_blocks[2:3]
    intersect = bool(cross_attentions(list(coarse)))

    def edit(i: int, picture: Tensor, chance: torch.Generator) -> Tensor:
        given = picture.to(base.vae.dtype)
        pipeline.invert(given, num_inversion_steps=task.source.steps, skip=config.skip, generator=chance)
        return pipeline(
            editing_prompt=[task.targets[i]],
            edit_guidance_scale=config.guidance_scale,
            edit_threshold=config.threshold,
            use_intersect_mask=intersect,
            generator=chance,
            output_type="pt",
        ).images

    with hushed(), restored(base.unet):
        return one_by_one(task, edit)
