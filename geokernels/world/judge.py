"""Reads every attribute off a picture of the rendered world, by image analysis alone.

No trained model takes part, so the judge shares no weakness with the models it judges. It works as follows:
a plane fitted to the border gives the background; what departs from it, in one piece, is the object; its
pixels vote for a colour, at any brightness between the dark of a texture and full; its coverage, normalised
by area and centroid, is compared with the outlines at every rotation, its brightness with the textures.
Each attribute has a test it must pass, and is None when nothing the world has fits: "none of these".
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import matching
from .renderer import SHADE
from .scenes import ATTRIBUTES, PALETTE, RADII

SIDE = 64  # pictures of other sizes are resized to this
CHUNK = 64  # pictures judged at once, so that they stay in the cache
NONE = -1

EVEN = 0.15  # largest RGB distance of the background's pixels from its plane
EVEN_SHARE = 0.6  # of the border that must be that even
DEPARTURE = 0.16  # RGB distance from the background at which the object begins
LEAST_AREA = 0.012  # of the picture; the smallest object covers 0.02
COLOUR_ERROR = 0.25  # largest RGB distance of a pixel from the colour it votes for
VOTES = 0.55  # share of the pixels that must agree on a colour
LIKENESS = 0.8  # least overlap (Tanimoto) with an outline
CONTRAST = 0.09  # standard deviation of relative brightness above which an object is not plain
PATTERN = 0.55  # least correlation with a texture
SIZES = (0.11, (RADII[0][1] * RADII[1][0]) ** 0.5, 0.36)  # least, dividing and largest radius


@dataclass(frozen=True)
class Verdict:
    """What the judge sees.

    Attributes:
        values: Indices into ``ATTRIBUTES``, ``(n, 5)`` int64 in its order; -1 is none of these.
        mask: Where the object is, ``(n, 1, 64, 64)`` in [0, 1]; all zero when there is none.
    """

    values: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def names(self) -> list[dict[str, str | None]]:
        """One ``{attribute: value or None}`` dictionary a picture."""
        words = [(*values, None) for values in ATTRIBUTES.values()]
        return [{a: word[i] for a, word, i in zip(ATTRIBUTES, words, row)} for row in self.values.tolist()]


def judge(pictures: Tensor) -> Verdict:
    """Name the shape, colours, size and texture in each picture, or say that it is none the world has.

    Deterministic; not differentiable.

    Args:
        pictures: ``(n, 3, side, side)`` floating point in [0, 1], of any side; judged at 64 x 64.

    Raises:
        ValueError: If the pictures are not a batch of square RGB pictures.
        TypeError: If they are not floating point.

    Example:
        >>> judge(torch.full((1, 3, 64, 64), 0.96)).names()
        [{'shape': None, 'colour': None, 'background': 'white', 'size': None, 'texture': None}]
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.shape[2] != pictures.shape[3]:
        raise ValueError(f"pictures must have shape (n, 3, side, side), got {tuple(pictures.shape)}")
    if not pictures.is_floating_point():
        raise TypeError(f"pictures must be floating point in [0, 1], got {pictures.dtype}")
    parts = [_judge(part) for part in pictures.detach().split(CHUNK)] if len(pictures) else []
    if not parts:
        return Verdict(torch.empty(0, len(ATTRIBUTES), dtype=torch.int64), torch.empty(0, 1, SIDE, SIDE))
    values, masks = zip(*parts)
    return Verdict(torch.cat(values), torch.cat(masks))


def _judge(pictures: Tensor) -> tuple[Tensor, Tensor]:
    pictures = pictures.float().cpu()
    if pictures.shape[-1] != SIDE:
        pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)
    ground, even = _background(pictures)
    departure = _length(pictures - ground)
    piece = _largest_piece(departure > DEPARTURE) & even[:, None, None, None]
    found = piece.flatten(1).float().mean(1) > LEAST_AREA

    background, _ = _vote(pictures, ~_grow(piece, 2), dimmest=0.8)
    interior = _shrink(piece)
    colour, base = _vote(
        pictures, torch.where(interior.any(-1).any(-1)[..., None, None], interior, piece), SHADE - 0.1
    )
    coverage = _coverage(pictures, ground, piece, base)
    fit = matching.fit_outline(coverage)
    brightness = (pictures * base[..., None, None]).sum(1, keepdim=True)
    brightness = brightness / base.square().sum(1)[:, None, None, None].clamp(min=1e-6)
    contrast, pattern, likeness = matching.fit_texture(brightness, coverage, fit)

    textured = torch.where(likeness >= PATTERN, pattern + 1, NONE)
    least, divide, largest = SIZES
    measured = (fit.radius > least) & (fit.radius < largest)
    values = torch.stack(
        [
            torch.where(fit.likeness >= LIKENESS, fit.shape, NONE),
            colour,
            background,
            torch.where(measured, (fit.radius > divide).long(), NONE),
            torch.where(contrast < CONTRAST, 0, textured),
        ],
        1,
    )
    about_object = torch.tensor([a != "background" for a in ATTRIBUTES])
    values[~found[:, None] & about_object] = NONE
    values[~even] = NONE
    return values, coverage * found[:, None, None, None]


