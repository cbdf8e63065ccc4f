"""Where an edit starts: the recolouring of a part of the picture that goes furthest towards the text.

Gradients from CLIP lead an edit that starts from nothing to the nearest optimum, often a wrong colour halfway
between two right ones. A recolouring has few degrees of freedom, so the best one is found by trying them all:
every union of the picture's colour regions, in every ink of a coarse grid and then of finer ones around the
best. The shading of the source is kept: a dark stripe of a red object is a dark stripe of the blue one.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)
REGIONS = 3  # background, object, and the object's darker pattern
SOFTNESS = 0.08  # standard deviation of a region's colour, in [0, 1]; softens the borders of regions
INKS = (0.1, 0.5, 0.9)  # of each channel, in the first round
REFINEMENTS = (0.2, 0.1)  # distance between the inks of later rounds
LEAST, MOST = 0.02, 0.98  # of a colour channel, so that it has a finite logit


class Recolouring(NamedTuple):
    """A colour for every pixel, and how much of it to put on."""

    colour: Tensor  # (1, 3, H, W) in [0.02, 0.98]
    opacity: Tensor  # (1, 1, H, W) in [0, 1]
    cosine: float  # between the change CLIP sees and the one the text asks for


def recolour(
    source: Tensor, cosines: Callable[[Tensor, Tensor], Tensor], *, size: int, area: float
) -> Recolouring:
    """Search for the recolouring of ``source`` that changes it most nearly as the text asks.

    Args:
        source: ``(1, 3, H, W)`` in [0, 1].
        cosines: From pictures ``(n, 3, size, size)`` and the source ``(1, 3, size, size)`` to ``(n,)``.
        size: Side of the square at which recolourings are tried.
        area: What it costs to recolour the whole picture, in cosines.

    Returns:
        The best one, at the size of ``source``.
    """
    small = F.interpolate(source, (size, size), mode="bilinear", antialias=True, align_corners=False)
    centres = _colour_centres(small[0])
    grid = torch.tensor(list(itertools.product(INKS, repeat=3)), device=source.device)

    best = (-torch.inf, None, grid[0])  # score, regions, ink

    def attempt(regions: tuple[int, ...], inks: Tensor) -> None:
        nonlocal best
        colour, opacity = _paint(small, centres, regions, inks)
        scores = cosines(small * (1 - opacity) + colour * opacity, small) - area * opacity.mean()
        top = int(scores.argmax())
        if float(scores[top]) > best[0]:
            best = (float(scores[top]), regions, inks[top])

    for regions in _unions(len(centres)):
        attempt(regions, grid)
    for step in REFINEMENTS:
        around = best[2] + (grid - grid.mean()) * (step / (INKS[1] - INKS[0]))
        attempt(best[1], around.clamp(LEAST, MOST))

    score, regions, ink = best
    colour, opacity = _paint(source, centres, regions, ink[None])
    shown = _paint(small, centres, regions, ink[None])[1].mean()
    return Recolouring(colour, opacity, score + area * float(shown))


def _unions(count: int) -> Iterator[tuple[int, ...]]:
    """Every choice of some of the regions, but not of all."""
    for many in range(1, count):
        yield from itertools.combinations(range(count), many)


def _colour_centres(picture: Tensor) -> Tensor:
    """Mean colours ``(REGIONS, 3)`` of the regions: k-means, started from the most distant pixels."""
    pixels = picture.flatten(1).T
    centres = pixels[(pixels - pixels.mean(0)).square().sum(1).argmax()][None]
    while len(centres) < REGIONS:
        farthest = torch.cdist(pixels, centres).amin(1).argmax()
        centres = torch.cat([centres, pixels[farthest][None]])
    for _ in range(10):
        near = F.one_hot(torch.cdist(pixels, centres).argmin(1), REGIONS).to(pixels.dtype)
        count = near.sum(0)[:, None]
        centres = torch.where(count > 0, near.T @ pixels / count.clamp(min=1), centres)
    return centres


def _paint(picture: Tensor, centres: Tensor, regions: tuple[int, ...], inks: Tensor) -> tuple[Tensor, Tensor]:
    """Colours ``(n, 3, H, W)`` of the regions in each ink, shaded as the picture is, and their opacity."""
    distance = (picture - centres[:, :, None, None]).square().sum(1)
    opacity = (-distance / (2 * SOFTNESS**2)).softmax(0)[list(regions)].sum(0)[None, None]
    light = (picture * picture.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
    usual = (light * opacity).sum() / opacity.sum().clamp(min=1e-6)
    shade = light / usual.clamp(min=0.05)
    return (inks[:, :, None, None] * shade).clamp(LEAST, MOST), opacity
