"""Short clips of the rendered world whose layers, masks, motion and atlases are known exactly.

An object moves and turns over a softly patterned ground that moves too. Each layer is a picture of its own,
its atlas, seen through one affine map a frame: what layered atlases, masks and optical flow estimate. Clips
have no light and no grain, which would stay where they are while things move: every point keeps its colour.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .._modes import own_modes
from .captions import caption
from .renderer import object_mask, object_paint
from .scenes import ANGLE, PALETTE, RADII, Scenes

OBJECT_REACH = 1.25  # half width of the object's atlas, in object radii; no outline reaches further
GROUND_REACH = 1.5  # half width of the ground's atlas, in half picture widths
TRAVEL = (0.16, 0.24)  # length of the object's way, in picture widths
MIDDLE = 0.03  # how far the middle of the way may be from the picture's; the object stays in the picture
DRIFT = (0.3, 0.5)  # length of the ground's way, in half picture widths
GROUND_TURN = 0.08  # largest rotation of the ground over the clip, radians
ZOOM = 0.08  # largest relative change of the ground's scale over the clip
RELIEF = 0.15  # RGB distance between the ground's darkest and brightest points; the judge bears it
WAVES = 4  # of the ground's pattern
LENGTHS = (0.2, 0.45)  # of the waves, in half picture widths


@dataclass(frozen=True)
class Clip:
    """``T`` frames of ``size`` pixels, and everything that made them.

    ``frames = backgrounds + masks * (foregrounds - backgrounds)``, to the bit. Maps are affine, from pictures
    to atlases, in the convention of ``torch.nn.functional.affine_grid(..., align_corners=False)``: an atlas
    sampled at the grids of its maps gives its layer.

    Attributes:
        frames: ``(T, 3, size, size)`` in [0, 1].
        masks: How much of each pixel the object covers, ``(T, 1, size, size)``.
        foregrounds: The object's colours, as if it were everywhere, ``(T, 3, size, size)``.
        backgrounds: The ground without the object, ``(T, 3, size, size)``.
        flow: How far each pixel's point moves until the next frame, in pixels, right and down,
            ``(T - 1, 2, size, size)``; the object's where the mask is at least 0.5, else the ground's.
        visible: Whether that point is seen in the next frame, neither hidden nor outside,
            ``(T - 1, 1, size, size)`` bool.
        object_map: From each frame to the object's atlas, ``(T, 2, 3)``.
        ground_map: From each frame to the ground's atlas, ``(T, 2, 3)``.
        object_atlas: RGB and coverage, ``(4, 4 * size, 4 * size)``.
        ground_atlas: RGB, ``(3, 4 * size, 4 * size)``.
        scenes: One scene a frame; all alike but for ``centre`` and ``angle``.
    """

    frames: Tensor
    masks: Tensor
    foregrounds: Tensor
    backgrounds: Tensor
    flow: Tensor
    visible: Tensor
    object_map: Tensor
    ground_map: Tensor
    object_atlas: Tensor
    ground_atlas: Tensor
    scenes: Scenes

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def caption(self) -> str:
        """What every frame shows."""
        return caption(self.scenes[0])[0]


@own_modes
def render_clip(scene: Scenes, frames: int = 16, size: int = 64, *, generator: torch.Generator) -> Clip:
    """Move one scene's object and ground, and keep the truth about it.

    The object eases from one point to another and turns; the ground drifts, turns and scales evenly. The
    object stays inside the picture and within the angles of :func:`sample_scenes`, so that the judge can read
    every frame.

    Args:
        scene: What to show, one scene; its centre, angle, light and grain are not used.
        frames: How many, at least 2. The ways are as long for few frames as for many.
        size: Width and height in pixels, at least 16.
        generator: Draws the motion and the ground's pattern; the same state gives the same clip.

    Returns:
        The clip, with its masks, its flow and its atlases.

    Raises:
        ValueError: If there is not one scene, or ``frames`` or ``size`` is too small.

    Example:
        >>> from geokernels.world import sample_scenes
        >>> generator = torch.Generator().manual_seed(0)
        >>> clip = render_clip(sample_scenes(1, generator=generator), 4, generator=generator)
        >>> clip.frames.shape, clip.flow.shape
        (torch.Size([4, 3, 64, 64]), torch.Size([3, 2, 64, 64]))
    """
    if len(scene) != 1:
        raise ValueError(f"scene must be one scene, got {len(scene)}")
    if frames < 2:
        raise ValueError(f"frames must be at least 2, got {frames}")
    scenes = _move_object(scene, frames, generator)
    ground_map = _move_ground(frames, generator)
    object_map = _object_map(scenes)
    waves = _draw_waves(generator)

    masks, foregrounds = object_mask(scenes, size), object_paint(scenes, size)
    backgrounds = _ground_paint(scenes, waves, _grid(ground_map, size))
    flow, visible = _flow(object_map, ground_map, masks)
    whole = _as_atlas(scene)
    atlas = torch.cat([object_paint(whole, 4 * size), object_mask(whole, 4 * size)], 1)[0]
    identity = torch.eye(2, 3, dtype=torch.float32)[None] * GROUND_REACH
    return Clip(
        frames=backgrounds + masks * (foregrounds - backgrounds),
        masks=masks,
        foregrounds=foregrounds,
        backgrounds=backgrounds,
        flow=flow,
        visible=visible,
        object_map=object_map,
        ground_map=ground_map / GROUND_REACH,
        object_atlas=atlas,
        ground_atlas=_ground_paint(scene, waves, _grid(identity, 4 * size))[0],
        scenes=scenes,
    )


def _move_object(scene: Scenes, frames: int, generator: torch.Generator) -> Scenes:
    """One scene a frame: the object eases along a straight way and turns as it goes."""
    middle = 0.5 + MIDDLE * _uniform(-1, 1, 2, generator=generator)
    heading = _uniform(0, 2 * torch.pi, 1, generator=generator)
    half = _uniform(*TRAVEL, 1, generator=generator) / 2 * torch.cat([heading.cos(), heading.sin()])
    turn = ANGLE * _uniform(0.4, 1, 1, generator=generator) * (_uniform(-1, 1, 1, generator=generator).sign())
    # from -1 to 1, at rest at both ends
    along = -torch.linspace(0, torch.pi, frames, dtype=torch.float32).cos()
    still = scene[torch.zeros(frames, dtype=torch.int64)]
    return replace(
        still,
        centre=middle + along[:, None] * half,
        angle=along * turn,
        light=torch.zeros_like(still.light),
        grain=torch.zeros_like(still.grain),
    )


def _move_ground(frames: int, generator: torch.Generator) -> Tensor:
    """From each frame to the ground's plane in half picture widths, ``(T, 2, 3)``; the middle stays."""
    along = torch.linspace(-0.5, 0.5, frames, dtype=torch.float32)
    heading = _uniform(0, 2 * torch.pi, 1, generator=generator)
    length = _uniform(*DRIFT, 1, generator=generator)
    turn = along * GROUND_TURN * _uniform(-1, 1, 1, generator=generator)
    scale = 1 + along * ZOOM * _uniform(-1, 1, 1, generator=generator)
    shift = along[:, None] * length * torch.cat([heading.cos(), heading.sin()])
    return torch.cat([scale[:, None, None] * _rotation(turn), shift[..., None]], 2)


