"""Maps of pixels refined by optical flow, where that makes the pictures more alike, and freed of folds.

Positions are pixels, (x, y), centres at whole numbers, ``(H, W, 2)`` float32 arrays. OpenCV does the work.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from ...models.optical_flow import Flow, opencv
from .grids import Size, plane, to_pixels

WINDOW = 7  # pixels over which two pictures are compared
REGION = 1 / 16  # of the longest side over which comparisons are put together
ACCEPTED = 0.7  # likeness, a correlation, below which a refinement is no better than what it refines
MOSTLY = 0.4  # of what both pictures show: where so much is alike, the rest need not be
LOOSELY = 0.2  # likeness above which a refinement is taken there
GAIN = 0.01  # of likeness that a further refinement must bring
FAINT = 0.02  # contrast below which light is not evened out
ANEW = -0.005  # the same of one from the same place, which is the simpler
SMOOTHINGS = 12  # the most of folds


class Look(NamedTuple):
    """A picture as it is compared.

    Attributes:
        colours: ``(H, W, 3)`` float32.
        grey: ``(H, W)`` float32.
    """

    colours: np.ndarray
    grey: np.ndarray

    @classmethod
    def of(cls, picture: Tensor) -> "Look":
        """Of ``(3, H, W)`` in [0, 1]."""
        colours = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        cv2 = opencv("matching")
        return cls(colours, cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY))

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.grey.shape


def refined(own: Look, other: Look, positions: np.ndarray, flow: Flow) -> np.ndarray:
    """The map after optical flow, where that makes the pictures more alike.

    Flow is looked for from the map, from the same place of the other picture, which small motion is near, and
    from what these came to.
    """
    still, shared = to_pixels(plane(own.size), other.size).numpy(), within(positions, other.size)
    best, score = positions, likeness(own, other, positions, shared)
    for start, gain in ((positions, 0.0), (still, ANEW), (None, GAIN)):
        tried = _flowed(own, other, best if start is None else start, flow)
        reached = likeness(own, other, tried, shared)
        # what is alike in most places is one thing, and is to be followed where it is seen less well too
        alike = (reached > ACCEPTED)[shared].mean() > MOSTLY if shared.any() else False
        better = (reached > score + gain) & (reached > (LOOSELY if alike else ACCEPTED))
        best, score = np.where(better[..., None], tried, best), np.where(better, reached, score)
    cv2 = opencv("matching")
    return np.stack([cv2.medianBlur(np.ascontiguousarray(best[..., i]), 5) for i in range(2)], 2)


def _flowed(own: Look, other: Look, start: np.ndarray, flow: Flow) -> np.ndarray:
    """The map ``start``, after the flow to what it makes of the other picture."""
    still, seen, there = pixels(own.size), within(start, other.size), resampled(other.grey, start)
    if seen.any():
        # the light of one picture on both
        gain = (own.grey[seen].std() + FAINT) / (there[seen].std() + FAINT)
        there = (there - there[seen].mean()) * gain + own.grey[seen].mean()
    # where nothing is to be seen nothing moves, and draws along what is beside it
    there = still + flow(_shown(own.grey), _shown(np.where(seen, there, own.grey)))
    return there + resampled(start - still, there)


def _shown(grey: np.ndarray) -> np.ndarray:
    """In three channels of 8 bits, as optical flow takes it."""
    return np.repeat(np.clip(255 * grey + 0.5, 0, 255).astype(np.uint8)[..., None], 3, 2)


def within(positions: np.ndarray, size: Size) -> np.ndarray:
    """Which positions lie in a picture of that height and width, ``(H, W)`` bool."""
    H, W = size
    return ((positions >= -0.5) & (positions <= np.float32([W - 0.5, H - 0.5]))).all(2)


def likeness(own: Look, other: Look, positions: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """How the pictures correlate about every pixel under a map, ``(H, W)`` in [-1, 1].

    Windows are compared about their means, and put together over regions by their strengths: flat places say
    little. What is not ``shared`` does not count, and what of it lies outside of the other picture is like
    nothing.
    """
    cv2, there = opencv("matching"), resampled(other.grey, positions)
    inside = within(positions, other.size)

    def mean(x: np.ndarray, side: int) -> np.ndarray:
        return cv2.boxFilter(x, -1, (side, side))

    means = mean(own.grey, WINDOW), mean(there, WINDOW)
    both = mean(own.grey * there, WINDOW) - means[0] * means[1]
    strengths = [mean(x * x, WINDOW) - m * m for x, m in zip((own.grey, there), means)]
    region = 2 * max(3, round(max(own.size) * REGION / 2)) + 1
    counted = np.where(inside & shared, both, 0), *(np.where(shared, part, 0) for part in strengths)
    both, first, second = (mean(part.astype(np.float32), region) for part in counted)
    return both / np.sqrt(np.maximum(first, 0) * np.maximum(second, 0) + np.float32(1e-12))


def resampled(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``values`` (H, W, ...) between its pixels; those of the border beyond it."""
    cv2 = opencv("matching")
    values, positions = (np.ascontiguousarray(part) for part in (values, positions))
    return cv2.remap(values, positions, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def unfolded(positions: np.ndarray) -> np.ndarray:
    """The map smoothed where it folds, and little further."""
    cv2, still, sigma = opencv("matching"), pixels(positions.shape[:2]), 1.0
    motion = positions - still
    for _ in range(SMOOTHINGS):
        folded = _folds(motion + still)
        if not folded.any():
            break
        reach = 2 * round(2 * sigma) + 1
        near = cv2.dilate(folded.astype(np.float32), np.ones((reach, reach), np.uint8))
        near = cv2.GaussianBlur(near, (0, 0), sigma)[..., None]
        motion = motion + near * (cv2.GaussianBlur(motion, (0, 0), sigma) - motion)
        sigma *= 1.5
    return motion + still


def unfolded_apart(positions: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The same inside of a mask ``(H, W)`` and outside of it, as if the one knew nothing of the other."""
    parts = [unfolded(_continued(positions, own)) for own in (inside, ~inside)]
    return np.where(inside[..., None], *parts)


def _continued(positions: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The map where it is ``known``, and elsewhere the motion of the nearest place where it is."""
    cv2, still = opencv("matching"), pixels(positions.shape[:2])
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    motion, of_label = (positions - still).reshape(-1, 2), np.empty(labels.max() + 1, np.int64)
    of_label[labels[known]] = np.flatnonzero(known)
    return still + motion[of_label[labels]]


def _folds(positions: np.ndarray) -> np.ndarray:
    """Where the map turns its pixels over, ``(H, W)`` bool."""
    across, down = np.diff(positions, axis=1)[:-1], np.diff(positions, axis=0)[:, :-1]
    area = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
    return np.pad(area <= 0, ((0, 1), (0, 1)))


def pixels(size: Size) -> np.ndarray:
    """Every pixel's own position, ``(H, W, 2)``."""
    y, x = (np.arange(side, dtype=np.float32) for side in size)
    return np.stack(np.meshgrid(x, y), 2)
