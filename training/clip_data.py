"""What the world's CLIP is trained on: pairs of scenes one attribute apart, views of them, captions."""

from dataclasses import fields, replace
from itertools import product

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from geokernels.world import (
    ATTRIBUTES,
    TEMPLATES,
    WORDS,
    Scenes,
    describe,
    edit,
    object_mask,
    sample_scenes,
)
from geokernels.world.captions import random_attributes

VALUES = tuple(len(values) for values in ATTRIBUTES.values())
UNSAID = -1  # an attribute that a caption leaves out


class Captions:
    """Every caption of the grammar under every template, as rows of tokens.

    The vocabulary is cut to the tokens that occur, in their original order, so that the end-of-text token
    is still the largest, which is how open_clip's text tower finds it.

    Attributes:
        used: The original token numbers, ``(V,)``; position in it is the compact number.
        tokens: Compact tokens, ``(templates * prod(values + 1), L)``, cut after the longest caption.
    """

    def __init__(self) -> None:
        bpe = open_clip.get_tokenizer("RN50")
        spelled = {word: bpe.encode(word) for word in WORDS}
        ids = {i for word in spelled.values() for i in word} | {0, bpe.sot_token_id, bpe.eot_token_id}
        self.used = torch.tensor(sorted(ids))
        sentences = [t.format(d) for t in TEMPLATES for d in self._descriptions()]
        rows = [
            [bpe.sot_token_id, *(i for word in s.split() for i in spelled[word]), bpe.eot_token_id]
            for s in sentences
        ]
        length = max(map(len, rows))
        padded = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        probe = torch.arange(0, len(rows), 997)
        truth = bpe([sentences[i] for i in probe.tolist()])[:, :length]
        assert torch.equal(padded[probe], truth), "word-wise tokens differ from the tokenizer's"
        self.tokens = torch.searchsorted(self.used, padded)

    @staticmethod
    def _descriptions() -> list[str]:
        said = product(*((None, *values) for values in ATTRIBUTES.values()))
        return [describe({a: v for a, v in zip(ATTRIBUTES, row) if v}) for row in said]

    def rows(self, template: Tensor, said: Tensor) -> Tensor:
        """Row numbers in ``tokens``: ``template`` (...), ``said`` (..., 5) with ``UNSAID`` where silent."""
        row = template
        for i, n in enumerate(VALUES):
            row = row * (n + 1) + said[..., i] + 1
        return row


def values_of(scenes: Scenes) -> Tensor:
    """The attributes' indices, ``(n, 5)``."""
    return torch.stack([getattr(scenes, a) for a in ATTRIBUTES], -1)


def single_captions() -> Tensor:
    """What captions say that name one attribute alone: one row a value, ``(29, 5)``."""
    rows = torch.full((sum(VALUES), len(VALUES)), UNSAID)
    for i, part in enumerate(rows.split(VALUES)):
        part[:, i] = torch.arange(len(part))
    return rows


def sample_pairs(n: int, *, generator: torch.Generator) -> tuple[Scenes, Scenes, Tensor]:
    """``n`` scenes, the same with one attribute changed, and which, ``(n,)``; attributes in equal shares."""
    scenes = sample_scenes(n, generator=generator)
    parts = [scenes[i :: len(VALUES)] for i in range(len(VALUES))]
    edited = [edit(part, a, generator=generator) for part, a in zip(parts, ATTRIBUTES)]
    which = torch.cat([torch.full((len(part),), i) for i, part in enumerate(parts)])
    return _join(parts), _join(edited), which


def sample_said(values: Tensor, *, generator: torch.Generator) -> Tensor:
    """Leave out of each row of ``values`` (n, 5) what a random caption would not mention."""
    chosen = random_attributes(len(values), generator=generator)
    spoken = torch.tensor([[a in row for a in ATTRIBUTES] for row in chosen])
    return torch.where(spoken, values, UNSAID)


def pair_captions(first: Tensor, second: Tensor, which: Tensor, *, generator: torch.Generator) -> Tensor:
    """What two captions (2, n, 5) of a pair say: the same random selection, the changed attribute in it."""
    said = sample_said(first, generator=generator) != UNSAID
    said[torch.arange(len(which)), which] = True
    return torch.where(said, torch.stack([first, second]), UNSAID)


def answers_of(said: Tensor, which: Tensor, template: Tensor, captions: Captions, table: Tensor) -> Tensor:
    """Text features, ``(B, 8, dim)``, of each caption with attribute ``which`` set to each of its values."""
    options = torch.arange(max(VALUES))
    variants = said[:, None].repeat(1, len(options), 1)
    number = torch.tensor(VALUES)[which, None]
    index = which[:, None, None].expand(-1, len(options), 1)
    variants.scatter_(2, index, torch.minimum(options, number - 1)[..., None])
    features = table[captions.rows(template[:, None].expand(-1, len(options)), variants)]
    return features * (options < number)[..., None]


def augment(pictures: Tensor, *, generator: torch.Generator, share: float = 0.7) -> Tensor:
    """Show a ``share`` of ``pictures`` (B, 3, H, W) cropped, shifted, blurred and noisy, as guided views are.

    Crops are 0.7 to 1.1 picture widths, shifted by up to an eighth; 30% of the views are blurred and all of
    them noisy, with a standard deviation up to 0.05.
    """
    B = len(pictures)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(B, generator=generator)

    touched = torch.rand(B, generator=generator) < share
    scale = torch.where(touched, uniform(0.7, 1.1), 1.0)
    affine = torch.zeros(B, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = torch.stack([uniform(-0.25, 0.25), uniform(-0.25, 0.25)], -1) * touched[:, None]
    grid = F.affine_grid(affine, pictures.shape, align_corners=False)
    views = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    blurred = touched & (torch.rand(B, generator=generator) < 0.3)
    views[blurred] = _blur(views[blurred], sigma=uniform(0.4, 1.4)[blurred])
    sigma = (uniform(0, 0.05) * touched)[:, None, None, None]
    return (views + sigma * torch.randn(views.shape, generator=generator)).clamp_(0, 1)


def centred_outline(scenes: Scenes, side: int) -> Tensor:
    """Each object's mask, turned as it is, but large and in the middle of ``(n, 1, side, side)``."""
    middle = replace(
        scenes,
        centre=torch.full_like(scenes.centre, 0.5),
        size=torch.ones_like(scenes.size),
        scale=torch.ones_like(scenes.scale),
    )
    # the largest object takes 0.58 of a picture's width
    masks, cut = object_mask(middle, 2 * side), round(0.2 * 2 * side)
    return F.interpolate(masks[..., cut:-cut, cut:-cut], (side, side), mode="bilinear", antialias=True)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each picture of ``x`` (B, 3, H, W) with its own ``sigma`` (B,) in pixels."""
    B, C, H, W = x.shape
    if B == 0:
        return x
    tap = torch.exp(-0.5 * (torch.arange(-4, 5) / sigma[:, None]) ** 2)
    tap = (tap / tap.sum(1, keepdim=True)).repeat_interleave(C, 0)[:, None]
    x = F.pad(x, (4, 4, 4, 4), mode="replicate").view(1, B * C, H + 8, W + 8)
    x = F.conv2d(F.conv2d(x, tap[:, :, None], groups=B * C), tap[..., None], groups=B * C)
    return x.view(B, C, H, W)


def _join(parts: list[Scenes]) -> Scenes:
    return Scenes(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Scenes)})
