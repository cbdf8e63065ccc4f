"""One face for diffusers' text-to-picture pipelines: what they read of a prompt, and pictures of that."""

import threading
import warnings
from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch
from torch import Tensor

from .families import FAMILIES, Family

READING = threading.RLock()
START, CONTENT, END, PADDING = range(4)  # what a row of an embedding stands for

# Largest share of the text's whole effect that exchanging its rows may have, by dtype: rounding, no more.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.1}

# Of one step PixArt reads a second result, which only these schedulers give.
ONE_STEP = ("LCMScheduler", "DDPMScheduler")


class Embedding(NamedTuple):
    """What a pipeline reads of a prompt.

    Attributes:
        rows: One a token, ``(L, D)``.
        kinds: What each stands for, ``(L,)`` int64: ``START``, ``CONTENT``, ``END`` or ``PADDING``.
        pooled: The vector some models read besides, ``(P,)``, or None.
    """

    rows: Tensor
    kinds: Tensor
    pooled: Tensor | None = None


class Invariance(NamedTuple):
    """How much a model's output changes, as a share of what leaving the prompt away changes."""

    permuted: float  # when rows are exchanged
    repeated: float  # when every row is there twice
    tolerance: float


def _one_at_a_time(read):
    """A tokenizer is set up anew for each text that it pads, and would mix those of two threads."""

    @wraps(read)
    def alone(*args, **kwargs):
        with READING:
            return read(*args, **kwargs)

    return alone


