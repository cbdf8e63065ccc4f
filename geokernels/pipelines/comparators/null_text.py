"""Null-text inversion (Mokady et al., CVPR 2023), and an edit by Prompt-to-Prompt on top of it."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..._checks import require_positive, require_share, settle
from ..._renamed import Renamed
from ...models.denoiser import Denoiser
from ...models.latents import Words
from ..edit.network import frozen
from ..edit.source import EditSource
from .attention import attending, cross_attentions, in_order, self_attentions
from .lockstep import leave_noise, require_inverted
from .prompt_to_prompt import SharedWords, own_layout
from .task import EditModels, EditTask

FINEST = 16**2  # tokens of the finest self-attention that is taken over


@dataclass(frozen=True)
class NullTextConfig(Renamed, guidance="guidance_scale"):
    """How the empty prompt is fitted, and what the edit takes from its source.

    Attributes:
        guidance_scale: Scale of classifier-free guidance.
        inner: Most steps of Adam for each step of DDIM.
        rate: Their size at first; it falls by a hundredth of itself for every fiftieth of the way.
        enough: Mean squared error at which they end, at first; two times that is added every fiftieth.
        words: Share of the steps in which shared words are seen where the source's are.
        layout: Share of the steps in which self-attention looks where the source's does.
    """

    guidance_scale: float = 7.5
    inner: int = 10
    rate: float = 1e-2
    enough: float = 1e-5
    words: float = 0.4
    layout: float = 0.6

    def __post_init__(self):
        settle(self)
        require_positive("inner", self.inner)
        require_positive("rate", self.rate)
        require_share("words", self.words)
        require_share("layout", self.layout)


def null_text(models: EditModels, task: EditTask, config: NullTextConfig) -> Tensor:
    """Edit by the words that change, after the empty prompt was fitted to bring the source back."""
    denoiser = Denoiser(models.pipeline)
    blocks = in_order(denoiser.unet)
    captions, device = task.source.captions, denoiser.device
    shared = SharedWords(models.pipeline.tokenizer, captions, task.targets, device)
    fitted = fit_empty_prompt(denoiser, task.source, config)
    latents = leave_noise(
        denoiser,
        task.source,
        task.targets,
        guidance_scale=config.guidance_scale,
        negatives=fitted,
        looking=partial(_controlled, blocks, shared, config),
    )
    return denoiser.pictures(latents)


def fit_empty_prompt(denoiser: Denoiser, source: EditSource, config: NullTextConfig) -> list[Words]:
    """The empty prompt of every step with which guided sampling goes back the way of the inversion.

    Step i leads from the level of ``path[i]`` to that of ``path[i + 1]``, and where the inversion began with
    the clean latents, to these. Each picture has its own, and stops by itself, so that it does not depend on
    what else is in the batch.
    """
    require_inverted(source)
    schedule = source.schedule(denoiser.pipeline.scheduler)
    path = source.path.to(denoiser.device, denoiser.dtype)
    asked, empty = denoiser.read(source.captions), denoiser.read([""]).repeat(len(source.captions))
    rows, latents, fitted = empty.rows.to(denoiser.dtype), path[0], []
    for i, timestep in enumerate(schedule.timesteps):
        wanted = path[min(i + 1, len(path) - 1)]
        with torch.no_grad():
            prompted = denoiser(latents, timestep, asked)

        def step(rows: Tensor, latents: Tensor = latents, prompted: Tensor = prompted, i: int = i) -> Tensor:
            words = Words(rows.to(empty.rows.dtype), empty.pooled)
            nothing = denoiser(latents, schedule.timesteps[i], words)
            output = nothing + config.guidance_scale * (prompted - nothing)
            return schedule.split(latents, output, schedule.shares[i]).at(schedule.shares[i + 1])

        done = 50 * i / source.steps
        rate, enough = config.rate * (1 - done / 100), config.enough * (1 + 2 * done)
        with frozen(denoiser.unet):
            rows = _descend(rows, lambda rows: step(rows) - wanted, config.inner, rate, enough)  # noqa: B023
        with torch.no_grad():
            latents = step(rows)
        fitted.append(Words(rows.to(empty.rows.dtype), empty.pooled))
    return fitted


def _descend(rows: Tensor, error, steps: int, rate: float, enough: float) -> Tensor:
    """Adam on the mean squared error of each picture; a picture whose error is small enough stays."""
    leaf = nn.Parameter(rows.clone())
    adam, moving = torch.optim.Adam([leaf], lr=rate), torch.ones(len(rows), dtype=torch.bool)
    for _ in range(steps):
        with torch.enable_grad():
            losses = error(leaf).square().flatten(1).mean(1)
        moving = moving & (losses.detach() >= enough).cpu()
        if not moving.any():
            break
        (leaf.grad,) = torch.autograd.grad(losses.sum(), leaf)
        before = leaf.detach().clone()
        adam.step()
        with torch.no_grad():
            leaf.copy_(torch.where(moving.to(leaf.device)[:, None, None], leaf, before))
    if not math.isfinite(float(leaf.detach().sum())):
        raise FloatingPointError("the empty prompt became infinite; load the model in bfloat16 or float32")
    return leaf.detach()


@contextmanager
def _controlled(
    blocks: list[nn.Module], shared: SharedWords, config: NullTextConfig, share: float
) -> Iterator[None]:
    with ExitStack() as stack:
        if share < config.words:
            stack.enter_context(attending(cross_attentions(blocks), shared))
        if share < config.layout:
            stack.enter_context(attending(self_attentions(blocks), _coarse_layout))
        yield


def _coarse_layout(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if q.shape[-2] <= FINEST:
        return own_layout(q, k, v, scale)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
