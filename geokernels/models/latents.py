"""What models that draw in an autoencoder's latents have in common, be they U-Nets or transformers."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .text_to_image import Embedding, TextToImage


class Words(NamedTuple):
    """What a network reads of prompts, one a row.

    Attributes:
        rows: One a token, ``(B, L, D)``.
        pooled: The vector that all but Stable Diffusion 1 and 2 read besides, ``(B, P)``, or None.
        guidance: The scale that a network reads into which guidance was distilled, ``(B,)``, or None.
    """

    rows: Tensor
    pooled: Tensor | None = None
    guidance: Tensor | None = None

    def repeat(self, times: int) -> "Words":
        """The same for ``times`` as many latents, all of them again and again."""
        return Words(
            *(None if part is None else part.repeat(times, *[1] * (part.dim() - 1)) for part in self)
        )

    @staticmethod
    def cat(parts: Sequence["Words"]) -> "Words":
        """One after the other."""
        return Words(*(None if some[0] is None else torch.cat(some) for some in zip(*parts)))


class UnsuitedPipelineError(TypeError):
    """A pipeline, or a part of it, is of a kind that what was asked of it cannot use."""


class LatentModel(ABC):
    """Network, autoencoder and text encoders of a diffusers pipeline, as what moves latents needs them.

    Latents and all arithmetic on them are in ``dtype``, at least float32, whatever the network computes in.

    Attributes:
        pipeline: Diffusers' own; what is loaded into it later, such as a LoRA, takes part.
        network: What moves the latents.
        vae: Its autoencoder.
        dtype: Of the latents.
        multiple: What a picture's sides must be divisible by.
    """

    kinds: ClassVar[tuple[str, ...]]  # of pipelines that it can be made of
    network: nn.Module
    multiple: int

    def __init__(self, pipeline) -> None:
        self._face, self.pipeline = TextToImage(pipeline), pipeline
        if self._face.name not in self.kinds:
            raise UnsuitedPipelineError(
                f"pipeline must be a {' or '.join(self.kinds)}, got {self._face.name}"
            )
        self.network, self.vae = getattr(pipeline, self._face.family.denoiser), pipeline.vae
        self.dtype = torch.promote_types(self.network.dtype, torch.float32)
        self._factor = pipeline.vae_scale_factor

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.device

    @property
    @abstractmethod
    def _first_weight(self) -> Tensor:
        """Of the network's first layer, which tells one training from another."""

    @abstractmethod
    def __call__(self, latents: Tensor, time: float, words: Words) -> Tensor:
        """The network's output, ``(B, C, h, w)`` in the dtype of ``latents``, which it has a gradient to."""

    @abstractmethod
    def guided(self, nothing: Words, asked: Words, scale: float) -> tuple[Words, ...]:
        """What the network must read to be led by ``scale`` from no prompt to what was asked for.

        One is read in a pass, and two are guided by classifier-free guidance.
        """

    def digest(self) -> str:
        """Names the network: the checksum of its first layer's signs, which no precision changes.

        On the meta device, where weights have no values, it is empty.
        """
        weight = self._first_weight.detach()
        if weight.is_meta:
            return ""
        signs = (weight > 0).cpu()
        return hashlib.sha256(signs.numpy().tobytes()).hexdigest()

    def read(self, prompts: Sequence[str]) -> Words:
        """What the network reads of each of ``prompts``; of ``""``, what the pipeline takes for no prompt.

        Raises:
            ValueError: If a prompt is longer than a tokenizer can read.
        """
        embeddings = [self.embedding(text) for text in prompts]
        rows = torch.stack([part.rows for part in embeddings]).to(self.network.dtype)
        if embeddings[0].pooled is None:
            return Words(rows)
        return Words(rows, torch.stack([part.pooled for part in embeddings]).to(self.network.dtype))

    def embedding(self, text: str) -> Embedding:
        """The same of one prompt, with what each row stands for."""
        none = None if text else self._face.encode_negative()
        return self._face.encode(text) if none is None else none

    def suited(self, picture: Tensor, longest: int | None = None) -> Tensor:
        """``(3, H, W)`` resized so that the model can take it: to its own size, if none is said.

        Args:
            picture: ``(3, H, W)`` in [0, 1].
            longest: About how many pixels the longer side shall have.
        """
        H, W = picture.shape[-2:]
        share = (longest or max(self.picture_size())) / max(H, W)
        sides = [max(1, round(side * share / self.multiple)) * self.multiple for side in (H, W)]
        if sides == [H, W]:
            return picture
        resized = F.interpolate(picture[None], sides, mode="bilinear", antialias=True, align_corners=False)
        return resized[0].clamp(0, 1)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures ``(B, 3, H, W)`` in [0, 1].

        Raises:
            ValueError: If a side does not suit the model.
        """
        self._require_sides(*pictures.shape[-2:])
        given = pictures.to(self.device, self.vae.dtype) * 2 - 1
        latents = torch.cat([self.vae.encode(part).latent_dist.mode() for part in given.split(4)])
        return (latents.to(self.dtype) - _shift(self.vae)) * self.vae.config.scaling_factor

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)``, float32 in [0, 1], of latents.

        Raises:
            FloatingPointError: If there is NaN among them.
        """
        pictures = torch.cat([decode(self.vae, part).float() for part in latents.split(4)])
        # tensors without values, of which only the cost is asked, have nothing to look at
        if not pictures.is_meta and not bool(torch.isfinite(pictures).all()):
            raise FloatingPointError("the autoencoder's pictures are not finite; load it in float32")
        return pictures.clamp(0, 1)

    def picture_size(self) -> tuple[int, int]:
        """Height and width of the pictures that the model was made for."""
        _, height, width = self._face.latent_shape()
        return height * self._factor, width * self._factor

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Channels, height and width of the latents of a picture, of the model's own size if none is given.

        Raises:
            ValueError: If a side is no multiple of ``multiple``.
        """
        return self._face.latent_shape(height, width)

    def _require_sides(self, height: int, width: int) -> None:
        """Refuse pictures of a size that the model cannot take."""
        if height % self.multiple or width % self.multiple:
            raise ValueError(f"pictures must have sides divisible by {self.multiple}, got {(height, width)}")


def decode(decoder, latents: Tensor, *, longest: int | None = None) -> Tensor:
    """Pictures of latents, about in [0, 1]; not clamped, so that a gradient reaches every pixel.

    Args:
        decoder: An ``AutoencoderKL`` or ``AutoencoderTiny``.
        latents: As the network sees them, ``(B, C, h, w)``.
        longest: Longest side of the pictures; latents of larger ones are averaged first.

    Returns:
        ``(B, 3, H, W)`` in the dtype of ``latents``.

    Gradients:
        First and second order, to ``latents``.
    """
    factor = 2 ** (len(decoder.config.block_out_channels) - 1)
    if longest is not None and longest < max(latents.shape[-2:]) * factor:
        share = longest / (max(latents.shape[-2:]) * factor)
        size = [max(1, round(side * share)) for side in latents.shape[-2:]]
        latents = F.interpolate(latents, size, mode="bilinear", antialias=True, align_corners=False)
    scaled = latents / decoder.config.scaling_factor + _shift(decoder)
    return (decoder.decode(scaled.to(decoder.dtype), return_dict=False)[0] / 2 + 0.5).to(latents.dtype)


def _shift(vae) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0
