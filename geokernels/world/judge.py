"""Reads every attribute off a picture of the rendered world, by image analysis alone.

No trained model takes part, so the judge shares no weakness with the models it judges. It works as follows:
a plane fitted to the border gives the background; what departs from it, in one piece, is the object; its
pixels vote for a colour, at any brightness between the dark of a texture and full; its coverage, normalised
by area and centroid, is compared with the outlines at every rotation, its brightness with the textures.
Each attribute has a test it must pass, and is None when nothing the world has fits: "none of these".
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .._modes import own_modes
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

# Margins, and the chance that an answer of such a margin is right; "texture" where it is not "plain".
CALIBRATION = {
    "shape": (
        (0.0, 0.003, 0.012, 0.024, 0.042, 0.07, 0.118, 0.302),
        (0.5385, 0.5385, 0.5443, 0.8247, 0.8961, 0.9739, 0.9992, 0.9996),
    ),
    "colour": (
        (0.0, 0.206, 0.301, 0.378, 0.505, 0.67, 0.863, 0.993),
        (0.8767, 0.8767, 0.9324, 0.9583, 0.9791, 0.9895, 0.9974, 0.9978),
    ),
    "background": ((0.0, 0.997), (0.9998, 0.9998)),
    "size": (
        (0.0, 0.055, 0.124, 0.154, 0.171, 0.189, 0.221, 0.291),
        (0.8228, 0.8228, 0.9873, 0.9936, 0.9968, 0.9984, 0.9992, 0.9996),
    ),
    "texture": (
        (0.0, 0.038, 0.177, 0.325, 0.422, 0.537, 0.747),
        (0.9362, 0.9362, 0.9854, 0.9945, 0.9972, 0.9986, 0.9993),
    ),
    "plain": (
        (0.0, 0.058, 0.15, 0.263, 0.428, 0.634, 0.832),
        (0.3125, 0.3125, 0.3333, 0.4206, 0.625, 0.8343, 0.9636),
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What the judge sees.

    Attributes:
        values: Indices into ``ATTRIBUTES``, ``(n, 5)`` int64 in its order; -1 is none of these.
        mask: Where the object is, ``(n, 1, 64, 64)`` in [0, 1]; all zero when there is none.
        margins: How far each answer is from being another, ``(n, 5)``, at least 0: the shape's lead in
            overlap over the next, the colours' in votes, the logarithm of the radius over the dividing one,
            how far the contrast is from the threshold of "plain". Comparable within an attribute alone.
    """

    values: Tensor
    mask: Tensor
    margins: Tensor

    def __len__(self) -> int:
        return len(self.values)

    @property
    def confidence(self) -> Tensor:
        """How likely each answer is right, ``(n, 5)`` in [0, 1], going by its margin; 0 where there is none.

        Calibrated by ``training/calibrate_judge.py`` on renders disturbed as the judge's model card says,
        from clean to hardly readable; other faults may mislead it.
        """
        sure = [_chance(self.margins[:, i], a) for i, a in enumerate(ATTRIBUTES)]
        plain = _chance(self.margins[:, -1], "plain")
        sure[-1] = torch.where(self.values[:, -1] == 0, plain, sure[-1])
        return torch.where(self.values == NONE, 0.0, torch.stack(sure, 1))

    def sure(self, least: float) -> "Verdict":
        """The same, with "none of these" for every answer of less confidence than ``least``."""
        return replace(self, values=torch.where(self.confidence < least, NONE, self.values))

    def names(self) -> list[dict[str, str | None]]:
        """One ``{attribute: value or None}`` dictionary a picture."""
        words = [(*values, None) for values in ATTRIBUTES.values()]
        return [{a: word[i] for a, word, i in zip(ATTRIBUTES, words, row)} for row in self.values.tolist()]


