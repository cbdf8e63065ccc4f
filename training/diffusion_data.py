"""What the latent diffusion model is trained on: a tokenizer, captions, encoded renders."""

from itertools import pairwise
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from geokernels._sealed import load_sealed, save_sealed
from geokernels.world import ATTRIBUTES, TEMPLATES, WORDS, describe, render
from geokernels.world.captions import random_attributes
from geokernels.world.held_out import sample_seen

from .clip_data import UNSAID
from .steps import chance

CONTEXT = 77  # tokens, as in every Stable Diffusion 1.x and 2.x


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, cut to the merges that the world's words need.

    It splits those words as the whole one does. All bytes stay in the vocabulary, so any text can be read;
    words of another world fall into letters that no caption ever had.
    """
    bpe = open_clip.get_tokenizer("RN50")
    letters = list(bpe.encoder)[:512]
    used = {pair for word in WORDS for pair in _merges(word, bpe.bpe_ranks)}
    merges = sorted(used, key=bpe.bpe_ranks.__getitem__)
    tokens = [*letters, *(first + second for first, second in merges), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=CONTEXT
    )


def _merges(word: str, ranks: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    """The byte-pair merges that put ``word`` together."""
    parts, used = [*word[:-1], word[-1] + "</w>"], []
    while True:
        known = [pair for pair in pairwise(parts) if pair in ranks]
        if not known:
            return used
        best = min(known, key=ranks.__getitem__)
        used.append(best)
        joined, i = [], 0
        while i < len(parts):
            step = 2 if tuple(parts[i : i + 2]) == best else 1
            joined.append("".join(parts[i : i + step]))
            i += step
        parts = joined


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Token numbers, ``(len(prompts), 77)``, as StableDiffusionPipeline asks for them."""
    encoded = tokenizer(
        prompts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids


def captions_of(values: Tensor, *, silent: float, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """A caption of each row of ``values`` (n, 5): half name every attribute, a share ``silent`` nothing.

    The others name one attribute or some; half of all wear one of the world's templates. Beside them, what
    they say, (n, 5), with ``UNSAID`` where they are silent.
    """
    chosen = random_attributes(len(values), generator=generator)
    whole, dropped, plain = torch.rand(3, len(values), generator=generator)
    template = torch.randint(len(TEMPLATES), (len(values),), generator=generator).tolist()
    named = torch.tensor([[a in row for a in ATTRIBUTES] for row in chosen]) | (whole < 0.5)[:, None]
    named &= (dropped >= silent)[:, None]
    said = torch.where(named, values, UNSAID)
    prompts = []
    for row, p, t in zip(said.tolist(), plain, template):
        names = {a: ATTRIBUTES[a][i] for a, i in zip(ATTRIBUTES, row) if i != UNSAID}
        prompts.append(TEMPLATES[0 if p < 0.5 else t].format(describe(names)) if names else "")
    return prompts, said


@torch.no_grad()
def encoded_renders(
    vae: AutoencoderKL, n: int, *, size: int, seed: int, keep: Path | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled latents ``(n, 4, h, w)`` of ``n`` renders, and their attributes' indices ``(n, 5)``.

    With ``keep``, they are read from that file where it exists, and written to it where it does not.
    """
    if keep is not None and keep.exists():
        kept = load_sealed(keep, kind="latents", remedy="remove it, and it is made again")
        return kept["latents"], kept["values"]
    latents, values = [], []
    for part in range(0, n, 64):
        scenes = sample_seen(min(64, n - part), generator=chance(seed, "latents", part))
        pictures = render(scenes, size) * 2 - 1
        latents.append(vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor)
        values.append(torch.stack([getattr(scenes, a) for a in ATTRIBUTES], -1))
    latents, values = torch.cat(latents), torch.cat(values)
    if keep is not None:
        save_sealed(keep, {"latents": latents, "values": values}, kind="latents")
    return latents, values
