"""The motion between two pictures: one for both, so that what belongs together moves as one thing.

Two maps, from either picture to the other, are never exactly inverse, and pictures that are each moved by
their own show everything twice. So both are gathered into one motion ``v``, on the ground on which they meet
halfway: the place ``p`` there is ``p - v(p)`` in the first picture and ``p + v(p)`` in the second, and
``p + (2t - 1) v(p)`` at the time ``t``. Each frame looks up, for each of its pixels, the place that comes to
lie there, and reads both pictures at that place. Reading leaves no holes, as pushing pixels forwards would,
and a motion that folds nothing over has one such place for every pixel.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .maps import Maps
from .places import Places, pixels, sample

STAGES, STEPS = 4, 2  # of the search for the place of each pixel, and so many more at its end
LAST = 2
ROUNDS = 200  # of smoothing what is folded
RIDGE = 1e-3  # of the system that fixes pairs
AFFINE_RIDGE = 1e-3  # of that of the affine motion: mean confidence below which there is hardly one
MOST_SLOPE = 0.4  # of the affine motion: it shrinks one picture by so much, and stretches the other
ANCHORS = 16  # on each side of a picture, that hold its edge
UNSURE = 0.1  # mean confidence at which edge lies on edge as much as where the match says
SHRINK = 0.8  # of a motion that no smoothing unfolds
SLACK = 1e-3  # so much more than asked is left of every area, for rounding


class Motion(NamedTuple):
    """How places move between two pictures.

    Attributes:
        shift: Half of the way from the first picture to the second, ``(2, h, w)`` as x and y, on a grid of
            halfway places; in cells of the grid.
        cell: Pixels of a frame on the side of a cell.
        folded: Share of the grid that would have been folded over, and was smoothed until it was not.
    """

    shift: Tensor
    cell: int
    folded: float

    def origins(self, t: float, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Where the frame at ``t`` has its pixels from, in either picture: ``(H, W, 2)``, in the frame's own.

        Args:
            t: Time, in [0, 1].
            size: Of the frame, (H, W).
        """
        return origins_of(self.offsets(t)[:, : size[0], : size[1]])

    def offsets(self, t: float) -> Tensor:
        """How far from a pixel of the frame at ``t`` it is to where it is from, in either picture.

        ``(4, H, W)`` as x and y in the first picture, and in the second; not below the size of the frame.
        """
        here = pixels(self.shift)
        place = self._places(2 * t - 1)
        shift = sample(self.shift, place).permute(1, 2, 0)
        offsets = torch.cat([place - shift - here, place + shift - here], -1).permute(2, 0, 1)
        fine = F.interpolate(
            offsets[None] * self.cell, scale_factor=self.cell, mode="bilinear", align_corners=False
        )
        return fine[0]

    def _places(self, s: float) -> Tensor:
        """The places ``p`` with ``p + s v(p)`` at the points of the grid, ``(h, w, 2)``.

        Newton's method, along a way on which ``s`` grows from 0, where the place is the point itself.
        """
        here = pixels(self.shift)
        slope = torch.cat([self.shift, *_slopes(self.shift)])
        place = here
        stages = [s * (k + 1) / STAGES for k in range(STAGES) for _ in range(STEPS)]
        for stage in [*stages, *[s] * LAST]:
            vx, vy, xx, yx, xy, yy = sample(slope, place)
            miss_x, miss_y = (place + stage * torch.stack([vx, vy], -1) - here).unbind(-1)
            xx, yx, xy, yy = 1 + stage * xx, stage * yx, stage * xy, 1 + stage * yy
            area = (xx * yy - xy * yx).clamp(min=SLACK)
            step = torch.stack([yy * miss_x - xy * miss_y, xx * miss_y - yx * miss_x], -1)
            place = place - step / area[..., None]
        return place


