"""Where an edit of shape starts: the outline for the picture's object that brings it nearest to the text.

The object, what the border of the picture does not show, is taken out, the background closed, and the object
put back in another outline: the best of many, varied and selected for some generations. Each generation is
seen in a view of its own, so that what lasts is an outline and not the accident of a pixel grid.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..guidance.clip import Likeness
from .guess import LEAST, MOST, Guess, colour_regions
from .silhouettes import DIMENSIONS, draw_silhouettes, draw_simple_silhouettes, raggedness, signed_distance

FIRST = 384  # random outlines, and as many simple ones
PARENTS, CHILDREN, GENERATIONS = 12, 48, 24
SPREAD = (0.6, 0.06)  # of the variations, relative to the random outlines': first and last generation
VIEWS = 6  # in which the last parents are compared
SCALES, SHIFT = (0.75, 1.15), 0.125  # of a view, in picture widths
RAGGED = 0.05  # what raggedness costs, in cosines
FORWARD = 0.25  # largest share of the border that a region of the object covers
LEAST_AREA = 0.01  # of the picture, for the object
VISIBLE = 0.1  # change of a channel from which a pixel is wholly repainted


class Cutout:
    """A picture taken apart into an object and what is behind it.

    Attributes:
        present: Whether there is an object at all.
    """

    def __init__(self, picture: Tensor, centres: Tensor):
        """Take apart ``picture`` (1, 3, H, W) with regions of the colours ``centres`` (R, 3)."""
        regions = colour_regions(picture, centres)
        inside = _border_share(regions) <= FORWARD
        self.mask = regions[inside].sum(0)[None, None]
        self.present = bool(inside.any()) and float(self.mask.mean()) >= LEAST_AREA
        if not self.present:
            return
        # the object's own main colour fills what it did not cover
        largest = regions[inside].sum((1, 2)).argmax()
        ink = centres[inside][largest].view(1, 3, 1, 1)
        self.object = torch.where(self.mask > 0.9, picture, ink)
        shown = 1 - F.max_pool2d((self.mask > 0.1).float(), 5, 1, 2)
        self.ground = torch.where(shown > 0, picture, _close(picture, shown))
        self._frame()

    def _frame(self) -> None:
        """Coordinates of each pixel around the object's centre, in radii of the disc of its area."""
        H, W = self.mask.shape[-2:]
        y, x = torch.meshgrid(
            *(torch.arange(side, dtype=torch.float32) + 0.5 for side in (H, W)), indexing="ij"
        )
        x, y, area = x.to(self.mask), y.to(self.mask), self.mask.sum()
        self.radius = float((area / math.pi).sqrt())
        self.x = ((x - (x * self.mask).sum() / area) / self.radius)[None]
        self.y = ((y - (y * self.mask).sum() / area) / self.radius)[None]

    def reshaped(self, silhouettes: Tensor) -> Tensor:
        """The picture with its object in other outlines, ``(n, 3, H, W)``."""
        distance = signed_distance(silhouettes, self.x, self.y)
        mask = (0.5 - distance * self.radius).clamp(0, 1)[:, None]
        return self.ground + mask * (self.object - self.ground)


def reshape(
    source: Tensor,
    centres: Tensor,
    likeness: Callable[[Tensor, Tensor], Likeness],
    *,
    size: int,
    area: float,
    least: float,
    most: int,
    generator: torch.Generator,
) -> Guess | None:
    """Search for the outline of the object in ``source`` that brings it nearest to what the text asks.

    Args:
        source: ``(1, 3, H, W)`` in [0, 1].
        centres: Colours of the picture's regions, ``(R, 3)``.
        likeness: Of pictures ``(n, 3, size, size)``, given the source ``(1, 3, size, size)``.
        size: Side of the square at which outlines are tried.
        area: What it costs to repaint the whole picture, in cosines.
        least: Cosine along the change asked for that one of the first outlines must reach. If none does, the
            search is given up.
        most: Pictures that may be shown, the source among them each time: there are fewer first outlines and
            fewer generations where it does not suffice for all.
        generator: Source of random numbers, on the CPU.

    Returns:
        The best one, at the size of ``source``; None without an object, if the search was given up, or if
        ``most`` is too little for one.
    """
    small = F.interpolate(source, (size, size), mode="bilinear", antialias=True, align_corners=False)
    cutout = Cutout(small, centres)
    plan = _plan(most)
    if not cutout.present or plan is None:
        return None
    first, generations = plan

    def compare(silhouettes: Tensor, view: tuple[float, ...] | None) -> tuple[Tensor, Tensor]:
        """Scores, and cosines along the change asked for."""
        scores = []
        for part in silhouettes.split(CHILDREN):
            pictures = cutout.reshaped(part)
            along, target = likeness(_look(pictures, view), _look(small, view))
            repainted = _opacity(pictures, small).mean((1, 2, 3))
            scores.append((along, (along + target) / 2 - area * repainted))
        along, score = (torch.cat(part) for part in zip(*scores))
        return score - RAGGED * raggedness(silhouettes), along

    tried = torch.cat(
        [draw(first, generator=generator) for draw in (draw_silhouettes, draw_simple_silhouettes)]
    ).to(source.device)
    total, along = compare(tried, None)
    if float(along.max()) < least:
        return None
    tried = _evolve(
        tried, total, lambda some: compare(some, _view(generator))[0], generations, generator=generator
    )
    total = sum(compare(tried, _view(generator))[0] for _ in range(VIEWS))
    best = tried[total.argmax()][None]
    along = float(compare(best, None)[1])
    repainted = float(_opacity(cutout.reshaped(best), small).mean())

    picture = Cutout(source, centres).reshaped(best)
    return Guess(picture.clamp(LEAST, MOST), _opacity(picture, source), along, along - area * repainted)


