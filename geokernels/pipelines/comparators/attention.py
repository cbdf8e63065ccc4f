"""Attention of diffusers' U-Nets with a say in who looks at what."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

# from queries, keys, values (R, heads, tokens, d) and the scale to what is seen, like the queries
Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def plain_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """What attention does where nobody interferes."""
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def self_attentions(blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Every self-attention in ``blocks``, in the order they run."""
    return _attentions(blocks, "attn1")


def cross_attentions(blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Every attention to the prompt in ``blocks``, in the order they run."""
    return _attentions(blocks, "attn2")


def in_order(unet) -> list[nn.Module]:
    """The blocks of a U-Net in the order they run; modules list the middle last."""
    middle = [] if unet.mid_block is None else [unet.mid_block]
    return [*unet.down_blocks, *middle, *unet.up_blocks]


@contextmanager
def attending(layers: Sequence[nn.Module], attend: Attend) -> Iterator[None]:
    """Let ``layers`` attend by a function of one's own; what they did before is restored."""
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.set_processor(_Processor(attend))
        yield
    finally:
        for layer, processor in zip(layers, before):
            layer.set_processor(processor)


def _attentions(blocks: Sequence[nn.Module], name: str) -> list[nn.Module]:
    return [part for block in blocks for key, part in block.named_modules() if key.endswith(f".{name}")]


class _Processor:
    """The attention inside a transformer block, which has no norm and no skip of its own."""

    def __init__(self, attend: Attend):
        self.attend = attend

    def __call__(
        self, attn, hidden_states: Tensor, encoder_hidden_states=None, attention_mask=None, **_given
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        rows = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in rows)
        seen = self.attend(q, k, v, attn.scale).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](seen)) / attn.rescale_output_factor
