r"""The transformer of a rectified-flow pipeline, Stable Diffusion 3 or FLUX, and what it reads of a prompt.

A state at level $s$ is $x_s = (1 - s)\,x_0 + s\,\epsilon$, from the picture at 0 to noise at 1, and the
transformer says its velocity $v = \epsilon - x_0$.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .denoiser import Denoiser
from .latents import LatentModel, UnsuitedPipelineError, Words

TRAINED = 1000  # timesteps between a picture and noise, as diffusers counts them
PATCH = 2  # side of the squares of latents that FLUX reads as one token


class FlowModel(LatentModel):
    """Transformer, autoencoder and text encoders of Stable Diffusion 3 or FLUX.

    Of Stable Diffusion 3 any text encoder may be missing whose rows the pipeline then takes to be zeros, as
    it does for T5. The embedded model was trained with such rows and without them; here it goes without, at a
    third of the cost. Pictures of any aspect ratio are taken, whose sides ``multiple`` divides.

    Attributes:
        distilled: Whether the guidance scale is an input, as for FLUX.1 dev, and one pass has it.
        guidable: Whether there is any guidance; FLUX.1 schnell has none.

    Raises:
        TypeError: If the pipeline is of another kind, or its transformer does not fit its autoencoder.
    """

    kinds = ("StableDiffusion3Pipeline", "FluxPipeline")

    def __init__(self, pipeline) -> None:
        super().__init__(pipeline)
        config, channels = self.network.config, self.vae.config.latent_channels
        self.packed = self._face.name == "FluxPipeline"
        inputs = config.in_channels // PATCH**2 if self.packed else config.in_channels
        if inputs != channels:
            raise UnsuitedPipelineError(
                f"the transformer must read the {channels} channels of its autoencoder's latents alone, "
                f"got {inputs}"
            )
        self._patch = PATCH if self.packed else config.patch_size
        self.multiple = self._factor * self._patch
        self.distilled = self.packed and config.guidance_embeds
        self.guidable = self.distilled or not self.packed

    @property
    def kind(self) -> str:
        """``"sd3"`` or ``"flux"``, as published settings are told apart."""
        return "flux" if self.packed else "sd3"

    @property
    def _first_weight(self) -> Tensor:
        return self.network.x_embedder.weight if self.packed else self.network.pos_embed.proj.weight

    def read(self, prompts) -> Words:
        """See :meth:`LatentModel.read`; where guidance is an input, at a scale of 1."""
        words = super().read(prompts)
        if getattr(self.pipeline, "embedded", False):
            words = words._replace(rows=words.rows[:, : self.pipeline.tokenizer_max_length])
        return self._at_scale(words, 1.0) if self.distilled else words

    def guided(self, nothing: Words, asked: Words, scale: float) -> tuple[Words, ...]:
        """Both for Stable Diffusion 3, unless ``scale`` is 1; one for FLUX, which reads the scale."""
        if self.distilled:
            return (self._at_scale(asked, scale),)
        return (nothing, asked) if self.guidable and scale != 1 else (asked,)

    def __call__(self, latents: Tensor, time: float, words: Words) -> Tensor:
        """The velocity, see :class:`LatentModel`; ``time`` is the level at which the latents lie."""
        sent = latents.to(self.network.dtype)
        level = torch.full((len(latents),), time, dtype=torch.float32, device=latents.device)
        common = {"encoder_hidden_states": words.rows, "pooled_projections": words.pooled}
        if not self.packed:
            output = self.network(sent, timestep=TRAINED * level, return_dict=False, **common)[0]
            return output.to(latents.dtype)
        tokens = self.network(
            F.pixel_unshuffle(sent, PATCH).flatten(2).mT,  # (B, N, 4 C)
            timestep=level,
            guidance=words.guidance,
            txt_ids=level.new_zeros(words.rows.shape[1], 3),
            img_ids=_places(*(side // PATCH for side in latents.shape[-2:]), level.device),
            return_dict=False,
            **common,
        )[0]
        h, w = (side // PATCH for side in latents.shape[-2:])
        return F.pixel_shuffle(tokens.mT.unflatten(2, (h, w)), PATCH).to(latents.dtype)

    def tokens(self, height: int, width: int) -> int:
        """Of a picture whose latents have this size: how many the transformer reads."""
        return (height // self._patch) * (width // self._patch)

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """See :meth:`LatentModel.latent_shape`."""
        shape = super().latent_shape(height, width)
        self._require_sides(*(side * self._factor for side in shape[1:]))
        return shape

    def _require_sides(self, height: int, width: int) -> None:
        super()._require_sides(height, width)
        most = None if self.packed else self.network.config.pos_embed_max_size
        if most is not None and max(height, width) > most * self.multiple:
            raise ValueError(
                f"pictures must have sides of at most {most * self.multiple} pixels, the places that the "
                f"transformer knows, got {(height, width)}"
            )

    def _at_scale(self, words: Words, scale: float) -> Words:
        rows = words.rows
        return words._replace(guidance=rows.new_full((len(rows),), scale, dtype=torch.float32))


def is_flow(pipeline) -> bool:
    """Whether it is a pipeline of a rectified flow, or of a kind of one."""
    return any(kind.__name__ in FlowModel.kinds for kind in type(pipeline).__mro__)


def latent_model(pipeline) -> Denoiser | FlowModel:
    """The one that suits the pipeline.

    Raises:
        TypeError: If none does.
    """
    if is_flow(pipeline):
        return FlowModel(pipeline)
    if any(kind.__name__ in Denoiser.kinds for kind in type(pipeline).__mro__):
        return Denoiser(pipeline)
    known = (*Denoiser.kinds, *FlowModel.kinds)
    raise UnsuitedPipelineError(
        f"pipeline must be a {', '.join(known[:-1])} or {known[-1]}, got {type(pipeline).__name__}"
    )


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """Row and column of every token, ``(N, 3)``; the first of the three is not used by pictures."""
    rows = torch.arange(height, dtype=torch.float32, device=device)
    columns = torch.arange(width, dtype=torch.float32, device=device)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    return F.pad(places, (1, 0))