def origins_of(offsets: Tensor, top: int = 0) -> tuple[Tensor, Tensor]:
    """Places in either picture, ``(h, w, 2)``, from some rows ``(4, h, w)`` of :meth:`Motion.offsets`.

    Args:
        offsets: The rows.
        top: Number of the first of them.
    """
    first, second = offsets.permute(1, 2, 0).split(2, -1)
    at = pixels(offsets[:2])
    at[..., 1] += top
    return at + first, at + second


def find_motion(
    maps: Maps,
    places: Places,
    *,
    fixed: Tensor | None = None,
    grid: int,
    doubt: float,
    least_area: float,
    fixed_reach: float,
) -> Motion:
    """The motion that both maps mean, smooth where they are in doubt, and without a fold.

    Args:
        maps: From either picture to the other.
        places: Where the pictures lie in the frames.
        fixed: Pairs that are held, ``(F, 4)`` as x and y in the first picture and in the second.
        grid: Points on its longest side.
        doubt: Confidence at which a place follows its surroundings as much as its own match.
        least_area: What at least is left of every area at any time, as a share.
        fixed_reach: How far a fixed pair reaches, as a share of the longest side.
    """
    cell = max(1, math.ceil(max(places.size) / grid))
    shape = tuple(math.ceil(side / cell) for side in places.size)
    totals = _gathered(maps, places, cell, shape)
    affine = _affine(totals)
    shift = affine + _smoothed(torch.cat([totals[:1], totals[1:] - totals[:1] * affine]), doubt)
    reach = fixed_reach * max(shape)
    sure = (maps.confidence_a.mean() + maps.confidence_b.mean()).item() / 2
    shift = _edged(shift, sure, places, cell, reach)
    turned = (areas(shift) <= 0).float()
    folded = turned.mean().item() if turned.numel() else 0.0  # a frame may be one cell high
    shift = _unfolded(shift, least_area)
    if fixed is not None and len(fixed):
        shift = _unfolded(_held(shift, fixed, places, cell, reach), least_area)
    return Motion(shift, cell, folded)


def missed(motion: Motion, fixed: Tensor, places: Places) -> float:
    """By how many pixels at most the motion misses pairs that are to be held."""
    at, half = _meeting(fixed, places, motion.cell)
    return 2 * motion.cell * (_at(motion.shift, at) - half).norm(dim=-1).max().item()


def areas(shift: Tensor) -> Tensor:
    """The least area that any corner of each cell has on the way, as a share of what it has halfway.

    On a cell whose corners move by ``v``, the area factor ``det(I + s J)`` is least at a corner, and along
    ``s`` in [-1, 1] at an end or where ``1 + s tr J + s^2 det J`` turns. Not above 0: the cell is folded.
    """
    across, down = shift.diff(dim=2), shift.diff(dim=1)  # (2, h, w - 1), (2, h - 1, w)
    least = []
    for row in (across[:, :-1], across[:, 1:]):
        for column in (down[:, :, :-1], down[:, :, 1:]):
            trace = row[0] + column[1]
            det = row[0] * column[1] - row[1] * column[0]
            ends = 1 - trace.abs() + det
            turns = (det > 0) & (trace.abs() < 2 * det)
            least.append(torch.where(turns, 1 - trace.square() / (4 * torch.where(turns, det, 1)), ends))
    return torch.stack(least).amin(0)


