"""Where an edit of colour starts: the recolouring of part of the picture that goes furthest towards the text.

A recolouring has few degrees of freedom, so the best one is found by trying them all: every union of the
picture's colour regions, in every ink of a coarse grid and then of finer ones around the best. The shading of
the source is kept: a dark stripe of a red object is a dark stripe of the blue one.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..guidance.clip import Likeness
from .guess import LEAST, MOST, Guess, colour_regions

LUMINANCE = (0.299, 0.587, 0.114)
INKS = (0.1, 0.5, 0.9)  # of each channel, in the first round
REFINEMENTS = (0.2, 0.1)  # distance between the inks of later rounds


def recolour(
    source: Tensor,
    centres: Tensor,
    likeness: Callable[[Tensor, Tensor], Likeness],
    *,
    size: int,
    area: float,
    most: int,
    whole: bool = False,
) -> Guess | None:
    """Search for the recolouring of ``source`` that changes it most nearly as the text asks.

    Args:
        source: ``(1, 3, H, W)`` in [0, 1].
        centres: Colours of the picture's regions, ``(R, 3)``.
        likeness: Of pictures ``(n, 3, size, size)``, given the source ``(1, 3, size, size)``.
        size: Side of the square at which recolourings are tried.
        area: What it costs to recolour the whole picture, in cosines.
        most: Pictures that may be shown, the source among them each time: unions are left out from the
            last on, and the refinements follow the best of those that are tried.
        whole: Whether all regions together are tried and nothing else, as for a picture of one layer.

    Returns:
        The best one, at the size of ``source``; None if ``most`` is too little for one union.
    """
    small = F.interpolate(source, (size, size), mode="bilinear", antialias=True, align_corners=False)
    grid = torch.tensor(list(itertools.product(INKS, repeat=3)), device=source.device, dtype=torch.float32)

    best = (-torch.inf, None, grid[0])  # score, regions, ink

    def attempt(regions: tuple[int, ...], inks: Tensor) -> None:
        nonlocal best
        colour, opacity = _paint(small, centres, regions, inks)
        pictures = small * (1 - opacity) + colour * opacity
        scores = likeness(pictures, small).along - area * opacity.mean()
        top = int(scores.argmax())
        if float(scores[top]) > best[0]:
            best = (float(scores[top]), regions, inks[top])

    rounds = most // (len(grid) + 1) - len(REFINEMENTS)
    if rounds < 1:
        return None
    unions = [tuple(range(len(centres)))] if whole else _unions(len(centres))
    for regions in itertools.islice(unions, rounds):
        attempt(regions, grid)
    for step in REFINEMENTS:
        around = best[2] + (grid - grid.mean()) * (step / (INKS[1] - INKS[0]))
        attempt(best[1], around.clamp(LEAST, MOST))

    score, regions, ink = best
    colour, opacity = _paint(source, centres, regions, ink[None])
    shown = _paint(small, centres, regions, ink[None])[1].mean()
    return Guess(colour, opacity, score + area * float(shown), score)


def _unions(count: int) -> Iterator[tuple[int, ...]]:
    """Every choice of some of the regions, but not of all."""
    for many in range(1, count):
        yield from itertools.combinations(range(count), many)


def _paint(picture: Tensor, centres: Tensor, regions: tuple[int, ...], inks: Tensor) -> tuple[Tensor, Tensor]:
    """Colours ``(n, 3, H, W)`` of the regions in each ink, shaded as the picture is, and their opacity."""
    opacity = colour_regions(picture, centres)[list(regions)].sum(0)[None, None]
    light = (picture * picture.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
    usual = (light * opacity).sum() / opacity.sum().clamp(min=1e-6)
    shade = light / usual.clamp(min=0.05)
    return (inks[:, :, None, None] * shade).clamp(LEAST, MOST), opacity
