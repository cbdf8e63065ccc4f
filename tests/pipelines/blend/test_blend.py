"""A blend: given pictures to the bit at its ends, of any sizes, with transparency; colours that move."""

import pytest
import torch

from geokernels import world
from geokernels.media.pictures import Picture
from geokernels.pipelines import Blend, BlendConfig, Maps, MatchingConfig, blend_pictures
from geokernels.pipelines.blend.colours import find_moves, move_of
from geokernels.pipelines.blend.frames import over_white
from geokernels.pipelines.blend.places import pixels


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*size, seed=0):
    """A picture of bytes, as a file holds it."""
    return torch.randint(256, (3, *size), generator=chance(seed)).float() / 255


def still(first, second):
    """Maps that send each place to the same share of the other picture's sides, and are sure of it."""

    def to(here, there):
        scale = torch.tensor([(there[1] - 1) / (here[1] - 1), (there[0] - 1) / (here[0] - 1)])
        return pixels(torch.empty(1, *here)) * scale

    a, b = first.shape[1:], second.shape[1:]
    return Maps(to(a, b), to(b, a), torch.ones(a), torch.ones(b))


def film(first, second, *, frames=5, **how):
    rgb = [p.rgb if isinstance(p, Picture) else p for p in (first, second)]
    config = BlendConfig(frames=frames, grid=48, palette=64)
    return blend_pictures(first, second, config=config, maps=how.pop("maps", None) or still(*rgb), **how)


@pytest.mark.parametrize("sizes", [((40, 40), (40, 40)), ((40, 60), (60, 40)), ((17, 90), (64, 31))])
def test_the_ends_are_the_given_pictures_to_the_bit(sizes):
    first, second = (noise(*size, seed=i) for i, size in enumerate(sizes))
    found = film(first, second)
    H, W = found.frames.shape[2:]
    assert max(sizes[0][0], sizes[1][0]) == H
    assert max(sizes[0][1], sizes[1][1]) == W
    for frame, picture, alpha in zip(
        found.frames[[0, -1]],
        (first, second),
        found.alpha[[0, -1]] if found.alpha is not None else (None, None),
    ):
        h, w = picture.shape[1:]
        top, left = (H - h) // 2, (W - w) // 2
        inside = (slice(None), slice(top, top + h), slice(left, left + w))
        assert torch.equal(frame[inside], picture)
        if alpha is not None:
            assert alpha.sum() == h * w
            assert alpha[inside].min() == 1
    assert (found.alpha is None) is (sizes[0] == sizes[1])
    assert found.times.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_transparency_is_kept_and_moves_along():
    alpha = torch.zeros(1, 40, 40)
    alpha[:, 10:20, 10:20] = 1
    half = torch.full((1, 40, 40), 128 / 255)
    colour = noise(40, 40)
    first = Picture(colour * alpha + 1 - alpha, alpha)
    second = Picture(colour * half + 1 - half, half)
    run = Blend(first, second, config=BlendConfig(frames=3, grid=48), maps=still(colour, colour))
    run.finish()
    assert torch.equal(run.made[0][3:], (255 * alpha).byte())
    seen = (alpha == 1).expand(3, -1, -1)
    assert torch.equal(run.made[0][:3][seen], (255 * colour).round().byte()[seen])
    assert torch.equal(run.made[-1], torch.cat([(255 * colour).round(), 255 * half]).byte())
    middle = run.result().alpha[1, 0]
    assert middle[15, 15] > middle[30, 30] > 0.2
    # one that is opaque, and one that is not
    mixed = film(colour, second, frames=2)
    assert mixed.alpha[0].min() == 1
    assert torch.equal(mixed.frames[0], colour)


def test_what_moves_is_seen_once_on_its_way():
    """A bright square that is shifted: in the middle of the film it is whole, and nowhere else."""
    first, second = torch.full((2, 3, 64, 64), 0.2)
    first[:, 24:40, 8:24] = second[:, 24:40, 32:48] = 1.0
    move = torch.zeros(64, 64, 2)
    move[..., 0] = 24.0
    here = pixels(torch.empty(1, 64, 64))
    maps = Maps(here + move, here - move, torch.ones(64, 64), torch.ones(64, 64))
    middle = film(first, second, maps=maps, frames=3).frames[1, 0]
    assert middle[26:38, 22:34].min() > 0.98
    assert middle[:, :18].max() < 0.25
    assert middle[:, 38:].max() < 0.25


def test_where_a_picture_ends_the_other_goes_on():
    """A view that is shifted by a third: what only one of the two shows is not torn."""
    wide = torch.linspace(0.1, 0.9, 90).expand(3, 60, 90).contiguous()
    first, second = wide[:, :, :60].clone(), wide[:, :, 30:].clone()
    here, move = pixels(torch.empty(1, 60, 60)), torch.tensor([-30.0, 0.0])
    sure = torch.ones(60, 60)
    sure[:, :30] = 0  # of the first: out of the second's sight; of the second, mirrored
    maps = Maps(here + move, here - move, sure, sure.flip(1))
    found = film(first, second, maps=maps, frames=9).frames[:, 0, 30]
    steps = found.diff(dim=-1)
    assert steps.min() > -0.05  # a tear would be a third of the whole range
    assert steps.max() < 0.08


