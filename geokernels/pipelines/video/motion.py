"""How the layers of a clip move, as far as affine maps and optical flow say it.

Coordinates are those of the frame's plane: 0 in the middle, 1 unit for half its longest side, the same to the
right and down. Maps are affine, ``(..., 2, 3)`` float64.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

POINTS = 20_000  # pixels of a frame that a map is fitted to, at most
SCALES = (8.0, 4.0, 2.0, 1.0, 0.5, 0.5, 0.5)  # pixels off at which a point counts half, round by round
LEAST_POINTS = 12  # that must speak for a map
RIDGE = 1e-3  # of the spread of the points below which they say nothing of turns


def frame_plane(height: int, width: int) -> Tensor:
    """Coordinates of the middles of a frame's pixels, ``(H, W, 2)``."""
    longest = max(height, width)
    x = (2 * torch.arange(width, dtype=torch.float32) + 1 - width) / longest
    y = (2 * torch.arange(height, dtype=torch.float32) + 1 - height) / longest
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def fit_affine(flow: Tensor, weight: Tensor) -> Tensor:
    """The affine map that moves points most nearly as ``flow`` does, ``(2, 3)``.

    Robust: points that move otherwise than most lose their weight. Where next to nothing speaks for a map, it
    is the identity.

    Args:
        flow: How far pixels move, ``(H, W, 2)``, in pixels.
        weight: How much each one counts, ``(H, W)``.
    """
    H, W = weight.shape
    step = max(1, int((H * W / POINTS) ** 0.5))
    here = frame_plane(H, W)[::step, ::step].reshape(-1, 2).double()
    moved = flow[::step, ::step].reshape(-1, 2).double() * (2 / max(H, W))
    given = weight[::step, ::step].reshape(-1, 1).double()
    if given.sum() < LEAST_POINTS:
        return torch.eye(2, 3, dtype=torch.float64)
    middle = (here * given).sum(0) / given.sum()
    # about their middle, so that the ridge restrains turns and not shifts
    points = torch.cat([here - middle, torch.ones_like(given)], 1)
    ridge = RIDGE * torch.diag(given.new_tensor([1.0, 1.0, 1e-6]))
    weights = given
    for scale in SCALES:
        rows = points * weights / weights.sum()
        motion = torch.linalg.solve(points.T @ rows + ridge, rows.T @ moved)
        error = (moved - points @ motion).square().sum(1, keepdim=True)
        weights = given / (1 + error * (max(H, W) / 2 / scale) ** 2)
    linear = torch.eye(2, dtype=torch.float64) + motion[:2].T
    return torch.cat([linear, (motion[2] - motion[:2].T @ middle)[:, None]], 1)


def chain(steps: Sequence[Tensor], reference: int) -> Tensor:
    """Maps from every frame to the frame ``reference``, ``(T, 2, 3)``; ``steps`` go from each to the next."""
    before, after = [torch.eye(2, 3, dtype=torch.float64)], []
    for step in reversed(steps[:reference]):
        before.append(then(before[-1], step))
    for step in steps[reference:]:
        after.append(then(after[-1] if after else before[0], inverse(step)))
    return torch.stack([*reversed(before), *after])


def track(flow: np.ndarray, trusted: np.ndarray, masks: np.ndarray, *, ground: bool) -> Tensor:
    """Maps of a layer from each frame to the middle one, ``(T, 2, 3)``.

    Args:
        flow: From each frame to the next, ``(T - 1, H, W, 2)``, in pixels.
        trusted: Where it is to be believed, ``(T - 1, H, W)`` bool.
        masks: How much the object covers, ``(T, H, W)`` uint8.
        ground: Whether the layer is the one below the object.
    """
    steps = []
    for way, sure, mask in zip(flow, trusted, masks):
        covered = mask / np.float32(255)
        weight = sure * (1 - covered if ground else covered)
        steps.append(fit_affine(torch.from_numpy(np.array(way)), torch.from_numpy(weight)))
    return chain(steps, len(masks) // 2)


def motion_against(flow: Tensor, motion: Tensor) -> Tensor:
    """How far pixels move otherwise than the affine map ``motion`` has them, ``(H, W)``, in pixels."""
    H, W = flow.shape[:2]
    here = frame_plane(H, W)
    return (flow - (apply(motion, here) - here) * (max(H, W) / 2)).square().sum(-1).sqrt()


def follow(values: Tensor, flow: Tensor) -> Tensor:
    """``values`` (H, W) at the points that pixels move to; 0 outside the frame."""
    H, W = values.shape
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in (H, W)), indexing="ij")
    there = torch.stack([(x + flow[..., 0] + 0.5) * (2 / W) - 1, (y + flow[..., 1] + 0.5) * (2 / H) - 1], -1)
    return F.grid_sample(values[None, None], there[None], align_corners=False)[0, 0]


def apply(motion: Tensor, points: Tensor) -> Tensor:
    """Where the map ``motion`` takes ``points`` (..., 2); float32."""
    return (points.double() @ motion[:, :2].T + motion[:, 2]).float()


def agreement(forward: Tensor, backward: Tensor) -> Tensor:
    """Which pixels come back to within a pixel by the flow of the next frame, ``(H, W)`` bool."""
    back = torch.stack([follow(part, forward) for part in backward.unbind(-1)], -1)
    apart = (forward + back).square().sum(-1)
    # as far as they moved, they may be off by a tenth besides
    return apart < 1 + 0.01 * (forward.square() + back.square()).sum(-1)


def inverse(maps: Tensor) -> Tensor:
    """The map that undoes ``maps``, one."""
    linear = torch.linalg.inv(maps[:, :2])
    return torch.cat([linear, -linear @ maps[:, 2:]], 1)


def then(second: Tensor, first: Tensor) -> Tensor:
    """The map that does ``first``, then ``second``."""
    linear = second[:, :2]
    return torch.cat([linear @ first[:, :2], linear @ first[:, 2:] + second[:, 2:]], 1)
