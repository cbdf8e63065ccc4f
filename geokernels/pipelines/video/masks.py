"""Where the foreground of a clip is, found from motion: what moves otherwise than the ground, and differs.

Flow finds an object, and not its outline. Hence three stages: first the pixels that do not follow the ground,
in their frame or where the flow takes them in another; then, among these, the ones that differ from the
ground, which is put together from what the frames show of it. That ground is off by parts of a pixel, and
bright edges near the object differ from it as well: last, a cut where colours change, between those of the
object and those around it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.optical_flow import opencv
from .motion import apply, fit_affine, follow, frame_plane, inverse, motion_against, track

MOVING = 0.2  # of the strongest motion against the ground, for a pixel to be suspected
LEAST_MOTION = 0.25  # pixels a frame; less is no motion
STRONGEST = 0.98  # share of a frame's pixels that move less than its strongest motion
CARRIED = 0.98  # of a suspicion, to the next frame
NEAR = 9  # pixels across, of the window around a suspect in which the object may be
MARGIN = 3  # the same for what tells nothing of the ground
REACH = 1.6  # of the ground's picture, in frames
SEEN = 0.5  # frames that must have shown a point of the ground
UNLIKE = 0.06  # least RGB distance from the ground
NOISES = 4.0  # how many times the usual distance that must be
GUESSED = 1.5  # how much more, from ground that was never seen
ROUNDS = 4
SURE = 15  # pixels across, of the window that must be found whole for its middle to be kept by the cut
AROUND = 5  # the same of the window in which one found pixel lets its middle become the object's
CUTS = 3


def find_masks(
    frames: np.ndarray,
    flow: np.ndarray,
    back: np.ndarray,
    trusted: np.ndarray,
    *,
    masks: np.ndarray,
    scratch: np.ndarray,
) -> None:
    """Fill ``masks`` with 255 where the foreground is, one frame after another; all 0 where nothing moves.

    Args:
        frames: ``(T, H, W, 3)`` uint8.
        flow: From each frame to the next, ``(T - 1, H, W, 2)``.
        back: From each frame but the first to the one before.
        trusted: Where the two agree, ``(T - 1, H, W)`` bool.
        masks: To fill, ``(T, H, W)`` uint8.
        scratch: Room for as many float16.
    """
    threshold = max(LEAST_MOTION, MOVING * _suspect(flow, back, scratch))
    for t in range(len(frames)):
        masks[t] = 255 * (scratch[t] > threshold)
    for _ in range(ROUNDS if masks.any() else 0):
        maps = track(flow, trusted, masks, ground=True)
        ground = _ground(frames, masks, maps)
        for t in range(len(frames)):
            suspects = torch.from_numpy(scratch[t] > threshold)
            masks[t] = 255 * _differing(_picture(frames[t]), suspects, ground, maps[t]).numpy()
    for frame, mask in zip(frames, masks):
        if mask.any() and not mask.all():
            mask[:] = 255 * _cut(frame, mask)


def _suspect(flow: np.ndarray, back: np.ndarray, out: np.ndarray) -> float:
    """Motion against the ground, in pixels, carried along the flow both ways; the strongest found."""
    T, whole, strongest = len(out), torch.ones(out.shape[1:], dtype=torch.float32), 0.0
    carried = None
    for t in range(T):
        ways = [torch.from_numpy(x) for x in (*flow[t : t + 1], *back[max(t - 1, 0) : t])]
        own = [motion_against(way, fit_affine(way, whole)) for way in ways]
        now = torch.stack(own).mean(0) if own else torch.zeros_like(whole)
        strongest = max(
            strongest, now.flatten().kthvalue(1 + int(STRONGEST * (now.numel() - 1))).values.item()
        )
        if carried is not None:
            now = torch.maximum(now, CARRIED * follow(carried, torch.from_numpy(back[t - 1])))
        carried = now
        out[t] = carried.numpy()
    later = torch.from_numpy(out[-1].astype(np.float32))
    for t in reversed(range(T - 1)):
        forth = torch.from_numpy(out[t].astype(np.float32))
        later = torch.maximum(forth, CARRIED * follow(later, torch.from_numpy(flow[t])))
        out[t] = ((forth + later) / 2).numpy()
    return strongest


def _ground(frames: np.ndarray, masks: np.ndarray, maps: Tensor) -> Tensor:
    """The ground without the foreground, in the plane of the middle frame: colours, and how often seen.

    Returns:
        ``(4, S, S)`` over ``REACH`` frames' longest side; what was never seen has the colours around it.
    """
    H, W = masks.shape[1:]
    side, longest = round(REACH * max(H, W)), max(H, W)
    plane = frame_plane(side, side) * REACH
    total = torch.zeros(4, side, side, dtype=torch.float32)
    for frame, mask, motion in zip(frames, masks, maps):
        grid = apply(inverse(motion), plane) * (longest / plane.new_tensor([W, H]))
        known = 1 - _widened(torch.from_numpy(mask > 0), MARGIN)[None]
        total += F.grid_sample(
            torch.cat([_picture(frame) * known, known])[None], grid[None], align_corners=False
        )[0]
    filled, width = total, 3
    while width < side:
        around = _blurred(total, width)
        filled = torch.where(filled[3:] > 1e-3, filled, around)
        width = 2 * width + 1
    return torch.cat([filled[:3] / filled[3:].clamp(min=1e-6), total[3:]])


def _differing(picture: Tensor, suspects: Tensor, ground: Tensor, motion: Tensor) -> Tensor:
    """Where ``picture`` (3, H, W), among and around its suspects, is not the ground: ``(H, W)`` bool."""
    grid = apply(motion, frame_plane(*suspects.shape)) / REACH
    expected = F.grid_sample(ground[None], grid[None], align_corners=False)[0]
    distance = (picture - expected[:3]).square().sum(0).sqrt()
    near, seen = _widened(suspects, NEAR) > 0, expected[3] > SEEN
    surely = distance[~near & seen]
    least = max(UNLIKE, NOISES * surely.median().item()) if surely.numel() else UNLIKE
    return torch.where(seen, near & (distance > least), suspects & (distance > GUESSED * least))


def _cut(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of ``mask`` and its surroundings whose colours are the object's, by GrabCut; 0 and 1."""
    cv2 = opencv("finding masks")

    def window(side: int) -> np.ndarray:
        return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))

    labels = np.full_like(mask, cv2.GC_BGD)
    labels[cv2.dilate(mask, window(AROUND)) > 0] = cv2.GC_PR_BGD
    labels[mask > 0] = cv2.GC_PR_FGD
    labels[cv2.erode(mask, window(SURE)) > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # of the first colour models
    models = np.zeros((2, 1, 65))
    cv2.grabCut(np.array(frame), labels, None, *models, CUTS, cv2.GC_INIT_WITH_MASK)
    cut = labels & 1  # both kinds of foreground are odd
    return cut if cut.any() else mask // 255  # an object in the ground's colours is not gone


def _blurred(picture: Tensor, width: int) -> Tensor:
    """Means over squares of ``width`` pixels, an odd number; 0 beyond the edges."""
    for way in (1, 2):
        # running sums, as windows grow with the frame
        sums = F.pad(picture.double().transpose(way, 2), (width // 2 + 1, width // 2)).cumsum(2)
        picture = ((sums[..., width:] - sums[..., :-width]) / width).transpose(way, 2)
    return picture.float()


def _widened(mask: Tensor, width: int) -> Tensor:
    return F.max_pool2d(mask[None].float(), width, 1, width // 2)[0]


def _picture(frame: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1).float() / 255
