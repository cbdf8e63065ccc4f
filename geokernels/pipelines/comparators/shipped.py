"""What diffusers' own editing pipelines have in common here: made of a loaded one, one edit at a time."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ...models.latents import UnsuitedPipelineError
from .task import EditTask


def made_of(pipeline, kind: str, *, scheduler: str, **parts):
    """A pipeline of another ``kind`` on the components of a Stable Diffusion one, which it shares.

    Args:
        pipeline: Loaded already.
        kind: A class of diffusers.
        scheduler: The class of its scheduler, with the settings of the pipeline's.
        parts: Further components.

    Raises:
        TypeError: If ``pipeline`` is no Stable Diffusion 1 or 2, which these pipelines are written for.
    """
    import diffusers

    if type(pipeline).__name__ != "StableDiffusionPipeline":
        raise UnsuitedPipelineError(f"{kind} takes Stable Diffusion 1 and 2, got {type(pipeline).__name__}")
    config = pipeline.scheduler.config
    own = {"scheduler": getattr(diffusers, scheduler).from_config(config, clip_sample=False), **parts}
    shared = ("vae", "unet", "text_encoder", "tokenizer")
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    with hushed():
        made = getattr(diffusers, kind)(
            **{name: getattr(pipeline, name) for name in shared}, **own, **nothing
        )
    made.set_progress_bar_config(disable=True)
    return made


def one_by_one(task: EditTask, edit: Callable[[int, Tensor, torch.Generator], Tensor]) -> Tensor:
    """Edit each picture by itself: ``edit`` takes its number, ``(1, 3, H, W)`` and a generator."""
    chances = task.chances(torch.device("cpu"))
    edited = [edit(i, task.pictures[i : i + 1], chance) for i, chance in enumerate(chances)]
    pictures = torch.cat([part.float().cpu() for part in edited])
    if not bool(torch.isfinite(pictures).all()):
        raise FloatingPointError("the pictures are not finite; load the model in bfloat16 or float32")
    return pictures.clamp(0, 1)


@contextmanager
def hushed() -> Iterator[None]:
    """Leave out diffusers' words on what is old: that is known, and stands in the documentation."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def restored(unet) -> Iterator[None]:
    """Give a U-Net back its attention and what its weights ask for, whatever is done to them."""
    processors = dict(unet.attn_processors)
    asking = [(weight, weight.requires_grad) for weight in unet.parameters()]
    try:
        yield
    finally:
        unet.set_attn_processor(processors)
        for weight, asks in asking:
            weight.requires_grad_(asks)
            weight.grad = None
