"""Maps of points made maps of pixels, along the edges of the pictures.

Core OpenCV has no joint filter: its bilateral one looks at what it filters. The guided filter (K. He, J. Sun
and X. Tang, 2010) is made of box filters alone, and stands here as a few of OpenCV's.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...models.optical_flow import load_flow, opencv
from .fixed import Fixed
from .grids import at, plane, resized, resized_map, sides, to_pixels, to_plane
from .matching import GridMatch, MatchingConfig
from .refinement import Look, refined, resampled, unfolded, unfolded_apart

LONGEST = 1024  # pixels of a side at which maps are refined, at most; those of larger pictures are enlarged
FILTER_CELLS = 1.5  # to either side
FILTER_EPS = 1e-3  # variance of colours below which the filter smooths across
DOUBT = 0.05  # weight of what is not believed at all
HALF = 0.5  # of a mask, above which a pixel is inside
MISS = 0.02  # of the longest side by which a round trip may miss


def dense_maps(
    a: Tensor,
    b: Tensor,
    coarse: GridMatch,
    config: MatchingConfig,
    *,
    fixed: Fixed | None,
    masks: tuple[Tensor, Tensor] | None,
    progress: Callable[[str, int, int], None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What :class:`geokernels.pipelines.blend.maps.Maps` holds, from a match of points."""
    looks = [Look.of(_shrunk(picture)) for picture in (a, b)]
    flow = load_flow() if config.refine else None
    grids, sure = (coarse.to_b, coarse.to_a), (coarse.confidence_a, coarse.confidence_b)
    within = None
    if masks is not None:
        within = [resized(mask[None], look.size)[0].numpy() for mask, look in zip(masks, looks)]
    ways = []
    for i, (own, other) in enumerate((looks, looks[::-1])):
        guide = own.colours if within is None else own.colours + within[i][..., None]
        positions = to_pixels(spread(grids[i], sure[i], guide), other.size).numpy()
        if flow is not None:
            before, positions = positions, refined(own, other, positions, flow)
            if within is not None:
                # optical flow knows nothing of masks
                left, stayed = (crossed(*within[:: 1 - 2 * i], at) for at in (positions, before))
                positions = np.where((left > stayed)[..., None], before, positions)
        # what moves before a ground folds at its edge: within a mask and without, maps are mended alone
        mended = unfolded(positions) if within is None else unfolded_apart(positions, within[i] > HALF)
        to = to_plane(torch.from_numpy(mended), other.size)
        if fixed is not None:
            to = (fixed if i == 0 else fixed.swapped()).draw(to, own.size)
        ways.append(to)
        progress("refining", i + 1, 2)
    sizes = [picture.shape[1:] for picture in (a, b)]
    maps = [to_pixels(resized_map(ways[i], sizes[i]), sizes[1 - i]) for i in range(2)]
    confidence = [believed(ways[i], ways[1 - i], sure[i]) for i in range(2)]
    if within is not None:
        for i, (other, way) in enumerate(zip(looks[::-1], ways)):
            left = crossed(*within[:: 1 - 2 * i], to_pixels(way, other.size).numpy())
            confidence[i] = confidence[i] * (1 - torch.from_numpy(left))
    return *maps, *(resized(sure[None], size)[0] for sure, size in zip(confidence, sizes))


def _shrunk(picture: Tensor) -> Tensor:
    H, W = picture.shape[1:]
    scale = min(1.0, LONGEST / max(H, W))
    return resized(picture.float(), (max(1, round(H * scale)), max(1, round(W * scale)))).clamp(0, 1)


def spread(to: Tensor, confidence: Tensor, colours: np.ndarray) -> Tensor:
    """Positions of pixels from those of points, by a guided filter whose guide is the picture.

    Args:
        to: ``(h, w, 2)``, from -1 to 1.
        confidence: ``(h, w)``.
        colours: The picture, ``(H, W, 3)``.
    """
    (h, w), (H, W) = confidence.shape, colours.shape[:2]
    size = min(2 * h, H), min(2 * w, W)
    motion = resized((to - plane((h, w))).permute(2, 0, 1), size).permute(1, 2, 0).numpy()
    weight = resized(confidence[None], size)[0].numpy() + np.float32(DOUBT)
    guide = resized(torch.from_numpy(colours).permute(2, 0, 1), size).permute(1, 2, 0).numpy()
    radius = max(1, round(FILTER_CELLS * size[0] / h))
    parts = np.concatenate(regressed(guide, motion, weight, radius), 2)
    parts = _mean(parts * weight[..., None], radius) / _mean(weight, radius)[..., None]
    # slopes are smooth, and are enlarged in place of the map (K. He and J. Sun, Fast guided filter, 2015)
    parts = resized(torch.from_numpy(parts).permute(2, 0, 1), (H, W)).permute(1, 2, 0)
    slopes, levels = parts[..., :6].unflatten(2, (3, 2)), parts[..., 6:]
    return plane((H, W)) + torch.einsum("hwc,hwck->hwk", torch.from_numpy(colours), slopes) + levels


def regressed(
    guide: np.ndarray, values: np.ndarray, weight: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two values over three colours, window by window: slopes ``(h, w, 6)``, colour by colour, and levels."""
    weight = weight[..., None]
    total = _mean(weight, radius)
    guides, averages = (_mean(part * weight, radius) / total for part in (guide, values))
    both = np.concatenate([guide, values], 2)
    moments = _mean(guide[..., :, None] * (both * weight)[..., None, :], radius) / total[..., None]
    moments = moments - guides[..., :, None] * np.concatenate([guides, averages], 2)[..., None, :]
    slopes = np.linalg.solve(moments[..., :3] + FILTER_EPS * np.eye(3, dtype=np.float32), moments[..., 3:])
    return slopes.reshape(*slopes.shape[:2], 6), averages - np.einsum("hwc,hwck->hwk", guides, slopes)


def _mean(x: np.ndarray, radius: int) -> np.ndarray:
    """Every plane of ``(h, w, ...)`` averaged over square windows."""
    cv2, flat = opencv("matching"), x.reshape(*x.shape[:2], -1).astype(np.float32)
    side = (2 * radius + 1,) * 2
    planes = [cv2.boxFilter(np.ascontiguousarray(flat[..., i]), -1, side) for i in range(flat.shape[2])]
    return np.stack(planes, -1).reshape(x.shape)


def crossed(own: np.ndarray, other: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """How far a map leads out of one mask and into the other's outside, or the reverse, ``(H, W)``."""
    return np.abs(own - resampled(other, positions))


def believed(to: Tensor, back: Tensor, confidence: Tensor) -> Tensor:
    """Confidence of pixels, ``(H, W)``: that of the points, times how nearly the two maps undo each other."""
    size = to.shape[:2]
    away = (at(back, to) - plane(size)) * sides(size) / 2
    sure = torch.exp(-away.square().sum(2) / (2 * (MISS * max(size)) ** 2))
    return (sure * (to.abs() <= 1).all(2) * resized(confidence[None], size)[0]).clamp(0, 1)