class TextToImage:
    """A loaded pipeline of diffusers, of one of ``FAMILIES``.

    Attributes:
        pipeline: Diffusers' own.
        name: The kind it is of.
        family: How that kind is used.

    Raises:
        TypeError: If the pipeline is of another kind.
    """

    def __init__(self, pipeline) -> None:
        # a pipeline's subclass is used as what it is a subclass of
        names = [kind.__name__ for kind in type(pipeline).__mro__ if kind.__name__ in FAMILIES]
        if not names:
            raise TypeError(f"pipeline must be one of {', '.join(FAMILIES)}, got {type(pipeline).__name__}")
        self.pipeline, self.name, self.family = pipeline, names[0], FAMILIES[names[0]]
        self.pipeline.set_progress_bar_config(disable=True)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.pipeline._execution_device

    @property
    def dtype(self) -> torch.dtype:
        """In which precision it denoises."""
        return getattr(self.pipeline, self.family.denoiser).dtype

    @_one_at_a_time
    @torch.no_grad()
    def encode(self, prompt: str, *, truncate: bool = False) -> Embedding:
        """What the pipeline reads of ``prompt``.

        Args:
            prompt: The text.
            truncate: Whether a prompt that is too long is cut as the pipeline cuts it and a warning says so,
                instead of refused.

        Raises:
            ValueError: If it is too long, or tokenizers and text encoders do not fit together.
            FloatingPointError: If the text encoder returns NaN.
        """
        lengths = {name: self._count(name, prompt, truncate) for name in self.family.tokenizers}
        if self.name == "StableDiffusionXLPipeline" and len(set(lengths.values())) > 1:
            raise ValueError(
                "the two tokenizers must read a prompt alike, as their rows are joined, "
                f"got {lengths['tokenizer']} and {lengths['tokenizer_2']} tokens of {prompt[:60]!r}"
            )
        return self._embedding(prompt, None)[0]

    @_one_at_a_time
    @torch.no_grad()
    def encode_negative(self, prompt: str | None = None) -> Embedding | None:
        """What guidance leads away from; of None, the pipeline's own. None where there is none.

        Raises:
            ValueError: If a prompt is given and the family has no use for it.
        """
        if not self.family.negative:
            if prompt:
                raise ValueError(f"negative prompts must be left out for {self.name}, got {prompt!r}")
            return None
        for name in self.family.tokenizers if prompt else ():
            self._count(name, prompt, False)
        return self._embedding("", prompt)[1]

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Channels, height and width of the latents of a picture, of the model's own size if none is given.

        Raises:
            ValueError: If a side is not divisible as the model needs it.
        """
        config, factor = getattr(self.pipeline, self.family.denoiser).config, self.pipeline.vae_scale_factor
        flux = self.name == "FluxPipeline"
        side = self.pipeline.default_sample_size if flux else config.sample_size
        own = (side, side) if isinstance(side, int) else side
        patch = (
            2 if flux else getattr(config, "patch_size", None) or 2 ** (len(config.block_out_channels) - 1)
        )
        sides = []
        for name, given, standard in (("height", height, own[0]), ("width", width, own[1])):
            if given is not None and (given <= 0 or given % (factor * patch)):
                raise ValueError(f"{name} must be a multiple of {factor * patch} pixels, got {given}")
            sides.append(standard if given is None else given // factor)
        return (config.in_channels // 4 if flux else config.in_channels, *sides)

    @torch.no_grad()
    def draw(
        self,
        rows: Tensor,
        pooled: Tensor | None,
        negative: Embedding | None,
        noise: Tensor,
        *,
        steps: int,
        guidance_scale: float,
        seed: int = 0,
        latent: bool = False,
        on_step: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Pictures of embeddings, one each.

        Args:
            rows: ``(T, L, D)``.
            pooled: ``(T, P)``, or None.
            negative: What guidance leads away from; repeated to L rows where L is a multiple of its own.
            noise: What each starts from, ``(T, ...)`` of :meth:`latent_shape`, unit Gaussian.
            steps: Of the pipeline's own scheduler.
            guidance_scale: Its scale; 1 is none.
            seed: Of what a stochastic scheduler adds on the way, alike for every picture.
            latent: Whether latents are returned and not pictures.
            on_step: Called after each step of the whole batch.

        Returns:
            ``(T, 3, H, W)`` float32 in [0, 1], on the CPU; or latents.

        Raises:
            FloatingPointError: If there is NaN among them; the message says what helps.
            ValueError: If the negative prompt cannot be brought to as many rows, or steps are too few.
        """
        scheduler = type(self.pipeline.scheduler).__name__
        if steps == 1 and self.family.masked and scheduler not in ONE_STEP:
            raise ValueError(f"steps must be at least 2 for {self.name} with {scheduler}, got 1")
        call = self._conditions(rows, pooled, negative if guidance_scale > 1 else None)
        factor = self.pipeline.vae_scale_factor
        height, width = (side * factor for side in noise.shape[-2:])
        if self.name == "FluxPipeline":
            noise = self.pipeline._pack_latents(noise, *noise.shape)
        chances = [torch.Generator(self.device).manual_seed(seed) for _ in range(len(rows))]
        images = self.pipeline(
            **call,
            **_reports(on_step, old=self.family.masked),
            **self.family.options,
            latents=noise.to(self.device, rows.dtype),
            generator=chances,
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            output_type="latent" if latent else "pt",
        ).images.float()
        if not bool(torch.isfinite(images).all()):
            raise FloatingPointError(_nan("pictures", self.dtype))
        return images.cpu()

    @torch.no_grad()
    def invariance(self, key: Embedding, noise: Tensor) -> Invariance:
        """Measure whether the model reads a prompt's rows as a set, and whether as a measure.

        Args:
            key: A prompt that is not empty: of the empty one, what leaving it away changes is taken to be a
                thousandth of the output.
            noise: For one picture, ``(1, ...)``.
        """
        L = len(key.rows)
        shuffled = torch.randperm(L, generator=torch.Generator().manual_seed(0)).to(key.rows.device)
        nothing = self._embedding("", None)[0]
        pooled = None if key.pooled is None else key.pooled[None]

        def draw(rows: Tensor) -> Tensor:
            return self.draw(rows[None], pooled, None, noise, steps=2, guidance_scale=1.0, latent=True)

        plain = draw(key.rows)
        effect = torch.maximum((draw(nothing.rows) - plain).norm(), 1e-3 * plain.norm())
        permuted = draw(key.rows[shuffled]) - plain
        repeated = draw(key.rows.repeat(2, 1)) - plain
        shares = [float(difference.norm() / effect) for difference in (permuted, repeated)]
        return Invariance(*shares, TOLERANCES[self.dtype])

    def _conditions(self, rows: Tensor, pooled: Tensor | None, negative: Embedding | None) -> dict:
        """The arguments of a call that stand for prompts."""
        T = len(rows)
        call = {"prompt_embeds": rows, "pooled_prompt_embeds": pooled}
        if self.family.masked:
            L = max(rows.shape[1], 0 if negative is None else len(negative.rows))
            call["prompt_embeds"], call["prompt_attention_mask"] = _padded(rows, L)
            # its own default, "", would be refused beside an embedding
            call["negative_prompt"] = None
            if negative is not None:
                padded = _padded(negative.rows.expand(T, -1, -1), L)
                call["negative_prompt_embeds"], call["negative_prompt_attention_mask"] = padded
        elif negative is not None:
            times, rest = divmod(rows.shape[1], len(negative.rows))
            if rest:
                raise ValueError(
                    f"a path of {rows.shape[1]} rows must have a multiple of the {len(negative.rows)} of the "
                    "negative prompt; give prompts of as many rows, or a guidance scale of 1"
                )
            call["negative_prompt_embeds"] = negative.rows.repeat(times, 1).expand(T, -1, -1)
            if negative.pooled is not None:
                call["negative_pooled_prompt_embeds"] = negative.pooled.expand(T, -1)
        return {name: value for name, value in call.items() if value is not None or name == "negative_prompt"}

    def _embedding(self, prompt: str, negative: str | None) -> tuple[Embedding, Embedding | None]:
        """What is read of a prompt, and of what guidance leads away from."""
        embedded = self.family.encode(self.pipeline, prompt, negative, self.device)
        embeddings = []
        for said, part in zip((prompt, negative or ""), embedded):
            if part is None:
                return embeddings[0], None
            rows, mask, pooled = part
            kinds = row_kinds(self.pipeline, self.family, said, rows.shape[1]).to(rows.device)
            keep = slice(None) if mask is None else mask[0].bool()
            rows, kinds = rows[0][keep], kinds[keep]
            if not rows.is_meta and not bool(torch.isfinite(rows).all()):
                raise FloatingPointError(_nan("embeddings", rows.dtype))
            embeddings.append(Embedding(rows, kinds, None if pooled is None else pooled[0]))
        return embeddings[0], embeddings[1]

    def _count(self, name: str, prompt: str, truncate: bool) -> int:
        """How many tokens a tokenizer reads; warns or refuses where it cannot read all."""
        tokenizer = getattr(self.pipeline, name)
        if tokenizer is None:
            return 0
        limit = self.family.tokenizers[name] or tokenizer.model_max_length
        ids = tokenizer(prompt, verbose=False).input_ids
        encoder = getattr(self.pipeline, name.replace("tokenizer", "text_encoder"))
        known = encoder.get_input_embeddings().num_embeddings
        if max(ids, default=0) >= known:
            raise ValueError(
                f"{name} must belong to its text encoder, which knows {known} tokens, "
                f"got token {max(ids)} of {prompt[:60]!r}"
            )
        if len(ids) > limit:
            lost = tokenizer.decode(ids[limit - 1 : -1]).strip()
            if not truncate:
                raise ValueError(
                    f"prompt must have at most {limit} tokens, got {len(ids)}: {prompt[:60]!r}...; "
                    "shorten it, or have it truncated"
                )
            warnings.warn(f"{self.name} reads {limit} tokens and leaves out {lost!r}", stacklevel=4)
        return min(len(ids), limit)