def _object_map(scenes: Scenes) -> Tensor:
    """From each frame to the object's atlas: the object's frame, ``OBJECT_REACH`` radii to either side."""
    back = _rotation(-scenes.angle) / (2 * OBJECT_REACH * scenes.radius[:, None, None])
    return torch.cat([back, -back @ (2 * scenes.centre - 1)[..., None]], 2)


def _as_atlas(scene: Scenes) -> Scenes:
    """The scene whose picture is the object's atlas: upright, in the middle, filling it."""
    low, high = torch.tensor(RADII, dtype=torch.float32)[scene.size].unbind(-1)
    radius = 0.5 / OBJECT_REACH
    return replace(
        scene,
        centre=torch.full_like(scene.centre, 0.5),
        angle=torch.zeros_like(scene.angle),
        scale=(radius - low) / (high - low),
    )


def _draw_waves(generator: torch.Generator) -> Tensor:
    """Wave vectors and phases of a pattern, ``(WAVES, 3)``, in radians."""
    # headings spread evenly from a random first, so that the pattern varies in every direction
    heading = (
        _uniform(0, torch.pi, 1, generator=generator)
        + torch.arange(WAVES, dtype=torch.float32) * torch.pi / WAVES
    )
    number = 2 * torch.pi / _uniform(*LENGTHS, WAVES, generator=generator)
    phase = _uniform(0, 2 * torch.pi, WAVES, generator=generator)
    return torch.stack([number * heading.cos(), number * heading.sin(), phase], 1)


def _ground_paint(scenes: Scenes, waves: Tensor, grid: Tensor) -> Tensor:
    """The ground's colours at the points ``grid`` (T, H, W, 2) of its plane, ``(T, 3, H, W)``."""
    height = (grid @ waves[:, :2].T + waves[:, 2]).cos().mean(-1)[:, None]  # in [-1, 1]
    colour = (PALETTE[scenes.background] + scenes.background_jitter)[..., None, None]
    # it only darkens, because white has no room above it
    darker = RELIEF / 2 * (height - 1) / colour.square().sum(1, keepdim=True).sqrt()
    return (colour * (1 + darker)).clamp(0, 1)


def _flow(object_map: Tensor, ground_map: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Flow and visibility of :class:`Clip`."""
    size = masks.shape[-1]
    here = _grid(torch.eye(2, 3, dtype=torch.float32)[None], size)
    there = [_grid(_then(_inverse(m[1:]), m[:-1]), size) for m in (object_map, ground_map)]
    on_object = masks[:-1] >= 0.5
    arrived = torch.where(on_object.permute(0, 2, 3, 1), *there)
    # what arrives under the object is hidden unless it is the object's own
    covered = F.grid_sample(masks[1:], arrived, align_corners=False) >= 0.5
    inside = (arrived.abs() <= 1).all(-1)[:, None]
    flow = (arrived - here).permute(0, 3, 1, 2) * (size / 2)
    return flow, inside & (on_object | ~covered)


def _grid(maps: Tensor, size: int) -> Tensor:
    """Where each pixel of a square picture goes, ``(T, size, size, 2)``."""
    return F.affine_grid(maps, [len(maps), 1, size, size], align_corners=False)


def _inverse(maps: Tensor) -> Tensor:
    linear = torch.linalg.inv(maps[..., :2])
    return torch.cat([linear, -linear @ maps[..., 2:]], -1)


def _then(second: Tensor, first: Tensor) -> Tensor:
    """The map that does ``first``, then ``second``."""
    linear = second[..., :2]
    return torch.cat([linear @ first[..., :2], linear @ first[..., 2:] + second[..., 2:]], -1)


def _rotation(angle: Tensor) -> Tensor:
    """Matrices ``(n, 2, 2)``."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def _uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float32)
