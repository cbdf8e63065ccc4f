"""Pictures of a text-to-picture pipeline: of prompts, and between two."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def draw_prompts(
    pipeline,
    prompts: Sequence[str],
    noise: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    on_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """One picture a prompt.

    Args:
        pipeline: A ``diffusers.StableDiffusionPipeline``.
        prompts: ``n`` texts.
        noise: What each picture starts from, ``(n, ...)`` of :func:`latent_shape`, unit Gaussian.
        steps: Of the pipeline's own scheduler.
        guidance_scale: Scale of classifier-free guidance; 1 is none.
        on_step: Called after each step of the whole batch.

    Returns:
        ``(n, 3, H, W)`` float32 in [0, 1], on the CPU.

    Raises:
        ValueError: If a prompt is longer than the pipeline can read.
    """
    return _draw(pipeline, embed(pipeline, prompts), noise, steps, guidance_scale, on_step)


def draw_between(
    pipeline,
    first: str,
    second: str,
    noise: Tensor,
    *,
    pictures: int,
    steps: int,
    guidance_scale: float,
    on_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Pictures on the straight line from one prompt's embedding to another's, all from the same noise.

    Row ``k`` of the one embedding moves to row ``k`` of the other, whatever the two stand for: the plain
    method. Arguments are those of :func:`draw_prompts`; ``noise`` is of one picture, ``pictures`` at least 2.
    """
    shares = torch.linspace(0, 1, pictures, dtype=torch.float32).view(-1, 1, 1).to(noise)
    start, end = embed(pipeline, [first, second]).split(1)
    words = torch.lerp(start, end, shares.to(start))
    return _draw(pipeline, words, noise.expand(pictures, -1, -1, -1), steps, guidance_scale, on_step)


@torch.no_grad()
def embed(pipeline, prompts: Sequence[str]) -> Tensor:
    """What the U-Net reads of each prompt, ``(n, tokens, D)``."""
    require_readable(pipeline, prompts)
    return pipeline.encode_prompt(list(prompts), pipeline.device, 1, False)[0]


def require_readable(pipeline, prompts: Sequence[str]) -> None:
    """Refuse, with a ValueError, a prompt that is longer than the pipeline can read."""
    longest = pipeline.tokenizer.model_max_length
    for prompt in prompts:
        length = len(pipeline.tokenizer(prompt).input_ids)
        if length > longest:
            raise ValueError(f"prompt must have at most {longest} tokens, got {length}: {prompt[:60]!r}...")


def latent_shape(pipeline) -> tuple[int, int, int]:
    """Channels, height and width of the latents of a picture of the pipeline's own size."""
    side = pipeline.unet.config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return pipeline.unet.config.in_channels, height, width


@torch.no_grad()
def _draw(pipeline, words: Tensor, noise: Tensor, steps, guidance_scale, on_step) -> Tensor:
    nothing = embed(pipeline, [""]).expand(len(words), -1, -1)

    def report(pipe, step, timestep, kept):
        on_step()
        return kept

    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        prompt_embeds=words,
        negative_prompt_embeds=nothing if guidance_scale > 1 else None,
        latents=noise.to(words),
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        output_type="pt",
        callback_on_step_end=report,
    )
    return drawn.images.float().cpu()
