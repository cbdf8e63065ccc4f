"""Prompt-to-Prompt (Hertz et al., ICLR 2023): words that two prompts share keep their places."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import torch
from torch import Tensor

from .lockstep import from_source


def shared_tokens(tokenizer, source: str, target: str) -> list[int]:
    """For each token of ``target``, its partner in ``source``, or -1, by the longest runs in common."""
    length = tokenizer.model_max_length
    before, after = (
        tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
        for text in (source, target)
    )
    partners = [-1] * length
    for run in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
        for i in range(run.size):
            partners[run.b + i] = run.a + i
    return partners


class SharedWords:
    """Attention to the prompt in which an edit's shared words are seen where the source's are.

    What the published method calls refinement: weights of new words are the edit's own, and rows are not
    normalised again.
    """

    def __init__(self, tokenizer, sources: Sequence[str], targets: Sequence[str], device: torch.device):
        partners = torch.tensor(
            [shared_tokens(tokenizer, *pair) for pair in zip(sources, targets)], device=device
        )
        self._shared = (partners >= 0)[:, None, None]  # (B, 1, 1, L)
        self._partners = partners.clamp(min=0)[:, None, None]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attend, over rows of sources, edits without their prompts, and edits with them."""
        weights = (q @ k.mT * scale).float().softmax(-1)
        source, nothing, asked = weights.chunk(3)
        partners, shared = (part.expand_as(asked) for part in (self._partners, self._shared))
        asked = torch.where(shared, source.gather(-1, partners), asked)
        return torch.cat([source, nothing, asked]).to(v.dtype) @ v


def own_layout(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Self-attention in which the edit with its prompt looks where the source looks."""
    q, k = from_source(q, (0, 1, 0)), from_source(k, (0, 1, 0))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