def test_colours_without_a_partner_move_and_do_not_fade():
    chances = torch.rand(2, 3, 32, 32, generator=chance(4))
    dark, bright = chances[0] * 0.3, 0.7 + chances[1] * 0.3
    moves = find_moves(dark, bright, palette=256, eps=0.005)
    there = dark + move_of(dark, moves.of_first)
    assert (there.mean((1, 2)) - bright.mean((1, 2))).abs().max() < 0.05
    assert there.std() == pytest.approx(float(bright.std()), rel=0.3)
    back = bright + move_of(bright, moves.of_second)
    assert (back.mean((1, 2)) - dark.mean((1, 2))).abs().max() < 0.05
    same = find_moves(dark, dark, palette=256, eps=0.005)
    assert move_of(dark, same.of_first).abs().max() < 1e-3
    clear = torch.cat([dark, torch.zeros(1, 32, 32)])
    assert find_moves(clear, torch.cat([bright, torch.ones(1, 32, 32)]), palette=64, eps=0.01) is None
    # without partners, both are of one palette half of the way
    lost = still(dark, bright)
    lost = lost._replace(confidence_a=0 * lost.confidence_a, confidence_b=0 * lost.confidence_b)
    middle = film(dark, bright, maps=lost, frames=3).frames[1]
    assert middle.mean() == pytest.approx(0.5, abs=0.03)


def test_a_resumed_blend_ends_as_one_that_was_never_stopped():
    pictures = world.render(world.sample_scenes(2, generator=chance(1)))
    config = BlendConfig(frames=4, palette=64, matching=MatchingConfig(points=16, first=16))
    whole = blend_pictures(*pictures, config=config)
    run = Blend(*pictures, config=config)
    run.step()
    run.step()
    again = Blend(*pictures, config=config)
    again.load_state_dict(run.state_dict())
    assert again.index == 2
    again.finish()
    assert torch.equal(again.result().frames, whole.frames)
    other = Blend(pictures[1], pictures[0], config=config)
    with pytest.raises(ValueError, match="made with another first"):
        other.load_state_dict(run.state_dict())


def test_pictures_that_do_not_fit_are_named():
    picture = noise(32, 32)
    for first, second, said in (
        (picture[:1], picture, r"first must have shape \(3, H, W\), got \(1, 32, 32\)"),
        (picture, 2 * picture + 1, "second must lie in"),
        (picture, noise(8, 32), "second must be at least 16 pixels a side, got 32 x 8"),
        (Picture(picture, torch.ones(1, 8, 8)), picture, "opacity of first must have shape"),
    ):
        with pytest.raises(ValueError, match=said):
            Blend(first, second)
    for fixed, said in (
        ([[1.0, 2.0]], r"fixed must have shape \(F, 4\)"),
        ([[1.0, 2.0, 40.0, 3.0]], "fixed points must lie in their pictures, B is 32 x 32"),
    ):
        with pytest.raises(ValueError, match=said):
            Blend(picture, picture, fixed=torch.tensor(fixed))
    mask = torch.zeros(32, 32)
    mask[:9] = 1
    with pytest.raises(ValueError, match=r"mask_b must have shape"):
        Blend(picture, picture, masks=(mask, mask[:8]))
    with pytest.raises(ValueError, match="give maps or masks"):
        Blend(picture, picture, masks=(mask, mask), maps=still(picture, picture))
    with pytest.raises(ValueError, match=r"maps\.to_a must have shape"):
        Blend(picture, noise(20, 20), maps=still(picture, picture))
    with pytest.raises(ValueError, match="frames must be at least 2, got 1"):
        BlendConfig(recipe="world", frames=1)


def test_what_lies_around_a_smaller_picture_is_transparent_and_white():
    first, second = noise(32, 32), noise(20, 40, seed=1)
    config = BlendConfig(frames=2, grid=48)
    run = Blend(first, second, config=config, maps=still(first, second))
    run.finish()
    rgb, alpha = over_white(run.made[0])
    assert rgb[:, alpha[0] == 0].min() == 1
    assert alpha[0, :, :4].max() == 0


def test_masks_are_a_part_of_a_run():
    pictures = world.render(world.sample_scenes(2, generator=chance(1)))
    config = BlendConfig(frames=2, palette=32, matching=MatchingConfig(points=16, first=16))
    mask = torch.zeros(64, 64)
    mask[16:48, 16:48] = 1
    plain, masked = (Blend(*pictures, config=config, masks=given) for given in (None, (mask, mask)))
    assert plain.facts["masks"] == "none"
    masked.step()
    with pytest.raises(ValueError, match="made with"):
        plain.load_state_dict(masked.state_dict())
    plain.step()
    assert not torch.equal(plain.maps.confidence_a, masked.maps.confidence_a)