def _gathered(maps: Maps, places: Places, cell: int, shape: tuple[int, int]) -> Tensor:
    """Confidence, and confidence times half of the way, ``(3, h, w)``, at the places where both meet."""
    ways = (
        (maps.to_b, maps.confidence_a, places.first, places.second, 1),
        (maps.to_a, maps.confidence_b, places.second, places.first, -1),
    )
    totals = maps.to_b.new_zeros(3, math.prod(shape))
    for to, sure, own, other, sign in ways:
        middle = slice(cell // 2, None, cell)
        here = pixels(sure[None])[middle, middle] + _offset(own, to)
        there = to[middle, middle] + _offset(other, to)
        halfway, half = ((here + there) / 2 - (cell - 1) / 2) / cell, sign * (there - here) / (2 * cell)
        _splat(totals, shape, halfway.reshape(-1, 2), half.reshape(-1, 2), sure[middle, middle].reshape(-1))
    return totals.view(3, *shape)


def _offset(offset: tuple[int, int], like: Tensor) -> Tensor:
    """An offset as a tensor."""
    return torch.tensor(offset, dtype=like.dtype, device=like.device)


def _splat(totals: Tensor, shape: tuple[int, int], at: Tensor, half: Tensor, sure: Tensor) -> None:
    """Add each vector to the four points of the grid around it, by nearness and confidence."""
    h, w = shape
    corner = at.floor()
    part = at - corner
    values = torch.cat([torch.ones_like(half[:, :1]), half], 1).mT
    for right in (0, 1):
        for low in (0, 1):
            x, y = (corner[:, 0] + right).long(), (corner[:, 1] + low).long()
            near = (part[:, 0] if right else 1 - part[:, 0]) * (part[:, 1] if low else 1 - part[:, 1])
            inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
            index = torch.where(inside, y * w + x, 0)
            totals.index_add_(1, index, values * torch.where(inside, near * sure, 0))


def _affine(totals: Tensor) -> Tensor:
    """The one affine motion that most of what was gathered follows, ``(2, h, w)``.

    Where a picture shows what the other does not, this is how its surroundings go on; none where it would
    turn or stretch the picture more than pictures of one thing do.
    """
    h, w = totals.shape[1:]
    side = max(h, w) / 2
    here = pixels(totals[:1])
    centred = (here - here.new_tensor([(w - 1) / 2, (h - 1) / 2])) / side
    basis = torch.cat([torch.ones_like(centred[..., :1]), centred], -1).reshape(-1, 3).double()
    weights, sums = totals[0].reshape(-1, 1).double(), totals[1:].reshape(2, -1).mT.double()
    weights, sums = weights.square(), weights * sums  # many that guess do not outvote a few that know
    ridge = AFFINE_RIDGE * len(basis) * torch.eye(3, dtype=basis.dtype, device=basis.device)
    fit = torch.linalg.solve(basis.mT @ (weights * basis) + ridge, basis.mT @ sums)
    if torch.linalg.matrix_norm(fit[1:], 2) > MOST_SLOPE * side:
        return torch.zeros_like(totals[1:])
    return (basis @ fit).mT.reshape(2, h, w).to(totals.dtype)


def _smoothed(totals: Tensor, doubt: float) -> Tensor:
    """Means of what was gathered, coarse to fine: each scale as far as it is sure, else the coarser one."""
    h, w = totals.shape[1:]
    levels = math.ceil(math.log2(max(h, w)))
    side = 2**levels
    scales = [F.pad(totals, (0, side - w, 0, side - h))]
    while len(scales) <= levels:
        scales.append(F.avg_pool2d(scales[-1], 2))
    shift = torch.zeros_like(scales[-1][1:])
    for scale in reversed(scales):
        if scale.shape != scales[-1].shape:
            shift = F.interpolate(shift[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
        near = _blurred(scale)
        mean = near[1:] / near[:1].clamp(min=torch.finfo(near.dtype).tiny)
        sure = near[:1].square() / (near[:1].square() + (2 * doubt) ** 2)  # both pictures speak of a place
        shift = torch.lerp(shift, mean, sure)
    return shift[:, :h, :w].contiguous()


def _edged(shift: Tensor, sure: float, places: Places, cell: int, reach: float) -> Tensor:
    """The motion, moved so that edge lies on edge, unless matches that are ``sure`` say otherwise."""
    at, half = _meeting(_edge(places, shift), places, cell)
    doubted = 1 / (1 + (sure / UNSURE) ** 4)
    return _moved(shift, at, doubted * (half - _at(shift, at)), reach)


def _held(shift: Tensor, fixed: Tensor, places: Places, cell: int, reach: float) -> Tensor:
    """The motion, moved so that fixed pairs are met, and so that the edge stays as it is."""
    at, half = _meeting(fixed.to(shift), places, cell)
    edge, _ = _meeting(_edge(places, shift), places, cell)
    by = torch.cat([half - _at(shift, at), torch.zeros_like(edge)])
    return _moved(shift, torch.cat([at, edge]), by, reach)


def _moved(shift: Tensor, at: Tensor, by: Tensor, reach: float) -> Tensor:
    """The motion, moved at points ``at`` (F, 2): by a sum of Matern's smooth functions around them."""

    def near(points: Tensor) -> Tensor:
        far = torch.cdist(points.double(), at.double()) / reach
        return (1 + far) * torch.exp(-far)

    pull = torch.linalg.solve(
        near(at) + RIDGE * torch.eye(len(at), dtype=torch.float64, device=at.device), by.double()
    )
    moved = near(pixels(shift).reshape(-1, 2)) @ pull
    return shift + moved.mT.reshape(shift.shape).to(shift.dtype)


def _at(shift: Tensor, points: Tensor) -> Tensor:
    """The motion at points ``(F, 2)``, in the same shape."""
    return sample(shift, points[None])[:, 0].mT


def _edge(places: Places, like: Tensor) -> Tensor:
    """Pairs of points on the edges of both pictures, ``(4 ANCHORS, 4)``, like those that a user fixes."""
    along = torch.linspace(0, 1, ANCHORS + 1, dtype=like.dtype, device=like.device)
    low, high = torch.zeros_like(along[1:]), torch.ones_like(along[1:])
    ends = along[:-1], along[1:]  # each corner once
    around = torch.stack([torch.cat([*ends, low, high]), torch.cat([low, high, ends[1], ends[0]])], -1)
    return torch.cat([around * _offset((w - 1, h - 1), like) for h, w in places.sizes], -1)


def _meeting(fixed: Tensor, places: Places, cell: int) -> tuple[Tensor, Tensor]:
    """Of fixed pairs: where they meet, and half of their way, ``(F, 2)`` each, in cells of the grid."""
    first = fixed[:, :2] + _offset(places.first, fixed)
    second = fixed[:, 2:] + _offset(places.second, fixed)
    return ((first + second) / 2 - (cell - 1) / 2) / cell, (second - first) / (2 * cell)


def _unfolded(shift: Tensor, least: float) -> Tensor:
    """The motion, smoothed where areas would shrink below ``least``, until none does."""
    if min(shift.shape[1:]) < 2:
        return shift
    for turn in range(ROUNDS):
        narrow = areas(shift) < least + SLACK
        if not narrow.any():
            return shift
        # the cells' corners and their surroundings, which grow the longer it takes
        reach = 2 + turn // 8
        near = F.pad(narrow.to(shift.dtype)[None], (1, 1, 1, 1))
        near = F.max_pool2d(F.max_pool2d(near, 2, stride=1), 2 * reach + 1, stride=1, padding=reach)
        shift = torch.lerp(shift, _blurred(shift, mode="replicate"), _blurred(near, mode="replicate"))
    while (areas(shift) < least).any():
        shift = shift * SHRINK
    return shift


def _slopes(shift: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of both parts of a shift along x, and along y, ``(2, h, w)`` each."""
    padded = F.pad(shift[None], (1, 1, 1, 1), mode="replicate")[0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return across, down


def _blurred(x: Tensor, *, mode: str = "constant") -> Tensor:
    """``(C, h, w)`` smoothed by 1, 4, 6, 4, 1 both ways; beyond the edge there is nothing, or the edge."""
    weights = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=x.dtype, device=x.device) / 16
    padded = F.pad(x[:, None], (2, 2, 2, 2), mode=mode)
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, 5)), weights.view(1, 1, 5, 1))[:, 0]
