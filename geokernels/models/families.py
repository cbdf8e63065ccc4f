"""The kinds of text-to-picture pipelines of diffusers, as far as they differ in how prompts are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Family:
    """How a kind of pipeline is used.

    Attributes:
        encode: From pipeline, prompt, negative prompt (None for the pipeline's own) and device to what is
            read of both: rows (1, L, D), their mask or None, the pooled vector or None.
        denoiser: Its name among the components.
        tokenizers: Those that must read the whole prompt, and how many tokens each may read; None for its own
            limit.
        rows: The tokenizers whose rows follow one another in the embedding.
        masked: Whether a mask says which rows count.
        negative: Whether a second evaluation with a negative prompt guides.
        optional: Tokenizers that may be missing, with their text encoders.
        options: Of every call.
    """

    encode: Callable[..., tuple]
    denoiser: str
    tokenizers: dict[str, int | None]
    rows: tuple[str, ...] = ("tokenizer",)
    masked: bool = False
    negative: bool = True
    optional: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)


def _rows_only(pipeline, prompt: str, negative: str | None, device) -> tuple:
    rows, other = pipeline.encode_prompt(prompt, device, 1, True, negative_prompt=negative)
    return (rows, None, None), (other, None, None)


def _rows_and_pooled(pipeline, prompt: str, negative: str | None, device) -> tuple:
    rows, other, pooled, other_pooled = pipeline.encode_prompt(
        prompt, device=device, do_classifier_free_guidance=True, negative_prompt=negative
    )
    return (rows, None, pooled), (other, None, other_pooled)


def _three_encoders(pipeline, prompt: str, negative: str | None, device) -> tuple:
    rows, other, pooled, other_pooled = pipeline.encode_prompt(
        prompt, None, None, device=device, negative_prompt=negative
    )
    return (rows, None, pooled), (other, None, other_pooled)


def _masked_rows(pipeline, prompt: str, negative: str | None, device) -> tuple:
    # the length is the default of each of the two pipelines
    rows, mask, other, other_mask = pipeline.encode_prompt(prompt, True, negative or "", device=device)
    return (rows, mask, None), (other, other_mask, None)


def _without_negative(pipeline, prompt: str, negative: str | None, device) -> tuple:
    rows, pooled, _ids = pipeline.encode_prompt(prompt, device=device)
    return (rows, None, pooled), None


PIXART = {"masked": True, "options": {"use_resolution_binning": False}}
FAMILIES = {
    "StableDiffusionPipeline": Family(_rows_only, "unet", {"tokenizer": None}),
    "StableDiffusionXLPipeline": Family(
        _rows_and_pooled,
        "unet",
        {"tokenizer": None, "tokenizer_2": None},
        optional=("tokenizer",),  # the refiner has the second alone
    ),
    "PixArtAlphaPipeline": Family(_masked_rows, "transformer", {"tokenizer": 120}, **PIXART),
    "PixArtSigmaPipeline": Family(_masked_rows, "transformer", {"tokenizer": 300}, **PIXART),
    "StableDiffusion3Pipeline": Family(
        _three_encoders,
        "transformer",
        {"tokenizer": None, "tokenizer_2": None, "tokenizer_3": 256},
        rows=("tokenizer", "tokenizer_3"),
        optional=("tokenizer_3",),
    ),
    "FluxPipeline": Family(
        _without_negative,
        "transformer",
        {"tokenizer": None, "tokenizer_2": 512},
        rows=("tokenizer_2",),
        negative=False,
    ),
}


def require_parts(kind: str, parts: Mapping[str, object], source: Path | str) -> None:
    """Refuse a pipeline that lacks what draws, or what reads its prompts; names the first."""
    if kind not in FAMILIES:
        return
    family = FAMILIES[kind]
    readers = [name for name in family.tokenizers if name not in family.optional]
    encoders = [name.replace("tokenizer", "text_encoder") for name in readers]
    for part in (family.denoiser, "vae", "scheduler", *readers, *encoders):
        if parts.get(part) is None:
            raise ValueError(f"a {kind} must have a {part}, found none in {source}")