def row_kinds(parts, family: Family, prompt: str, rows: int) -> Tensor:
    """What each row of an embedding stands for, ``(rows,)`` int64.

    Args:
        parts: What has the tokenizers, by their names, as attributes.
        family: Whose tokenizers' rows follow one another how.
        prompt: What was read.
        rows: Of the embedding.
    """
    kinds: list[int] = []
    for i, name in enumerate(family.rows):
        tokenizer = getattr(parts, name)
        last = i == len(family.rows) - 1
        limit = rows - len(kinds) if last else tokenizer.model_max_length
        read = [] if tokenizer is None else _token_kinds(tokenizer, prompt, limit)
        kinds += read + [PADDING] * (limit - len(read))
    return torch.tensor(kinds)


def _token_kinds(tokenizer, prompt: str, limit: int) -> list[int]:
    ids = tokenizer(prompt, truncation=True, max_length=limit).input_ids
    kinds = [CONTENT] * len(ids)
    if ids and ids[0] == tokenizer.bos_token_id:
        kinds[0] = START
    if ids and ids[-1] == tokenizer.eos_token_id:
        kinds[-1] = END
    return kinds


def _padded(rows: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Rows (T, L, D) and their mask, filled up to ``length``."""
    T, L, D = rows.shape
    mask = (torch.arange(length, device=rows.device) < L).to(rows.dtype).expand(T, -1)
    return torch.cat([rows, rows.new_zeros(T, length - L, D)], 1), mask


def _reports(on_step: Callable[[], None], *, old: bool) -> dict:
    """The argument by which a pipeline tells of its steps; PixArt knows the one that others had before."""
    if old:
        return {"callback": lambda step, time, latents: on_step()}

    def report(pipeline, step, time, kept):
        on_step()
        return kept

    return {"callback_on_step_end": report}


def _nan(what: str, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    remedy = "; load the model in bfloat16 or float32" if dtype == torch.float16 else ""
    return f"{what} must be finite, got NaN or infinite values from {name} weights{remedy}"
