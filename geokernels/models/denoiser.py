"""The U-Net of a Stable Diffusion pipeline, which denoises latents, and what it reads of a prompt."""

import torch
from torch import Tensor

from .latents import LatentModel, UnsuitedPipelineError, Words


class Denoiser(LatentModel):
    """U-Net, autoencoder and text encoders of Stable Diffusion 1, 2 or XL.

    Attributes:
        unet: The network.

    Raises:
        TypeError: If the pipeline is of another kind, or its U-Net asks for more than text and time.
    """

    kinds = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

    def __init__(self, pipeline) -> None:
        super().__init__(pipeline)
        self.unet = self.network
        kind, inputs = self.unet.config.addition_embed_type, self.unet.config.in_channels
        if kind not in (None, "text_time") or inputs != self.vae.config.latent_channels:
            raise UnsuitedPipelineError(
                f"the U-Net must read text and time alone, got {inputs} channels and an embedding of {kind}"
            )
        self.multiple = self._factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def _first_weight(self) -> Tensor:
        return self.unet.conv_in.weight

    def __call__(self, latents: Tensor, time: int, words: Words) -> Tensor:
        """See :class:`LatentModel`; ``time`` is a timestep of its training."""
        added = None
        if words.pooled is not None:
            H, W = (side * self._factor for side in latents.shape[-2:])
            ids = latents.new_tensor([H, W, 0, 0, H, W], dtype=words.rows.dtype)
            added = {"text_embeds": words.pooled, "time_ids": ids.expand(len(latents), -1)}
        output = self.unet(
            latents.to(self.unet.dtype),
            torch.tensor(time, device=latents.device),
            encoder_hidden_states=words.rows,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output.to(latents.dtype)

    def guided(self, nothing: Words, asked: Words, scale: float) -> tuple[Words, ...]:
        """Both, one after the other; the scale is that of classifier-free guidance."""
        return nothing, asked
