"""What CLIP encoders see in the pictures of an adaptation: frozen, trained, or drawn to choose layers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ...models.clip import ClipEncoder
from ...models.stylegan2 import Generator
from .fresh import CHOOSING, FROZEN, TRAINED, Fresh
from .nada_config import AdaptationConfig


class Sight:
    """Draws pictures as the settings say, and looks at them.

    Args:
        model: The network that is adapted.
        frozen: As it was given; None for ``model`` itself, which then has not changed when it is needed.
        encoders: What looks at its pictures.
        config: How they are drawn and shown.
        fresh: What is drawn anew.
    """

    def __init__(
        self,
        model: Generator,
        frozen: Generator | None,
        encoders: Sequence[ClipEncoder],
        config: AdaptationConfig,
        fresh: Fresh,
    ):
        self.model, self.frozen, self.encoders = model, frozen, encoders
        self.config, self.fresh = config, fresh

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Of pictures, ``(B, D)`` per encoder."""
        return [encoder.encode_image(pictures, clamp=self.config.clamp) for encoder in self.encoders]

    def maps(self, pictures: Tensor) -> list[list[Tensor]]:
        """Feature maps of pictures, ``(B, C, h, w)`` per encoder and layer."""
        return [encoder.image_features(pictures, clamp=self.config.clamp) for encoder in self.encoders]

    def frozen_features(
        self, w: Tensor, turn: int, shown: Callable[[int], None] = lambda count: None
    ) -> list[Tensor]:
        """Of the frozen pictures of codes, ``(N, D)`` per encoder; ``shown`` is told how many were seen."""

        def look(pictures: Tensor) -> list[Tensor]:
            features = self.features(pictures)
            shown(len(pictures))
            return features

        return joined(look(pictures) for pictures in self._draw_frozen(w, turn))

    def frozen_maps(self, w: Tensor, turn: int) -> list[list[Tensor]]:
        """Feature maps of the frozen pictures of codes, ``(N, C, h, w)`` per encoder and layer."""
        seen = zip(*(self.maps(pictures) for pictures in self._draw_frozen(w, turn)))
        return [joined(parts) for parts in seen]

    def trained(self, codes: Tensor, turn: int, part: slice = slice(None)) -> list[Tensor]:
        """What is seen in some pictures of a step: features, float32, then the maps that are needed."""
        with self.half():
            noise = self._noise(TRAINED, turn, range(len(codes))[part])
            pictures = self.draw(codes[part], noise)
            seen = [features.float() for features in self.features(pictures)]
            if self.config.perceptual:
                seen += [layer for layers in self.maps(pictures) for layer in layers]
        return seen

    def unlikeness(
        self, codes: Tensor, turn: int, first: int, goals: Sequence[Tensor], weights: Sequence[float]
    ) -> Tensor:
        """One minus the cosine of pictures that choose layers with the target text, over the encoders.

        Args:
            codes: W+.
            turn: Which choice it is.
            first: Where these pictures stand among all that choose.
            goals: The text to each encoder.
            weights: Of the encoders.
        """
        pictures = self.draw(codes, self._noise(CHOOSING, turn, range(first, first + len(codes))))
        unlikeness = torch.ones(len(pictures), device=pictures.device, dtype=torch.float32)
        for weight, features, goal in zip(weights, self.features(pictures), goals):
            unlikeness = unlikeness - weight * (features @ goal)
        return unlikeness

    def draw(
        self, w: Tensor, noise: str | Sequence[Tensor] = "fixed", model: Generator | None = None
    ) -> Tensor:
        """Pictures as a file would hold them, with the gradient of the pictures before they are cut off.

        Otherwise a colour beyond white or black would have no way back. Without ``config.clamp`` they are
        not cut off.
        """
        drawn = (model or self.model).synthesis(w, noise=noise)
        return drawn + (drawn.clamp(0, 1) - drawn).detach() if self.config.clamp else drawn

    def half(self) -> AbstractContextManager:
        """In what networks run: bfloat16 on CUDA, if the settings say so."""
        if self.config.mixed_precision and self.model.latent_avg.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _draw_frozen(self, w: Tensor, turn: int) -> Iterator[Tensor]:
        """The frozen pictures of codes, ``config.chunk`` at a time."""
        for first in range(0, len(w), self.config.chunk):
            part = w[first : first + self.config.chunk]
            noise = self._noise(FROZEN, turn, range(first, first + len(part)))
            yield self.draw(part, noise, self.frozen)

    def _noise(self, drawn_for: int, turn: int, pictures: range) -> str | list[Tensor]:
        """That of some pictures, of those that are drawn together, as ``config.noise`` says."""
        if self.config.noise == "fixed":
            return "fixed"
        return self.fresh.noise(self.model, drawn_for, turn, pictures)


def joined(parts: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Of several tensors each in parts, every one whole."""
    return [whole[0] if len(whole) == 1 else torch.cat(whole) for whole in zip(*parts)]
