"""Which frames a run keeps on its way, and in which form."""

import torch
from torch import Tensor

from ..media.pictures import fit


def kept_steps(steps: int, count: int) -> list[int]:
    """After which steps a frame is kept: denser at the start, where most happens; 0 is before the first."""
    return sorted({round(steps * (i / (count - 1)) ** 1.5) for i in range(count)})


def as_kept(pictures: Tensor, side: int) -> Tensor:
    """Pictures ``(..., 3, H, W)`` as they are kept: at most ``side`` pixels a side, 8 bits, on the CPU."""
    if pictures.dim() > 3:
        return torch.stack([as_kept(picture, side) for picture in pictures])
    small = fit(pictures, side) if max(pictures.shape[-2:]) > side else pictures
    return small.mul(255).round().to(torch.uint8).cpu()


def as_shown(frames: list[Tensor]) -> list[Tensor]:
    """What :func:`as_kept` kept, in [0, 1]."""
    return [frame.float() / 255 for frame in frames]
