"""What a step of an atlas's fit looks at: random pixels, their neighbours, and where the flow takes them."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...models.atlas import Points
from .footage import Footage

FORWARD, BOTH = "forward", "both"
SHOWN = 3  # of the points of a pixel are in its own frame: itself, and its neighbours right and below


class FitSample(NamedTuple):
    """``n`` pixels, each with its neighbours right and below, and with itself along ``W`` ways of the flow.

    Points come in ``3 + W`` groups of ``n``.
    """

    points: Points  # (3 + W) n
    colours: Tensor  # (3, n, 3), of the first three groups
    sure: Tensor  # (W, n), how much each way counts in a mean over pixels; 0 where the flow is not trusted
    masks: Tensor  # (n, 1), of the first group

    @property
    def groups(self) -> int:
        """How many points there are of each pixel."""
        return SHOWN + len(self.sure)


def draw_sample(
    footage: Footage, samples: int, *, flow_ways: str, generator: torch.Generator, device: torch.device
) -> FitSample:
    """Draw pixels of all frames; the last row and column have no neighbours, and are seen as such only.

    Args:
        footage: The clip.
        samples: How many pixels.
        flow_ways: ``"forward"``: along the flow to the next frame, in means over all pixels. ``"both"``: to
            the frame before as well; each way counts half, in means over the pixels whose flow is trusted.
        generator: Source of random numbers, on the CPU.
        device: Where to.
    """
    (H, W), T, n = footage.size, len(footage), samples
    share = torch.rand((3, n), generator=generator, dtype=torch.float32).numpy()
    t, y, x = (np.minimum((a * b).astype(np.int64), b - 1) for a, b in zip(share, (T, H - 1, W - 1)))
    colours = np.stack([footage.frames[t, y + dy, x + dx] for dy, dx in ((0, 0), (0, 1), (1, 0))])
    ways = [_along(footage.flow, footage.trusted, (t, y, x), t < T - 1)]
    frames = [t, t, t, np.minimum(t + 1, T - 1)]
    if flow_ways == BOTH:
        ways.append(_along(footage.back, footage.back_trusted, (t - 1, y, x), t > 0))
        frames.append(np.maximum(t - 1, 0))
    pixel = np.float32(2 / max(H, W))
    here = pixel * np.stack([x + (1 - W) / 2, y + (1 - H) / 2], 1).astype(np.float32)
    steps = [np.zeros_like(here), np.full_like(here, (1, 0)), np.full_like(here, (0, 1))]
    places = here + pixel * np.stack([*steps, *(way for way, _ in ways)])
    sure = torch.from_numpy(np.stack([trust for _, trust in ways])).to(device)
    if flow_ways == BOTH:
        sure = sure * (n / len(ways)) / sure.sum(1, keepdim=True).clamp(min=1)
    points = Points(
        torch.from_numpy(np.stack(frames).reshape(-1)).to(device),
        torch.from_numpy(places.reshape(-1, 2)).to(device),
    )
    shown = (torch.from_numpy(colours).float() / 255).to(device)
    masks = (torch.from_numpy(footage.masks[t, y, x][:, None]).float() / 255).to(device)
    return FitSample(points, shown, sure, masks)


def _along(
    flow: np.ndarray, trusted: np.ndarray, at: tuple[np.ndarray, ...], moving: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far pixels move, (n, 2), and whether that is trusted, (n,); 0 where there is no such frame."""
    n = len(moving)
    way, sure = np.zeros((n, 2), np.float32), np.zeros(n, np.float32)
    here = tuple(index[moving] for index in at)
    way[moving], sure[moving] = flow[here], trusted[here]
    return way, sure