def _background(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Each picture's background, a plane in each channel fitted robustly to the border; is it that even?"""
    n = len(pictures)
    axis = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1)
    border = torch.ones(SIDE, SIDE, dtype=torch.bool)
    border[3:-3, 3:-3] = False
    A, b = basis[border], pictures[:, :, border].transpose(1, 2)  # (P, 3), (n, P, 3)
    # from the median colour, so that what touches the border does not pull the plane
    error = (b - b.median(1, keepdim=True).values).square().sum(-1).sqrt()
    for _ in range(6):
        weight = 1 / (1 + (error / 0.06) ** 2)
        left = torch.einsum("np,pi,pj->nij", weight, A, A) + 1e-4 * torch.eye(3)
        right = torch.einsum("np,pi,npc->nic", weight, A, b)
        plane = torch.linalg.solve(left, right)  # (n, 3 of basis, 3 channels)
        error = (b - A @ plane).square().sum(-1).sqrt()
    even = (error < EVEN).float().mean(1) > EVEN_SHARE
    return (basis.view(-1, 3) @ plane).transpose(1, 2).reshape(n, 3, SIDE, SIDE), even


def _largest_piece(mask: Tensor) -> Tensor:
    """Keep the largest 8-connected piece of each mask (n, 1, H, W)."""
    label = torch.arange(1, mask[0].numel() + 1, dtype=torch.float32).view(mask.shape[1:]) * mask
    while True:
        spread = F.max_pool2d(label, 3, 1, 1) * mask
        if torch.equal(spread, label):
            break
        label = spread
    number = label.flatten(1).long()
    count = torch.zeros(len(mask), mask[0].numel() + 1).scatter_add_(1, number, (number > 0).float())
    return mask & (label == count.argmax(1)[:, None, None, None])


def _length(x: Tensor) -> Tensor:
    """Over the channels, kept: several times faster than ``norm`` across a dimension of three."""
    return x.square().sum(1, keepdim=True).sqrt()


def _grow(mask: Tensor, by: int) -> Tensor:
    return F.max_pool2d(mask.float(), 2 * by + 1, 1, by) > 0


def _shrink(mask: Tensor) -> Tensor:
    return ~_grow(~mask, 1)


def _vote(pictures: Tensor, mask: Tensor, dimmest: float) -> tuple[Tensor, Tensor]:
    """The colour most pixels of each mask (n, 1, H, W) have, at brightness ``dimmest`` to 1.15 of full.

    Returns:
        Its index, or -1 without a clear majority or where it is nowhere near full brightness, ``(n,)``;
        and its RGB at full brightness, as measured, ``(n, 3)``.
    """
    pixels, inside = pictures.flatten(2).transpose(1, 2), mask.flatten(1)
    along, norm = pixels @ PALETTE.T, PALETTE.square().sum(1)
    level = (along / norm).clamp(dimmest, 1.15)  # (n, P, 8)
    distance = pixels.square().sum(-1, keepdim=True) + level * (level * norm - 2 * along)  # squared
    nearest, choice = distance.min(-1)
    valid = inside & (nearest < COLOUR_ERROR**2)
    votes = (F.one_hot(choice, len(PALETTE)) * valid[..., None]).sum(1)
    most, colour = votes.max(1)
    total = inside.sum(1)

    of_winner = valid & (choice == colour[:, None])
    shown = level.gather(2, colour[:, None, None].expand(-1, level.shape[1], 1))[..., 0]
    # full brightness is what a fifth of the winner's pixels exceed
    rank = (inside.shape[1] - 1 - 0.2 * of_winner.sum(1)).long().clamp(min=0)
    full = torch.where(of_winner, shown, -1.0).sort(1).values.gather(1, rank[:, None])[:, 0]
    bright = of_winner & (shown > 0.8 * full[:, None])
    base = (pixels * bright[..., None]).sum(1) / bright.sum(1, keepdim=True).clamp(min=1)
    agreed = (most > VOTES * total) & (total > 0) & (full > 0.7)
    return torch.where(agreed, colour, NONE), base


def _coverage(pictures: Tensor, ground: Tensor, piece: Tensor, base: Tensor) -> Tensor:
    """How much of each pixel is object, ``(n, 1, H, W)``: its place between ground and object colours."""
    best, covered = None, None
    for level in (1.0, 0.75, SHADE):
        across = level * base[..., None, None] - ground
        share = ((pictures - ground) * across).sum(1, keepdim=True)
        share = (share / across.square().sum(1, keepdim=True).clamp(min=1e-6)).clamp(0, 1)
        error = _length(pictures - ground - share * across)
        # darker mixtures must explain a pixel clearly better: at an edge they often do equally well
        error = error + (0.0 if level == 1.0 else 0.05)
        covered = share if best is None else torch.where(error < best, share, covered)
        best = error if best is None else torch.minimum(error, best)
    return covered * _grow(piece, 1)
