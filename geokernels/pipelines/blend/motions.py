"""The few affine motions that most points of a picture follow: what its smooth map is expected to be near."""

import torch
from torch import Tensor

from ..video.motion import apply, fit_affine, frame_plane
from .grids import plane
from .smoothing import COLOUR_WIDTH, windows

MOTIONS = 2  # at most: a ground, and what moves before it
TRIED = 256  # points whose motion is tried as that of most
ALIKE = 2.0  # cells by which two motions may differ to be near each other
SPREAD = 3.0  # times that: how far the motions of one affine map spread
LEAST = 0.15  # of what speaks for the first motion that must speak for another
AROUND = 4  # cells to either side that speak for a point's motion
STRETCH = (0.4, 2.5)  # by which an affine map may shrink or enlarge a picture, to be believed


def affine_motions(to: Tensor, confidence: Tensor, colours: Tensor) -> Tensor:
    """Each point under that affine motion which the points about it follow, ``(h, w, 2)``.

    Where none is to be believed, points stay in the same place of the other picture.

    Args:
        to: Where the points are sent, ``(h, w, 2)``, from -1 to 1.
        confidence: ``(h, w)``.
        colours: ``(3, h, w)``: those that look alike move alike.
    """
    h, w = confidence.shape
    here, cells = plane((h, w)), torch.tensor([w / 2, h / 2], dtype=torch.float32)
    motion, left, found, votes = (to - here) * cells, confidence, [], []
    for _ in range(MOTIONS):
        fitted = _fitted(motion, left)
        # how near points are to it, in cells; what follows it has no other
        near = torch.exp(-(motion - fitted).square().sum(2) / (2 * ALIKE**2))
        if found and (left * near).sum() < LEAST * votes[0].sum():
            break
        found.append(fitted)
        votes.append(confidence * near)
        left = left * (1 - near)
    support = torch.stack([_gathered(vote, colours) for vote in votes])
    chosen = support.argmax(0)
    moved = torch.stack(found).gather(0, chosen[None, ..., None].expand(1, h, w, 2))[0]
    return here + moved / cells


def _fitted(motion: Tensor, confidence: Tensor) -> Tensor:
    """The affine motion near that of most points, ``(h, w, 2)`` in cells; 0 if it is none to believe."""
    h, w = confidence.shape
    # least squares find the way back from a few that are off, not from many
    fitted = fit_affine(motion, confidence * _agreeing(motion, confidence))
    stretch = torch.linalg.svdvals(fitted[:, :2])
    if not STRETCH[0] <= float(stretch.min()) <= float(stretch.max()) <= STRETCH[1]:
        return torch.zeros_like(motion)
    points = frame_plane(h, w)
    return (apply(fitted, points) - points) * (max(h, w) / 2)


def _agreeing(motion: Tensor, confidence: Tensor) -> Tensor:
    """How near motions are to the one that most are near, ``(h, w)``; in cells."""
    points, weight = motion.flatten(0, 1), confidence.flatten()
    tried = points[weight.topk(min(TRIED, len(points))).indices]
    near = torch.exp(-torch.cdist(tried, points).square() / (2 * ALIKE**2))
    most = tried[(near @ weight).argmax()]
    return torch.exp(-(motion - most).square().sum(2) / (2 * (SPREAD * ALIKE) ** 2))


def _gathered(vote: Tensor, colours: Tensor) -> Tensor:
    """Votes of the points about each that look like it, ``(h, w)``."""
    around = windows(torch.cat([colours, vote[None]]), AROUND)
    unlike = (around[:3] - colours.flatten(1)[:, None]).square().sum(0)
    return (around[3] * torch.exp(-unlike / (2 * COLOUR_WIDTH**2))).sum(0).view(vote.shape)
