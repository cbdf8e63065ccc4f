"""A clip made ready: masks found from motion, motion of layers, arrays in memory or in files alike."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geokernels import world
from geokernels.models import load_flow
from geokernels.pipelines import prepare_footage
from geokernels.pipelines.video import masks as motion_masks
from geokernels.pipelines.video.motion import apply, chain, fit_affine, frame_plane, inverse, then

pytest.importorskip("cv2")


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def clip(seed, frames=16):
    generator = chance(seed)
    return world.render_clip(world.sample_scenes(1, generator=generator), frames, generator=generator)


def overlap(masks, truth):
    found, there = torch.from_numpy(masks > 127), truth.masks[:, 0] >= 0.5
    return ((found & there).sum((1, 2)) / (found | there).sum((1, 2))).mean()


@pytest.mark.parametrize("seed", [1, 3])  # a large circle, a small star
def test_the_object_is_found_from_motion(seed):
    truth = clip(seed)
    footage = prepare_footage(truth.frames, load_flow())
    assert overlap(footage.masks, truth) > 0.75
    # the ground's way from each frame to the middle one, in pixels
    known = torch.stack([then(inverse(truth.ground_map[8].double()), m) for m in truth.ground_map.double()])
    plane = frame_plane(64, 64)
    for found, true in zip(footage.motion[1].double(), known, strict=True):
        assert (apply(found, plane) - apply(true, plane)).abs().mean() * 32 < 0.7
    assert torch.equal(footage.motion[:, 8], torch.eye(2, 3).expand(2, 2, 3))


def collage(frames=8, size=(72, 96)):
    """A disc of one busy pattern that crosses a drifting ground of another, and its masks."""
    noise = torch.rand((2, 3, 14, 14), generator=chance())
    tints = torch.tensor([[0.9, 0.5, 0.3], [0.2, 0.6, 1.0]])[..., None, None]
    ground, thing = (F.interpolate(noise, scale_factor=16, mode="bicubic").clamp(0, 1) * tints).split(1)
    H, W = (3 * side for side in size)
    here = F.affine_grid(torch.eye(2, 3)[None], [1, 1, H, W], align_corners=False) * torch.tensor([W / H, 1])
    shown, masks = [], []
    for along in torch.linspace(-1, 1, frames):
        own = here - 0.3 * along * torch.tensor([1.0, 0.4])
        below = F.grid_sample(ground, 0.6 * here + 0.05 * along, align_corners=False)
        above = F.grid_sample(thing, 0.6 * own, align_corners=False)
        cover = (own.norm(dim=-1) < 0.45).float()[:, None]
        shown.append(F.avg_pool2d(below + cover * (above - below), 3)[0])
        masks.append(F.avg_pool2d(cover, 3)[0])
    return SimpleNamespace(frames=torch.stack(shown), masks=torch.stack(masks))


def test_edges_of_a_busy_ground_are_not_taken_along():
    truth = collage()
    assert overlap(prepare_footage(truth.frames, load_flow()).masks, truth) > 0.85  # 0.56 before the cut


def test_a_cut_leaves_something_of_whatever_was_found():
    frame = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    for count in (1, 4, 20, 479):
        mask = 255 * (np.arange(480) < count).astype(np.uint8).reshape(20, 24)
        for picture in (frame, 0 * frame):
            assert motion_masks._cut(picture, mask).any()


def test_running_sums_blur_as_windows_do():
    picture = torch.rand((4, 40, 40), generator=chance())
    for width in (3, 7, 31):
        windows = F.avg_pool2d(picture[None], width, 1, width // 2)[0]
        assert torch.allclose(motion_masks._blurred(picture, width), windows, atol=1e-6)


def test_nothing_is_found_where_nothing_moves():
    still = clip(1, 2).frames[:1].repeat(4, 1, 1, 1)
    with pytest.raises(ValueError, match="masks must be given where nothing moves: all 4 frames are equal"):
        prepare_footage(still, None)  # before any flow is asked for
    still[2, 0, 0, 0] = 1 - still[2, 0, 0, 0].round()
    footage = prepare_footage(still, load_flow())
    assert not footage.masks.any()
    assert torch.allclose(footage.motion, torch.eye(2, 3).expand(2, 4, 2, 3), atol=1e-3)


def test_arrays_in_files_are_those_in_memory(tmp_path):
    truth = clip(3, 5)
    here = prepare_footage(truth.frames, load_flow())
    there = prepare_footage(iter(truth.frames), load_flow(), folder=tmp_path)
    for name in ("frames", "masks", "flow", "trusted", "back", "back_trusted"):
        kept = getattr(there, name)
        assert isinstance(kept, np.memmap)
        assert np.array_equal(kept, getattr(here, name))
    assert torch.equal(here.motion, there.motion)
    assert here.checksum == there.checksum
    assert torch.equal(here.frame(2), truth.frames[2].mul(255).round() / 255)


def test_masks_can_be_given():
    truth = clip(3, 4)
    footage = prepare_footage(truth.frames, load_flow(), masks=truth.masks)
    assert np.array_equal(footage.masks, truth.masks[:, 0].mul(255).round().to(torch.uint8).numpy())
    # before any flow is asked for
    for masks, found in ((truth.masks[:3], "4, got 3"), (torch.cat([truth.masks] * 2), "4, got 8")):
        with pytest.raises(ValueError, match=f"masks must be one a frame, {found}"):
            prepare_footage(truth.frames, None, masks=masks)
    with pytest.raises(ValueError, match="mask 0 must have shape"):
        prepare_footage(truth.frames, load_flow(), masks=truth.masks[..., :32])


def test_a_clip_of_one_frame_and_clips_that_are_none(tmp_path):
    for folder in (None, tmp_path):
        one = prepare_footage(clip(1, 2).frames[:1], load_flow(), folder=folder)
        assert one.flow.shape == (0, 64, 64, 2)
        assert not one.masks.any()
        with pytest.raises(ValueError, match="at least one frame, got none"):
            prepare_footage([], load_flow(), folder=folder)
    frames = [torch.zeros(3, 20, 24), torch.zeros(3, 24, 20)]
    sentence = "frames must be of one size, the first is 24 x 20 pixels, frame 1 is 20 x 24"
    with pytest.raises(ValueError, match=sentence):
        prepare_footage(frames, load_flow())
    with pytest.raises(ValueError, match="at least 16 pixels a side, got 24 x 8"):
        prepare_footage([torch.zeros(3, 8, 24)], load_flow())


def test_an_affine_map_is_found_among_points_that_do_not_follow_it():
    true = torch.tensor([[1.02, -0.05, 0.1], [0.05, 0.98, -0.04]], dtype=torch.float64)
    plane = frame_plane(24, 32)
    flow = (apply(true, plane) - plane) * 16
    flow[:7, :20] += 3.0
    assert torch.allclose(fit_affine(flow, torch.ones(24, 32)), true, atol=5e-3)
    sure = torch.ones(24, 32)
    sure[:7] = 0
    assert torch.allclose(fit_affine(flow, sure), true, atol=2e-3)
    nothing = fit_affine(flow, torch.zeros(24, 32))
    assert torch.equal(nothing, torch.eye(2, 3, dtype=torch.float64))
    maps = chain([true, true], 1)
    assert torch.allclose(maps[0], true)
    assert torch.allclose(then(maps[2], true), maps[1])
