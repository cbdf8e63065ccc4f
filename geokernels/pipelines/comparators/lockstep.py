"""Edits that leave the noise beside their sources, in one pass of the U-Net a step, so that they can look."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ...models.denoiser import Denoiser
from ...models.latents import Words
from ..edit.source import EditSource

ROLES = 3  # rows of a pass: sources, edits without their prompts, edits with them


def require_inverted(source: EditSource) -> EditSource:
    """Refuse a source whose inversion is not known step by step."""
    if source.path is None:
        raise ValueError("source must be an inversion with its path, as ddim_inversion makes it, got none")
    return source


def from_source(rows: Tensor, roles: Sequence[int] = (0, 1, 2)) -> Tensor:
    """Give edits what the sources have: role ``roles[i]`` of three equal parts keeps its own if not 0.

    Args:
        rows: ``(3 B, ...)``: sources, edits without their prompts, edits with them.
        roles: For each part, whose rows it gets.
    """
    parts = rows.chunk(ROLES)
    return torch.cat([parts[i] for i in roles])


@torch.no_grad()
def leave_noise(
    denoiser: Denoiser,
    source: EditSource,
    targets: Sequence[str],
    *,
    guidance_scale: float,
    negatives: Sequence[Words] | None = None,
    looking: Callable[[float], AbstractContextManager] | None = None,
) -> Tensor:
    """Latents of the edits, ``(B, C, h, w)``, at the end of their way out of the noise of their sources.

    The sources go back the way that their inversion came, and lie at each step at the level that the U-Net is
    told. What an inversion left out at the noisy end is left out here; at the other end they stay clean.

    Args:
        denoiser: The models.
        source: An inversion of B pictures.
        targets: What the edits should show.
        guidance_scale: Scale of classifier-free guidance.
        negatives: What guidance leads away from at each step; None for no prompt.
        looking: From the share of steps taken to a context in which the U-Net lets edits look at sources;
            None leaves these out of the passes.
    """
    require_inverted(source)
    schedule = source.schedule(denoiser.pipeline.scheduler)
    path = source.path.to(denoiser.device, denoiser.dtype)
    shown, asked = denoiser.read(source.captions), denoiser.read(targets)
    empty = denoiser.read([""]).repeat(len(targets))
    edits = path[0]
    for i, timestep in enumerate(schedule.timesteps):
        words, rows = [empty if negatives is None else negatives[i], asked], [edits, edits]
        if looking:
            words, rows = [shown, *words], [path[min(i, len(path) - 1)], *rows]
        with looking(i / len(schedule)) if looking else nullcontext():
            output = denoiser(torch.cat(rows), timestep, Words.cat(words))
        nothing, prompted = output.chunk(len(rows))[-2:]
        output = nothing + guidance_scale * (prompted - nothing)
        edits = schedule.split(edits, output, schedule.shares[i]).at(schedule.shares[i + 1])
    return edits
