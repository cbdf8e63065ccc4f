"""Points of two pictures matched by unbalanced transport, coarse to fine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..._checks import require_choice, require_positive, settle
from ...models.clip import ClipEncoder
from ...models.dino import DinoKeys
from ...ops.matching import COSTS, joined, one_way, other_way
from ...ops.transport import sinkhorn
from .features import describe
from .fixed import Fixed
from .grids import Size, plane, resized, resized_map
from .motions import affine_motions
from .smoothing import smoothed

MOST_POINTS = 128  # a side: 16,384 of a picture
LEAST_POINTS = 8
TOLERANCE = 1e-2  # of marginals: maps are averages, and smoothed after
MISS = 2.0  # cells by which a round trip may miss
BORDER = 4.0  # cells from a border within which what points look like is cut off
CUT_OFF = 0.1
CROSSING = 50.0  # times the reach: what it costs a point to leave the mask that the user fixed
WIDE = 3.0  # times the smoothness: the window that is smoothed over first


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """How points are matched. Ours, chosen on warped photographs and rendered clips.

    Attributes:
        points: How many a side of a square picture has at the last level, 8 to 128; pictures of other
            proportions have as many in all.
        first: The same at the first level; every further one doubles it.
        cost: Between features, ``"cosine"`` or ``"sqeuclidean"``.
        eps: Regularisation, in the unit of the cost.
        reach: What it may cost a point to find no partner, likewise.
        position_weight: What the squared distance from where a point is expected adds to the cost, in half
            picture widths: in the first round, where it is expected at the same place of the other picture.
        tightening: By how many times that grows from round to round.
        rounds: Of transport and smoothing at the first level; further levels have one.
        iterations: The most of a transport, each of two half-steps.
        smoothness: Width of the window over which maps are smoothed after every round, in points.
        refine: Whether optical flow refines the map where it makes the pictures more alike.
    """

    points: int = 64
    first: int = 32
    cost: str = "cosine"
    eps: float = 0.04
    reach: float = 0.15
    position_weight: float = 0.2
    tightening: float = 6.0
    rounds: int = 3
    iterations: int = 20
    smoothness: float = 1.5
    refine: bool = True

    def __post_init__(self) -> None:
        settle(self)
        for name in ("points", "first"):
            if not LEAST_POINTS <= getattr(self, name) <= MOST_POINTS:
                raise ValueError(
                    f"{name} must lie between {LEAST_POINTS} and {MOST_POINTS}, got {getattr(self, name)}"
                )
        require_choice("cost", self.cost, COSTS)
        for name in ("eps", "reach", "position_weight", "tightening", "rounds", "iterations", "smoothness"):
            require_positive(name, getattr(self, name))

    def levels(self) -> list[int]:
        """Points a side, level by level."""
        sides = [min(self.first, self.points)]
        while sides[-1] < self.points:
            sides.append(min(2 * sides[-1], self.points))
        return sides


class GridMatch(NamedTuple):
    """Maps between the points of two pictures; positions run from -1 to 1 across a picture.

    Attributes:
        to_b: ``(h, w, 2)``.
        to_a: ``(hb, wb, 2)``.
        confidence_a: ``(h, w)`` in [0, 1].
        confidence_b: ``(hb, wb)``.
    """

    to_b: Tensor
    to_a: Tensor
    confidence_a: Tensor
    confidence_b: Tensor


class _Way(NamedTuple):
    """What a plan says of the points of one picture: see :class:`geokernels.ops.matching.OneWay`."""

    map: Tensor
    mass: Tensor
    squared: Tensor


def match_grids(
    a: Tensor,
    b: Tensor,
    config: MatchingConfig,
    *,
    encoder: ClipEncoder | DinoKeys | None,
    fixed: Fixed | None,
    masks: tuple[Tensor, Tensor] | None,
    progress: Callable[[str, int, int], None],
) -> GridMatch:
    """Match the points of two pictures; see :func:`geokernels.pipelines.blend.maps.find_maps`."""
    levels, weight = config.levels(), config.position_weight
    total, done = config.rounds + len(levels) - 1, 0
    maps, confidence, potential = None, None, None
    guides = (a, b) if masks is None else tuple(p + mask for p, mask in zip((a, b), masks))
    for points in levels:
        sizes = _grid_size(a, points), _grid_size(b, points)
        rows = describe(a, b, *sizes, encoder)
        within = None if masks is None else [resized(mask[None], size) for mask, size in zip(masks, sizes)]
        if maps is None:
            maps, rounds = [plane(size) for size in sizes], config.rounds
            if fixed is not None:
                maps = [fixed.draw(maps[0], sizes[0]), fixed.swapped().draw(maps[1], sizes[1])]
        else:
            maps, rounds = [resized_map(to, size) for to, size in zip(maps, sizes)], 1
            potential = resized(potential[None], sizes[1])[0]
        for _ in range(rounds):
            ways, potential = _transported(rows, maps, config, weight, potential, within)
            maps, confidence = _followed(ways, guides, maps, config, done < config.rounds - 1, fixed)
            weight, done = weight * config.tightening, done + 1
            progress("matching", done, total)
    return GridMatch(*maps, *confidence)


def _grid_size(picture: Tensor, points: int) -> Size:
    """As many points as ``points`` a side of a square, in square cells."""
    H, W = picture.shape[1:]
    down, across = (max(4, round(points * (one / other) ** 0.5)) for one, other in ((H, W), (W, H)))
    return min(down, H), min(across, W)


def _transported(
    rows: tuple[Tensor, Tensor],
    expected: list[Tensor],
    config: MatchingConfig,
    weight: float,
    potential: Tensor | None,
    within: list[Tensor] | None,
) -> tuple[list[_Way], Tensor]:
    """What a plan says of the points of either picture, and the second picture's potential."""
    sizes = [to.shape[:2] for to in expected]
    places = [plane(size).flatten(0, 1) for size in sizes]
    to_b, to_a = (to.flatten(0, 1) for to in expected)
    # a pair is as far apart as it is in either picture: where one is expected and where the other is
    pairs = torch.cat([to_b, places[0]], 1), torch.cat([places[1], to_a], 1)
    if within is not None:
        # a coordinate more, by which the inside of one mask is far from the outside of the other
        far = (CROSSING * config.reach / (weight / 2)) ** 0.5
        pairs = tuple(torch.cat([at, far * part.flatten()[:, None]], 1) for at, part in zip(pairs, within))
    clouds = joined(rows[0], pairs[0], rows[1], pairs[1], cost=config.cost, position_weight=weight / 2)
    init = None if potential is None else (torch.zeros_like(to_b[:, 0]), potential.flatten())
    transport = sinkhorn(
        *clouds, eps=config.eps, reach=config.reach, max_iter=config.iterations, tol=TOLERANCE, init=init
    )
    there = one_way(transport.apply, transport.apply_t, *places)
    ways = there, other_way(there, transport.apply_t, places[1])
    shaped = [_Way(*(part.unflatten(0, size) for part in way[:3])) for way, size in zip(ways, sizes)]
    return shaped, transport.g.unflatten(0, sizes[1])