def _evolve(
    tried: Tensor,
    total: Tensor,
    score: Callable[[Tensor], Tensor],
    generations: int,
    *,
    generator: torch.Generator,
) -> Tensor:
    """The best outlines after some generations of children of the best.

    Args:
        tried: Outlines to begin with, ``(n, DIMENSIONS)``; the first half has the spread of all.
        total: Their scores.
        score: Outlines to scores in another view; those of an outline over several views are averaged.
        generations: How many; at least 2.
        generator: Source of random numbers, on the CPU.
    """
    typical, views = tried[: len(tried) // 2].std(0), torch.ones_like(total)
    for generation in range(generations):
        best = (total / views).topk(PARENTS).indices
        spread = SPREAD[0] * (SPREAD[1] / SPREAD[0]) ** (generation / (generations - 1))
        chosen = torch.randint(PARENTS, (CHILDREN,), generator=generator).to(tried.device)
        noise = torch.randn((CHILDREN, DIMENSIONS), generator=generator, dtype=torch.float32).to(tried)
        tried = torch.cat([tried[best], tried[best][chosen] + spread * typical * noise])
        total, views = (torch.cat([x[best], x.new_zeros(CHILDREN)]) for x in (total, views))
        total, views = total + score(tried), views + 1
    return tried[(total / views).topk(PARENTS).indices]


def _plan(most: int) -> tuple[int, int] | None:
    """First outlines of either kind, and generations, for which ``most`` pictures suffice."""
    for generations in range(GENERATIONS, 1, -1):
        first = max(PARENTS, FIRST * generations // GENERATIONS)
        shown = [2 * first, *[PARENTS + CHILDREN] * generations, *[PARENTS] * VIEWS, 1]
        if sum(count + math.ceil(count / CHILDREN) for count in shown) <= most:
            return first, generations
    return None


def _opacity(pictures: Tensor, source: Tensor) -> Tensor:
    """How much of each pixel is repainted, ``(n, 1, H, W)``."""
    return ((pictures - source).abs().amax(1, keepdim=True) / VISIBLE).clamp(max=1)


def _view(generator: torch.Generator) -> tuple[float, ...]:
    """Scale and shift of a view."""
    scale, across, down = torch.rand(3, generator=generator, dtype=torch.float32).tolist()
    low, high = SCALES
    return low + (high - low) * scale, SHIFT * (2 * across - 1), SHIFT * (2 * down - 1)


def _look(pictures: Tensor, view: tuple[float, ...] | None) -> Tensor:
    """``pictures`` in one view; as they are for None."""
    if view is None:
        return pictures
    scale, across, down = view
    affine = pictures.new_tensor([[scale, 0, 2 * across], [0, scale, 2 * down]])
    grid = F.affine_grid(affine.expand(len(pictures), 2, 3), pictures.shape, align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def _border_share(regions: Tensor) -> Tensor:
    """The share of the picture's border that each of the regions (R, H, W) covers, ``(R,)``."""
    sides = regions[:, :2], regions[:, -2:], regions[:, :, :2], regions[:, :, -2:]
    return torch.cat([side.flatten(1) for side in sides], 1).mean(1)


def _close(picture: Tensor, shown: Tensor) -> Tensor:
    """Continue ``picture`` (1, 3, H, W) smoothly where ``shown`` (1, 1, H, W) is 0, from coarse to fine."""
    H, W = picture.shape[-2:]
    weight = F.avg_pool2d(shown, 2, ceil_mode=True)
    coarse = F.avg_pool2d(picture * shown, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    if min(H, W) > 2 and not bool((weight > 0).all()):
        coarse = torch.where(weight > 0, coarse, _close(coarse, (weight > 0).float()))
    return F.interpolate(coarse, (H, W), mode="bilinear", align_corners=False)
