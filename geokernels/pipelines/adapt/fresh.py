"""What an adaptation draws anew: latents and noise, by seeds that say for what and when.

A run that is resumed at any step therefore draws what it would have drawn, and a picture's noise does not
depend on which pictures are drawn together.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ...models.stylegan2 import Generator

# where seeds begin: beyond those of the visits to a pool
LATENTS, CHOOSING_LATENTS, NOISE = 2**33, 2**33 + 2**32, 2**34
FROZEN, TRAINED, CHOOSING = range(3)  # what pictures are drawn for
TOGETHER = 2**20  # more than are drawn together


class Fresh(NamedTuple):
    """All that is drawn anew in a run."""

    seed: int

    def noise(self, model: Generator, drawn_for: int, turn: int, pictures: range) -> list[Tensor]:
        """Noise of some of the pictures that are drawn together for one purpose at one turn."""
        first = self.seed + NOISE + (3 * turn + drawn_for) * TOGETHER
        return model.fresh_noise([first + picture for picture in pictures])

    @torch.no_grad()
    def codes(self, model: Generator, turn: int, count: int, *, truncation: float, mixing: float) -> Tensor:
        """Codes of the latents of a step, ``(count, D)``, or with a chance of ``mixing`` W+ of two each.

        Those of two take the rows before a random one from the first latent and the others from the second,
        as StyleGAN2's style mixing does.
        """
        chance = torch.Generator().manual_seed(self.seed + LATENTS + turn)
        mixed = torch.rand((), generator=chance, dtype=torch.float32) < mixing
        shape = (2 if mixed else 1, count, model.config.style_dim)
        pairs = torch.randn(shape, generator=chance, dtype=torch.float32).to(model.latent_avg)
        codes = [model.truncate(model.mapping(z), truncation) for z in pairs]
        if not mixed:
            return codes[0]
        row = int(torch.randint(1, model.config.codes, (), generator=chance))
        return model.mix(*codes, range(row, model.config.codes))

    def choosing_codes(self, model: Generator, turn: int, count: int, *, truncation: float) -> Tensor:
        """Codes of the latents by which layers are chosen, ``(count, D)``."""
        turn += CHOOSING_LATENTS - LATENTS
        return self.codes(model, turn, count, truncation=truncation, mixing=0.0)
