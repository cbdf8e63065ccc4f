"""Pairs of a photograph and what a known warp makes of it.

The warp says for every pixel of the warped picture, the first of a pair, where it lies in the second: that is
the truth, exactly. Pixels whose partner is outside of the second picture, or under a piece that covers
either, have none.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "motorcycle")
KINDS = ("small", "homography", "spline", "shift", "light", "occlusion")
SIDE = 256
SHORT = 352  # pixels of the photograph's shorter side, from whose middle the second picture is cut
SHIFT = (1 / 5, 1 / 3)  # of the picture
PIECES, PIECE = 3, 0.22  # that cover, and their sides, in picture sides


class Pair(NamedTuple):
    """Two pictures, and where the pixels of the first lie in the second.

    Attributes:
        first: ``(3, H, W)`` in [0, 1].
        second: Likewise.
        truth: ``(H, W, 2)``, (x, y) in pixels of the second.
        partnered: Which pixels of the first are seen in the second, ``(H, W)`` bool.
    """

    first: Tensor
    second: Tensor
    truth: Tensor
    partnered: Tensor


def warped_pair(name: str, kind: str, seed: int) -> Pair:
    """The pair of a photograph, a kind of warp and a seed."""
    chance = np.random.default_rng(seed)
    photo = photograph(name)
    corner = np.array([photo.shape[2] - SIDE, photo.shape[1] - SIDE]) / 2
    truth = _warp(kind, chance)
    still = np.stack(np.meshgrid(*(np.arange(SIDE, dtype=np.float64),) * 2), -1)
    first, second = (_shown(photo, positions + corner) for positions in (truth, still))
    inside = ((truth >= 0) & (truth <= SIDE - 1)).all(-1)
    if kind == "light":
        first = _relit(first, chance)
    if kind == "occlusion":
        other = photograph(PHOTOGRAPHS[(PHOTOGRAPHS.index(name) + 1) % len(PHOTOGRAPHS)])
        covers = [_pieces(chance) for _ in range(2)]
        first, second = (
            torch.where(torch.from_numpy(cover), other[:, i : i + SIDE, i : i + SIDE], picture)
            for i, (cover, picture) in enumerate(zip(covers, (first, second)))
        )
        hidden = covers[1][tuple(np.clip(truth.round().astype(int), 0, SIDE - 1).transpose(2, 0, 1)[::-1])]
        inside = inside & ~covers[0] & ~hidden
    return Pair(first, second, torch.from_numpy(truth).float(), torch.from_numpy(inside))


@lru_cache
def photograph(name: str) -> Tensor:
    """One of scikit-image's, ``(3, H, W)``, its shorter side of ``SHORT`` pixels."""
    from skimage import data

    shot = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    whole = torch.from_numpy(np.array(shot[..., :3])).permute(2, 0, 1)[None].float() / 255
    scale = SHORT / min(whole.shape[2:])
    size = [round(side * scale) for side in whole.shape[2:]]
    return F.interpolate(whole, size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def _shown(photo: Tensor, positions: np.ndarray) -> Tensor:
    """The photograph at positions in its pixels, its mirror image beyond them."""
    size = np.array([photo.shape[2], photo.shape[1]])
    grid = torch.from_numpy((2 * positions + 1) / size - 1).float()[None]
    return F.grid_sample(photo[None], grid, "bicubic", "reflection", align_corners=False)[0].clamp(0, 1)


def _warp(kind: str, chance: np.random.Generator) -> np.ndarray:
    """Where the pixels of the first picture lie in the second, ``(SIDE, SIDE, 2)`` float64."""
    still = np.stack(np.meshgrid(*(np.arange(SIDE, dtype=np.float64),) * 2), -1)
    if kind == "shift":
        angle, length = chance.uniform(0, 2 * np.pi), SIDE * chance.uniform(*SHIFT)
        return still + length * np.array([np.cos(angle), np.sin(angle)])
    if kind == "spline" or (kind == "small" and chance.random() < 0.5):
        return _spline(still, chance, 0.08 if kind == "spline" else 0.015)
    return _homography(still, chance, 0.015 if kind == "small" else 0.12)


def _homography(points: np.ndarray, chance: np.random.Generator, most: float) -> np.ndarray:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (SIDE - 1.0)
    moved = corners + chance.uniform(-most, most, (4, 2)) * SIDE
    rows = []
    for (x, y), (u, v) in zip(corners, moved):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    matrix = np.append(np.linalg.solve(np.array(rows), moved.ravel()), 1).reshape(3, 3)
    there = np.concatenate([points, np.ones_like(points[..., :1])], -1) @ matrix.T
    return there[..., :2] / there[..., 2:]


def _spline(points: np.ndarray, chance: np.random.Generator, most: float) -> np.ndarray:
    """A thin-plate spline through 4 x 4 points moved by up to ``most`` of the side."""
    from scipy.interpolate import RBFInterpolator

    knots = np.stack(np.meshgrid(*(np.linspace(0, SIDE - 1, 4),) * 2), -1).reshape(-1, 2)
    moves = chance.uniform(-most, most, knots.shape) * SIDE
    spline = RBFInterpolator(knots, moves, kernel="thin_plate_spline")
    return points + spline(points.reshape(-1, 2)).reshape(points.shape)


def _relit(picture: Tensor, chance: np.random.Generator) -> Tensor:
    """Another gain and gamma of every channel, and of all together."""
    gain = chance.uniform(0.75, 1.25) * chance.uniform(0.9, 1.1, (3, 1, 1))
    gamma = chance.uniform(0.7, 1.4)
    return (picture.clamp(1e-4, 1) ** gamma * torch.from_numpy(gain).float()).clamp(0, 1)


def _pieces(chance: np.random.Generator) -> np.ndarray:
    """Where squares cover a picture, ``(SIDE, SIDE)`` bool."""
    side, cover = round(PIECE * SIDE), np.zeros((SIDE, SIDE), bool)
    for top, left in chance.integers(0, SIDE - side, (PIECES, 2)):
        cover[top : top + side, left : left + side] = True
    return cover