@own_modes
def judge(pictures: Tensor) -> Verdict:
    """Name the shape, colours, size and texture in each picture, or say that it is none the world has.

    Deterministic; not differentiable.

    Args:
        pictures: ``(n, 3, side, side)`` floating point in [0, 1], of any side; judged at 64 x 64.

    Returns:
        What it reads in each picture, and how sure it is.

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
    if len(pictures) == 0:
        empty = torch.empty(0, len(ATTRIBUTES), dtype=torch.float32)
        return Verdict(empty.long(), torch.empty(0, 1, SIDE, SIDE, dtype=torch.float32), empty)
    values, masks, margins = zip(*(_judge(part) for part in pictures.detach().split(CHUNK)))
    return Verdict(torch.cat(values), torch.cat(masks), torch.cat(margins))


def _judge(pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pictures = pictures.float().cpu()
    if pictures.shape[-1] != SIDE:
        pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)
    ground, even = _background(pictures)
    departure = _length(pictures - ground)
    piece = _largest_piece(departure > DEPARTURE) & even[:, None, None, None]
    visible = piece.flatten(1).float().mean(1) > LEAST_AREA

    background, _, ground_lead = _vote(pictures, ~_grow(piece, 2), dimmest=0.8)
    interior = _shrink(piece)
    colour, base, colour_lead = _vote(
        pictures, torch.where(interior.any(-1).any(-1)[..., None, None], interior, piece), SHADE - 0.1
    )
    coverage = _coverage(pictures, ground, piece, base)
    fit = matching.fit_outline(coverage)
    brightness = (pictures * base[..., None, None]).sum(1, keepdim=True)
    brightness = brightness / base.square().sum(1)[:, None, None, None].clamp(min=1e-6)
    pattern = matching.fit_texture(brightness, coverage, fit)

    textured = torch.where(pattern.likeness >= PATTERN, pattern.texture + 1, NONE)
    least, divide, largest = SIZES
    measured = (fit.radius > least) & (fit.radius < largest)
    values = torch.stack(
        [
            torch.where(fit.likeness >= LIKENESS, fit.shape, NONE),
            colour,
            background,
            torch.where(measured, (fit.radius > divide).long(), NONE),
            torch.where(pattern.contrast < CONTRAST, 0, textured),
        ],
        1,
    )
    about_object = torch.tensor([a != "background" for a in ATTRIBUTES])
    values[~visible[:, None] & about_object] = NONE
    values[~even] = NONE
    from_plain = (pattern.contrast / CONTRAST - 1).abs()
    from_other = torch.where(pattern.contrast < CONTRAST, from_plain, pattern.lead)
    from_size = (fit.radius.clamp(min=1e-6) / divide).log().abs()
    margins = [fit.lead, colour_lead, ground_lead, from_size, torch.minimum(from_plain, from_other)]
    return values, coverage * visible[:, None, None, None], torch.stack(margins, 1)


def _chance(margin: Tensor, attribute: str) -> Tensor:
    """The chance that answers of these margins (n,) are right, by linear interpolation in ``CALIBRATION``."""
    knots, chances = (torch.tensor(row, dtype=torch.float32) for row in CALIBRATION[attribute])
    above = torch.searchsorted(knots, margin.contiguous()).clamp(1, len(knots) - 1)
    low, high = knots[above - 1], knots[above]
    return chances[above - 1].lerp(chances[above], ((margin - low) / (high - low)).clamp(0, 1))


def _background(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Each picture's background, a plane in each channel fitted robustly to the border; is it that even?"""
    n = len(pictures)
    axis = torch.linspace(-1, 1, SIDE, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1)
    border = torch.ones(SIDE, SIDE, dtype=torch.bool)
    border[3:-3, 3:-3] = False
    A, b = basis[border], pictures[:, :, border].transpose(1, 2)  # (P, 3), (n, P, 3)
    # from the median colour, so that what touches the border does not pull the plane
    error = (b - b.median(1, keepdim=True).values).square().sum(-1).sqrt()
    for _ in range(6):
        weight = 1 / (1 + (error / 0.06) ** 2)
        left = torch.einsum("np,pi,pj->nij", weight, A, A) + 1e-4 * torch.eye(3, dtype=torch.float32)
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
    count = torch.zeros(len(mask), mask[0].numel() + 1, dtype=torch.float32).scatter_add_(
        1, number, (number > 0).float()
    )
    return mask & (label == count.argmax(1)[:, None, None, None])


def _length(x: Tensor) -> Tensor:
    """Over the channels, kept: several times faster than ``norm`` across a dimension of three."""
    return x.square().sum(1, keepdim=True).sqrt()


def _grow(mask: Tensor, by: int) -> Tensor:
    return F.max_pool2d(mask.float(), 2 * by + 1, 1, by) > 0


def _shrink(mask: Tensor) -> Tensor:
    return ~_grow(~mask, 1)


def _vote(pictures: Tensor, mask: Tensor, dimmest: float) -> tuple[Tensor, Tensor, Tensor]:
    """The colour most pixels of each mask (n, 1, H, W) have, at brightness ``dimmest`` to 1.15 of full.

    Returns:
        Its index, or -1 without a clear majority or where it is nowhere near full brightness, ``(n,)``;
        its RGB at full brightness, as measured, ``(n, 3)``; and its lead over the next colour, as a share of
        the pixels, ``(n,)``.
    """
    pixels, inside = pictures.flatten(2).transpose(1, 2), mask.flatten(1)
    along, norm = pixels @ PALETTE.T, PALETTE.square().sum(1)
    level = (along / norm).clamp(dimmest, 1.15)  # (n, P, 8)
    distance = pixels.square().sum(-1, keepdim=True) + level * (level * norm - 2 * along)  # squared
    nearest, choice = distance.min(-1)
    valid = inside & (nearest < COLOUR_ERROR**2)
    votes = (F.one_hot(choice, len(PALETTE)) * valid[..., None]).sum(1)
    most, colour = votes.max(1)
    second = votes.scatter(1, colour[:, None], 0).amax(1)
    total = inside.sum(1).float()

    of_winner = valid & (choice == colour[:, None])
    shown = level.gather(2, colour[:, None, None].expand(-1, level.shape[1], 1))[..., 0]
    # full brightness is what a fifth of the winner's pixels exceed
    rank = (inside.shape[1] - 1 - 0.2 * of_winner.sum(1).float()).long().clamp(min=0)
    full = torch.where(of_winner, shown, -1.0).sort(1).values.gather(1, rank[:, None])[:, 0]
    bright = of_winner & (shown > 0.8 * full[:, None])
    base = (pixels * bright[..., None]).sum(1) / bright.sum(1, keepdim=True).clamp(min=1)
    agreed = (most > VOTES * total) & (total > 0) & (full > 0.7)
    return torch.where(agreed, colour, NONE), base, (most - second) / total.clamp(min=1)


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
