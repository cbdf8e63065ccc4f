"""The published pattern of work of an OIG step, rebuilt from its description, to count what it costs.

The mathematics is that of ``geokernels.pipelines.edit.oig``; what differs is what is computed beside it:

- the U-Net's passes over the source and the edit are separate loops, and the source's features of every step
  are kept from the first until the second needs them;
- three passes a step have outputs that nothing uses; of one of them, a single copy is evaluated;
- weights of U-Net, autoencoder and CLIP ask for gradients, which are computed with the picture's.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geokernels.losses.editing import contrast_loss, resemblance_loss
from geokernels.models.denoiser import Denoiser
from geokernels.models.latents import Words, decode
from geokernels.pipelines.edit.ddim import Schedule
from geokernels.pipelines.edit.network import tapped
from geokernels.pipelines.edit.oig import step_length


class PublishedPattern:
    """One edit by the pattern above; ``source_pass`` comes before the first ``step``.

    Args:
        denoiser: The models; their weights are made to ask for gradients.
        encoder: A CLIP.
        schedule: Of the steps.
        latents: Noise, ``(1, C, h, w)``.
        words: Without a prompt, with the source's, with the target's: one row each.
        texts: CLIP features of source and target text.
        guidance: Scale of classifier-free guidance.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        encoder,
        schedule: Schedule,
        latents: Tensor,
        words: Sequence[Words],
        texts: Sequence[Tensor],
        *,
        guidance: float = 5.0,
    ):
        self.denoiser, self.encoder, self.schedule = denoiser, encoder, schedule
        self.source, self.x, self.words, self.texts = latents, latents, words, texts
        self.guidance, self.index = guidance, 0
        self.stored: list[list[Tensor]] = []
        self.previous: list[Tensor] | None = None
        self.modules = [denoiser.unet, denoiser.vae, encoder.model]
        for module in self.modules:
            module.requires_grad_(True)

    def parameters(self) -> list[Tensor]:
        """Every weight."""
        return [weight for module in self.modules for weight in module.parameters()]

    @torch.no_grad()
    def source_pass(self, index: int) -> None:
        """One step of the first loop."""
        nothing, shown, _ = self.words
        output, features = self._pair(self.source, index, Words.cat([nothing, shown]))
        self.stored.append(features)
        self.source = self._move(self.source, output, index)

    def step(self) -> None:
        """One step of the second loop."""
        nothing, _, asked = self.words
        pair, i = Words.cat([nothing, asked]), self.index
        with torch.no_grad():
            for words in (pair, pair, nothing):
                x = self.x.repeat(len(words.rows), 1, 1, 1)
                self.denoiser(x, self.schedule.timesteps[i], words)
        x = self.x.detach().requires_grad_()
        output, features = self._pair(x, i, pair)
        picture = self.schedule.split(x, output, self.schedule.shares[i]).picture
        side = self.encoder.image_size
        shown = F.interpolate(
            decode(self.denoiser.vae, picture), (side, side), mode="bicubic", antialias=True
        )
        clip = contrast_loss(self.encoder.encode_image(shown), *self.texts)
        loss = 0.1 * clip + resemblance_loss(features, self.stored[i], self.previous)
        loss.sum().backward()
        with torch.no_grad():
            self.x = self._move(x, output, i) - step_length(i, len(self.schedule)) * x.grad
        self.previous = [part.detach() for part in features]
        self.index += 1
        for weight in self.parameters():
            weight.grad = None

    def _pair(self, x: Tensor, index: int, words: Words) -> tuple[Tensor, list[Tensor]]:
        with tapped(self.denoiser.unet) as features:
            output = self.denoiser(x.repeat(2, 1, 1, 1), self.schedule.timesteps[index], words)
        unconditional, conditional = output.chunk(2)
        features = [part.unflatten(0, (2, -1)) for part in features]
        return unconditional + self.guidance * (conditional - unconditional), features

    def _move(self, x: Tensor, output: Tensor, index: int) -> Tensor:
        share, after = self.schedule.shares[index : index + 2]
        return self.schedule.split(x, output, share).at(after)
