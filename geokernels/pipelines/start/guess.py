"""What an edit can start from, and the colour regions that such guesses are made of.

Gradients from CLIP lead an edit that starts from nothing to the nearest optimum, often a wrong colour halfway
between two right ones, or an outline between two shapes. A guess found by search starts near the right one.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

REGIONS = 3  # background, object, and the object's darker pattern
SOFTNESS = 0.08  # standard deviation of a region's colour, in [0, 1]; softens the borders of regions
LEAST, MOST = 0.02, 0.98  # of a colour channel, so that it has a finite logit


class Guess(NamedTuple):
    """A colour for every pixel, and how much of it to put on."""

    colour: Tensor  # (1, 3, H, W) in [LEAST, MOST]
    opacity: Tensor  # (1, 1, H, W) in [0, 1]
    cosine: float  # between the change CLIP sees and the one the text asks for
    score: float  # the same, less what the repainted area costs


def colour_centres(picture: Tensor) -> Tensor:
    """Mean colours ``(REGIONS, 3)`` of the regions of ``picture`` (3, H, W): k-means from distant pixels."""
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


def colour_regions(picture: Tensor, centres: Tensor) -> Tensor:
    """How much each pixel of ``picture`` (1, 3, H, W) has of each of ``centres`` (R, 3): ``(R, H, W)``."""
    distance = (picture - centres[:, :, None, None]).square().sum(1)
    return (-distance / (2 * SOFTNESS**2)).softmax(0)