def _followed(ways, pictures, expected, config: MatchingConfig, whole: bool, fixed: Fixed | None):
    """Smooth maps both ways, and how far they are to be believed."""
    maps, confidences = [], []
    for picture, way, before, pairs in zip(pictures, ways, expected, (fixed, fixed and fixed.swapped())):
        h, w = way.mass.shape
        cells = torch.tensor([w / 2, h / 2], dtype=torch.float32)
        # the mass of a point whose one partner is its like: entropy costs that much too
        alone = (h * w) ** (-config.eps / (2 * config.reach + config.eps))
        # the miss is measured where the trip began: in cells of this picture
        confidence = (way.mass / alone).clamp(max=1)
        confidence = confidence * torch.exp(-way.squared * (cells.mean() / MISS) ** 2 / 2)
        colours = resized(picture, (h, w))
        prior = affine_motions(way.map, confidence, colours) if whole else before
        # what is seen at a border is cut off, and what is near it drawn inwards: neighbours speak for it
        clear = confidence * _clear(plane((h, w)), cells) * _clear(way.map, cells)
        to = prior * cells
        for width in (WIDE * config.smoothness, config.smoothness):
            to = smoothed(way.map * cells, to, clear, colours, width)
        to = to / cells
        maps.append(to if pairs is None else pairs.draw(to, picture.shape[1:]))
        confidences.append(confidence)
    return maps, confidences


def _clear(where: Tensor, cells: Tensor) -> Tensor:
    """How far positions are from the border, ``(h, w)``: little at it, 1 where all about them is seen."""
    inside = ((1 - where.abs()) * cells).amin(2)
    return (inside / BORDER).clamp(CUT_OFF, 1) ** 2
