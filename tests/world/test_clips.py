"""A clip's frames, masks, flow and atlases agree with one another, and the judge can read every frame."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F

from geokernels.world import ATTRIBUTES, Clip, Scenes, judge, object_mask, render_clip, sample_scenes

T, SIZE = 8, 64


def clip_of(seed: int, *, frames: int = T, size: int = SIZE) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    return render_clip(sample_scenes(1, generator=generator), frames, size, generator=generator)


@pytest.fixture(scope="module", params=range(4))
def clip(request) -> Clip:
    return clip_of(request.param)


def grid(maps, size=SIZE):
    return F.affine_grid(maps, [len(maps), 1, size, size], align_corners=False)


def arrivals(clip):
    """Where the flow takes each pixel, as ``grid_sample`` wants it, ``(T - 1, S, S, 2)``."""
    return grid(torch.eye(2, 3)[None]) + clip.flow.permute(0, 2, 3, 1) * (2 / SIZE)


def look(pictures, where, padding="border"):
    return F.grid_sample(pictures, where, padding_mode=padding, align_corners=False)


def solid(clip):
    """Pixels of which all neighbours, too, are wholly object or wholly ground, ``(T, 1, S, S)``."""
    high, low = F.max_pool2d(clip.masks, 5, 1, 2), -F.max_pool2d(-clip.masks, 5, 1, 2)
    return high == low


def test_shapes_and_ranges(clip):
    assert len(clip) == len(clip.scenes) == T
    assert clip.frames.shape == clip.foregrounds.shape == clip.backgrounds.shape == (T, 3, SIZE, SIZE)
    assert clip.masks.shape == (T, 1, SIZE, SIZE)
    assert clip.flow.shape == (T - 1, 2, SIZE, SIZE)
    assert clip.visible.shape == (T - 1, 1, SIZE, SIZE)
    assert clip.object_map.shape == clip.ground_map.shape == (T, 2, 3)
    assert clip.object_atlas.shape == (4, 4 * SIZE, 4 * SIZE)
    assert clip.ground_atlas.shape == (3, 4 * SIZE, 4 * SIZE)
    for picture in (clip.frames, clip.foregrounds, clip.backgrounds, clip.object_atlas, clip.ground_atlas):
        assert picture.dtype == torch.float32
        assert picture.min() >= 0
        assert picture.max() <= 1


def test_layers_composite_to_the_frames(clip):
    assert torch.equal(clip.frames, clip.backgrounds + clip.masks * (clip.foregrounds - clip.backgrounds))
    assert torch.equal(clip.masks, object_mask(clip.scenes))


def test_the_next_frame_warped_by_the_flow_is_this_one(clip):
    where = arrivals(clip)
    back = look(clip.frames[1:], where)
    clear = clip.visible & solid(clip)[:-1] & (look(solid(clip)[1:].float(), where) == 1)
    error = (back - clip.frames[:-1]).abs().amax(1, keepdim=True)
    clear &= (where.abs() <= 1 - 1 / SIZE).all(-1)[:, None]  # between four pixels
    ground = clear & (clip.masks[:-1] == 0)
    assert ground.float().mean() > 0.5
    # linear interpolation errs by an eighth of the waves' curvature, 0.009 if all four are as short as can be
    assert error[ground].max() < 0.01
    still = (clip.frames[1:] - clip.frames[:-1]).abs().amax(1, keepdim=True)
    assert error[ground].mean() < 0.25 * still[ground].mean()
    inside = clear & (clip.masks[:-1] == 1)
    assert inside.any()
    # stripes and dots have edges as sharp as a pixel
    assert error[inside].mean() < (0.01 if int(clip.scenes.texture[0]) == 0 else 0.04)


def test_what_is_not_visible_is_hidden_or_outside(clip):
    where = arrivals(clip)
    gone = ~clip.visible[:, 0]
    outside = (where.abs() > 1).any(-1)
    hidden = look(clip.masks[1:], where)[:, 0] >= 0.5
    assert gone.any()
    assert (outside | hidden)[gone].all()
    assert not outside[~gone].any()
    assert not (clip.masks[:-1, 0] >= 0.5)[gone].any()


def test_atlases_seen_through_their_maps_are_the_layers(clip):
    ground = look(clip.ground_atlas.expand(T, -1, -1, -1), grid(clip.ground_map), "zeros")
    assert (ground - clip.backgrounds).abs().max() < 2e-3
    seen = look(clip.object_atlas.expand(T, -1, -1, -1), grid(clip.object_map), "zeros")
    colours, cover = seen.split([3, 1], 1)
    # the atlas is finer than the frames, so that edges differ and nothing else does
    assert (cover - clip.masks)[solid(clip)].abs().max() < 1e-3
    inside = clip.masks * (colours - clip.foregrounds).abs()
    assert inside.sum() / (3 * clip.masks.sum()) < 0.05
    assert grid(clip.ground_map).abs().max() < 1


def test_flow_is_the_change_of_the_maps(clip):
    """A point keeps its place in the atlas: the definition of the flow, by another route."""
    where = arrivals(clip)
    one = torch.ones(T - 1, SIZE, SIZE, 1)
    moved = torch.cat([where, one], -1)
    for maps, of_layer in (
        (clip.object_map, clip.masks[:-1, 0] >= 0.5),
        (clip.ground_map, clip.masks[:-1, 0] < 0.5),
    ):
        landed = torch.einsum("thwj,tij->thwi", moved, maps[1:])
        torch.testing.assert_close(landed[of_layer], grid(maps[:-1])[of_layer], rtol=0, atol=1e-5)


def test_something_moves_and_both_layers_do(clip):
    on_object = clip.masks[:-1] == 1
    speed = clip.flow.square().sum(1, keepdim=True).sqrt()
    assert speed[on_object].max() > 0.5
    assert speed[clip.masks[:-1] == 0].mean() > 0.5
    assert (clip.scenes.angle[0] - clip.scenes.angle[-1]).abs() > 0.2


@pytest.mark.parametrize("seed", range(20, 28))
def test_the_judge_reads_every_frame_and_finds_the_mask(seed):
    clip = clip_of(seed, frames=4)
    verdict = judge(clip.frames)
    truth = torch.stack([getattr(clip.scenes, a) for a in ATTRIBUTES], 1)
    assert torch.equal(verdict.values, truth)
    overlap = torch.minimum(verdict.mask, clip.masks).sum() / torch.maximum(verdict.mask, clip.masks).sum()
    assert overlap > 0.93
    assert clip.caption.split()[-2] == ATTRIBUTES["background"][int(clip.scenes.background[0])]


def test_the_object_never_touches_the_border():
    for seed in range(30):
        masks = clip_of(seed, frames=3, size=32).masks  # both ends of the way, and its middle
        assert not torch.cat([masks[..., 0], masks[..., -1], masks[..., 0, :], masks[..., -1, :]]).any()


def test_the_same_seed_gives_the_same_clip():
    first, second, other = clip_of(5), clip_of(5), clip_of(6)
    for field in fields(Clip):
        if field.name != "scenes":
            assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name
    assert all(
        torch.equal(getattr(first.scenes, f.name), getattr(second.scenes, f.name)) for f in fields(Scenes)
    )
    assert not torch.equal(first.frames, other.frames)


def test_more_pixels_show_the_same_clip():
    small, large = clip_of(3, frames=2), clip_of(3, frames=2, size=256)
    torch.testing.assert_close(F.avg_pool2d(large.backgrounds, 4), small.backgrounds, rtol=0, atol=5e-3)
    torch.testing.assert_close(small.ground_map, large.ground_map)
    away = solid(small)[:-1].expand(-1, 2, -1, -1)
    coarse = F.avg_pool2d(large.flow, 4) / 4
    torch.testing.assert_close(coarse[away], small.flow[away], rtol=0, atol=1e-3)


def test_refusals():
    generator = torch.Generator().manual_seed(0)
    scene = sample_scenes(1, generator=generator)
    with pytest.raises(ValueError, match="scene must be one scene, got 2"):
        render_clip(sample_scenes(2, generator=generator), generator=generator)
    with pytest.raises(ValueError, match="frames must be at least 2, got 1"):
        render_clip(scene, 1, generator=generator)
    with pytest.raises(ValueError, match="size must be at least 16 pixels, got 8"):
        render_clip(scene, 2, 8, generator=generator)
