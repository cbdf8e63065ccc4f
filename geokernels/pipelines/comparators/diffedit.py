"""DiffEdit (Couairon et al., ICLR 2023), as diffusers ships it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._checks import require_positive, require_share, settle
from ..._renamed import Renamed
from ...models.denoiser import Denoiser
from .shipped import hushed, made_of, one_by_one
from .task import EditModels, EditTask


@dataclass(frozen=True)
class DiffEditConfig(Renamed, guidance="guidance_scale"):
    """How the mask is found, and how deep the edit begins.

    Attributes:
        guidance_scale: Scale of classifier-free guidance, of mask and edit. The inversion has none, as
            published.
        strength: Share of the way into the noise that is gone.
        maps: Noises whose mean the mask is made of.
        threshold: What the mask counts as much, in means of its map.
    """

    guidance_scale: float = 7.5
    strength: float = 0.8
    maps: int = 10
    threshold: float = 3.0

    def __post_init__(self):
        settle(self)
        require_share("strength", self.strength)
        require_positive("maps", self.maps)
        require_positive("threshold", self.threshold)


@torch.no_grad()
def diffedit(models: EditModels, task: EditTask, config: DiffEditConfig) -> Tensor:
    """Edit where the two prompts disagree; it inverts for itself, which it does from within the noise.

    As published, what lies outside the mask is, after each step, the inversion's at the level that the step
    led to. Diffusers takes that of the level before, and ends with a background that has noise left in it.
    """
    import diffusers

    base = models.pipeline
    backwards = diffusers.DDIMInverseScheduler.from_config(base.scheduler.config, clip_sample=False)
    pipeline = made_of(
        base, "StableDiffusionDiffEditPipeline", scheduler="DDIMScheduler", inverse_scheduler=backwards
    )
    steps = {"num_inference_steps": task.source.steps}
    clean = Denoiser(base).encode(task.pictures).to(base.unet.dtype)

    def edit(i: int, picture: Tensor, chance: torch.Generator) -> Tensor:
        given, caption, target = picture.to(base.vae.dtype), task.source.captions[i], task.targets[i]
        mask = pipeline.generate_mask(
            given,
            target_prompt=target,
            source_prompt=caption,
            num_maps_per_mask=config.maps,
            mask_thresholding_ratio=config.threshold,
            guidance_scale=config.guidance_scale,
            generator=chance,
            **steps,
        )
        inverted = pipeline.invert(
            prompt=caption,
            image=given,
            inpaint_strength=config.strength,
            guidance_scale=1.0,
            generator=chance,
            **steps,
        )
        kept = [*inverted.latents[0, 1:], clean[i]]
        outside = torch.from_numpy(mask[0] < 0.5).to(clean.device)

        def mend(step: int, timestep: int, latents: Tensor) -> None:
            latents[0, :, outside] = kept[step][:, outside]

        return pipeline(
            prompt=target,
            mask_image=mask,
            image_latents=inverted.latents,
            callback=mend,
            inpaint_strength=config.strength,
            guidance_scale=config.guidance_scale,
            output_type="pt",
            **steps,
        ).images

    with hushed():
        return one_by_one(task, edit)
