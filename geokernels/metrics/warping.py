"""Do frames of a clip stay alike along its motion?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import require_shape


def warping_error(frames: Tensor, flow: Tensor, visible: Tensor) -> float:
    """Mean absolute difference between each pixel and where its point is in the next frame.

    Args:
        frames: ``(T, 3, H, W)``, at least two.
        flow: How far each pixel's point moves until the next frame, in pixels, right and down,
            ``(T - 1, 2, H, W)``.
        visible: Which of them are seen there, ``(T - 1, 1, H, W)`` bool; the others do not count.

    Returns:
        The mean over all visible pixels and channels, in the unit of ``frames``; frames between pixels are
        read bilinearly, so that the error of a perfect clip is small and not 0.

    Raises:
        ValueError: If shapes disagree, or nothing is visible.
    """
    T, _, H, W = frames.shape
    require_shape("flow", flow, (T - 1, 2, H, W), "(T - 1, 2, H, W)")
    require_shape("visible", visible, (T - 1, 1, H, W), "(T - 1, 1, H, W)")
    if not visible.any():
        raise ValueError("visible must be true somewhere, got none that is")
    size = flow.new_tensor([W, H]).view(2, 1, 1)
    y, x = torch.meshgrid(*(torch.arange(side).to(flow) for side in (H, W)), indexing="ij")
    there = (torch.stack([x, y]) + 0.5 + flow) * 2 / size - 1
    moved = F.grid_sample(frames[1:], there.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    return (moved - frames[:-1]).abs()[visible.expand(-1, 3, -1, -1)].mean().item()
