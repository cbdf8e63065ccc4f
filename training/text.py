"""Small text towers that learn to say which attributes a caption names, and are frozen then."""

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from geokernels.world import ATTRIBUTES, TEMPLATES, WORDS, describe
from geokernels.world.held_out import sample_seen

from .clip_data import values_of
from .diffusion_data import CONTEXT, captions_of, tokenize

OPTIONS = [len(values) + 1 for values in ATTRIBUTES.values()]  # the last is: not named


def build_tower(
    kind: type[CLIPTextModel | CLIPTextModelWithProjection],
    tokenizer: CLIPTokenizer,
    *,
    width: int,
    layers: int,
    heads: int,
):
    """A text tower of ``kind`` at random."""
    settings = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    tower = kind(settings)
    embeddings = dict(tower.named_modules())[EMBEDDINGS[kind]]
    # transformers' initial 0.02 would leave all words alike for long
    nn.init.normal_(embeddings.token_embedding.weight, std=0.5)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.1)
    return tower


EMBEDDINGS = {CLIPTextModel: "embeddings", CLIPTextModelWithProjection: "text_model.embeddings"}


def build_heads(width: int, views: int) -> nn.ModuleList:
    """Linear heads, discarded later, that read every attribute off each of ``views`` features."""
    return nn.ModuleList(nn.Linear(width, sum(OPTIONS)) for _ in range(views))


def of_padding(rows: Tensor, padding: Tensor) -> Tensor:
    """The mean row of the padding: captions are causal, so what stands after one has seen all of it."""
    return torch.einsum("btd,bt->bd", rows, padding / padding.sum(1, keepdim=True))


def last_rows(tower: CLIPTextModel, tokens: Tensor, padding: Tensor) -> tuple[Tensor, ...]:
    """What Stable Diffusion 1 and 2 read of a caption."""
    return (of_padding(tower(tokens).last_hidden_state, padding),)


def rows_and_pooled(
    tower: CLIPTextModelWithProjection, tokens: Tensor, padding: Tensor
) -> tuple[Tensor, ...]:
    """What Stable Diffusion 3 reads: the rows before the last layer, and the projected end of the text."""
    output = tower(tokens, output_hidden_states=True)
    return of_padding(output.hidden_states[-2], padding), output.text_embeds


class Reading:
    """The loss of one step of a text tower: linear heads read every attribute off its features.

    Learned together with the network that draws, the features show the background almost alone, which fills
    most of a picture; that network then takes long to notice the object's colour. Here every attribute
    counts alike.

    Args:
        tower: The tower.
        heads: Of :func:`build_heads`, one a feature.
        tokenizer: Its tokenizer.
        features: From tower, tokens (B, 77) and where they are padding (B, 77) to features (B, width) each.
        batch: Captions a step.
    """

    def __init__(
        self, tower, heads: nn.ModuleList, tokenizer: CLIPTokenizer, features: Callable, *, batch: int
    ) -> None:
        self.tower, self.heads, self.tokenizer = tower, heads, tokenizer
        self.features, self.batch = features, batch

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy, summed over features and attributes."""
        scenes = sample_seen(self.batch, generator=generator)
        prompts, said = captions_of(values_of(scenes), silent=0.05, generator=generator)
        tokens = tokenize(self.tokenizer, prompts)
        padding = (tokens == self.tokenizer.pad_token_id).float()
        truth = torch.where(said < 0, torch.tensor(OPTIONS) - 1, said).unbind(1)
        features = self.features(self.tower, tokens, padding)
        answers = [head(x).split(OPTIONS, 1) for head, x in zip(self.heads, features, strict=True)]
        return {"read": sum(F.cross_entropy(x, y) for parts in answers for x, y in zip(parts, truth))}


def freeze(tower, tokenizer: CLIPTokenizer) -> None:
    """Make a tower what is shipped: half precision, and zero rows for what it never read."""
    used = tokenize(tokenizer, sorted(WORDS)).unique()
    read = torch.zeros(len(tokenizer), 1).index_fill_(0, used, 1.0)
    tower.get_input_embeddings().weight.data.mul_(read)
    tower.half().float().requires_grad_(False).eval()


def longest_caption(tokenizer: CLIPTokenizer) -> int:
    """Tokens of the grammar's longest caption, with those that begin and end it."""
    longest = {
        a: max(values, key=lambda word: len(tokenizer(word).input_ids)) for a, values in ATTRIBUTES.items()
    }
    chosen = product(*((None, value) for value in longest.values()))
    said = [describe({a: v for a, v in zip(ATTRIBUTES, row) if v}) for row in chosen]
    return max(len(tokenizer(t.format(d)).input_ids) for t in TEMPLATES for d in said)
