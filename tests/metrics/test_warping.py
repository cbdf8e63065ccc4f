"""The error along the motion is that of a known change, and ignores what is not seen."""

import pytest
import torch

from geokernels import world
from geokernels.metrics import warping_error


def test_a_shift_has_no_error_and_a_change_of_brightness_its_own():
    frame = torch.rand(3, 10, 12, generator=torch.Generator().manual_seed(0))
    frames = torch.stack([frame, frame.roll((1, 2), (1, 2)) + 0.1])
    flow = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 10, 12)
    visible = torch.zeros(1, 1, 10, 12, dtype=torch.bool)
    visible[..., :-1, :-2] = True  # the rest leaves the frame
    assert warping_error(frames, flow, visible) == pytest.approx(0.1, abs=1e-6)
    assert warping_error(frames, flow, ~visible) > 0.15
    assert warping_error(frames, 0 * flow, visible) > 0.15


def test_the_worlds_clips_are_consistent_and_flicker_is_not():
    chance = torch.Generator().manual_seed(1)
    clip = world.render_clip(world.sample_scenes(1, generator=chance), 6, generator=chance)
    steady = warping_error(clip.frames, clip.flow, clip.visible)
    flicker = clip.frames + 0.05 * (-1) ** torch.arange(6).view(6, 1, 1, 1)
    assert steady < 0.01 < 0.08 < warping_error(flicker, clip.flow, clip.visible)


def test_shapes_that_disagree_are_named():
    frames, flow = torch.rand(3, 3, 4, 4), torch.zeros(2, 2, 4, 4)
    with pytest.raises(ValueError, match="flow must have shape"):
        warping_error(frames, flow[:1], torch.ones(2, 1, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="visible must be true somewhere"):
        warping_error(frames, flow, torch.zeros(2, 1, 4, 4, dtype=torch.bool))
