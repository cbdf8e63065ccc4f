"""Classifier-free guidance of a network, and which of its copies a gradient goes through."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...models.latents import LatentModel, Words


def guided_output(
    denoise: LatentModel,
    latents: Tensor,
    timestep: float,
    words: Sequence[Words],
    *,
    guidance_scale: float,
    gradient: str = "exact",
) -> Tensor:
    """What a network says of latents, led by ``guidance_scale`` away from the first words to the second.

    Args:
        denoise: Whose network.
        latents: ``(B, C, h, w)``.
        timestep: What it is told.
        words: Without the prompt and with it, ``B`` rows each; or one alone, which is not guided.
        guidance_scale: How far; 1 is none.
        gradient: ``"exact"``, through both copies, which run in one pass; or ``"released"``, through the
            first alone, of which there are two passes, first that of the second words.

    Gradients:
        First order, to ``latents``. One copy alone has its gradient in either mode.
    """
    if len(words) == 1 or gradient == "exact" or not latents.requires_grad:
        copies = denoise(latents.repeat(len(words), 1, 1, 1), timestep, Words.cat(words)).chunk(len(words))
    else:
        with torch.no_grad():
            conditional = denoise(latents, timestep, words[1])
        copies = denoise(latents, timestep, words[0]), conditional
    if len(copies) == 1:
        return copies[0]
    unconditional, conditional = copies
    return unconditional + guidance_scale * (conditional - unconditional)
