"""Views as Text2LIVE releases them: their ranges, how often each change comes, and what each does."""

import math

import pytest
import torch
import torch.nn.functional as F

from geokernels.pipelines.guidance.photo_views import (
    PhotoView,
    Tint,
    draw_photo_views,
    draw_tint,
    fitted,
    look_at_photo,
)

pytest.importorskip("torchvision")
PLAIN = PhotoView(None, False, None, None, None, False)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(*sides, dtype=torch.float64):
    return torch.rand(1, 3, *sides, generator=chance(1), dtype=dtype)


def see(x, fill=1.0, side=32, **changes):
    return look_at_photo(x, [PLAIN._replace(**changes)], side, fill=fill)


def test_the_draws_have_the_published_ranges_and_shares():
    views = [view for seed in range(250) for view in draw_photo_views(16, chance(seed))]
    assert draw_photo_views(16, chance(3)) == draw_photo_views(16, chance(3))
    assert all((view.crop is None) == (i % 16 == 0) for i, view in enumerate(views))
    crops = torch.tensor([view.crop for view in views if view.crop])
    assert 0.6 <= crops[:, 0].min() < 0.61
    assert 0.99 < crops[:, 0].max() <= 1
    turns = torch.tensor([view.turn for view in views if view.turn])
    for column, most in zip(turns.T, (15, 0.1, 0.1), strict=True):
        assert -most <= column.min() < -0.95 * most
        assert 0.95 * most < column.max() <= most
    shares = {
        "mirrored": sum(view.mirrored for view in views),
        "turned": len(turns),
        "aside": sum(view.corners is not None for view in views),
        "tinted": sum(view.tint is not None for view in views),
        "grey": sum(view.grey for view in views),
    }
    # of 4000 draws, four standard deviations of the widest
    for name, share in {"mirrored": 0.5, "turned": 0.8, "aside": 0.5, "tinted": 0.7, "grey": 0.15}.items():
        assert shares[name] / 4000 == pytest.approx(share, abs=0.032), name
    tints = torch.tensor([view.tint.factors for view in views if view.tint])
    for column, middle in zip(tints.T, (1, 1, 1, 0), strict=True):
        assert middle - 0.1 <= column.min() < middle - 0.09
        assert middle + 0.09 < column.max() <= middle + 0.1
    assert {view.tint.order[0] for view in views if view.tint} == {0, 1, 2, 3}


# the shorter side is 224 until the longer would pass 320
@pytest.mark.parametrize(
    ("sides", "expected"),
    [((512, 512), (224, 224)), ((512, 683), (224, 298)), ((683, 512), (298, 224)), ((400, 1200), (106, 320))],
    ids=str,
)
def test_views_keep_the_proportions(sides, expected):
    assert fitted(sides, 224, 320) == expected


def test_a_view_to_which_nothing_is_done_is_the_picture_resized_without_smoothing():
    x = picture(64, 80)
    expected = F.interpolate(x, (32, 40), mode="bilinear", align_corners=False)
    assert torch.equal(see(x), expected)
    assert torch.equal(see(x, mirrored=True), expected.flip(-1))
    # half of the sides, from the lower right
    part = F.interpolate(x[..., 32:, 40:], (32, 40), mode="bilinear", align_corners=False)
    assert torch.equal(see(x, crop=(0.5, 0.99999, 0.99999)), part)
    grey = (expected * torch.tensor([0.2989, 0.587, 0.114], dtype=x.dtype).view(3, 1, 1)).sum(1, True)
    assert torch.allclose(see(x, grey=True), grey.expand_as(expected))


def test_a_shift_moves_whole_pixels_and_fills():
    x = picture(32, 32)
    moved = see(x, turn=(0.0, 0.1, 0.0), fill=0.25)  # 3 pixels to the right
    assert torch.allclose(moved[..., 3:], x[..., :-3], atol=1e-6)
    assert torch.allclose(moved[..., :3], torch.full_like(moved[..., :3], 0.25))


def test_a_turn_keeps_the_centre_and_is_one_of_its_angle():
    rows, columns = torch.meshgrid(*[torch.arange(33, dtype=torch.float64) - 16] * 2, indexing="ij")
    x = (0.5 + columns / 100).expand(1, 3, 33, 33)
    turned = see(x, turn=(15.0, 0.0, 0.0), side=33)
    angle = math.radians(15)
    back = columns * math.cos(angle) + rows * math.sin(angle)  # where a pixel came from
    inside = (rows**2 + columns**2 < 15**2).expand(1, 3, 33, 33)
    assert torch.allclose(turned[inside], (0.5 + back / 100).expand_as(x)[inside], atol=1e-5)


def test_seen_from_aside_the_corners_go_inwards_as_far_as_drawn():
    x = torch.zeros(1, 3, 33, 33, dtype=torch.float64)
    # the upper corners by all that is allowed, 0.4 of half a side; the lower stay
    seen = see(x, corners=(0.999, 0.999, 0.999, 0.999, 0.0, 0.0, 0.0, 0.0), side=33)
    dark = seen[0, 0] < 0.5
    assert dark[32, 1:32].all()
    assert not dark[:5].any()
    across = dark[7].nonzero()
    assert across.min() in (5, 6, 7)
    assert across.max() in (25, 26, 27)


def test_a_tint_multiplies_blends_and_turns_the_hue():
    x = picture(8, 8)
    only = (1.0, 1.0, 1.0, 0.0)
    assert torch.allclose(Tint((1.1, *only[1:]), (0, 1, 2, 3)).on(x), (1.1 * x).clamp(0, 1), atol=1e-6)
    grey = (x * torch.tensor([0.2989, 0.587, 0.114], dtype=x.dtype).view(3, 1, 1)).sum(1, True)
    contrast = (0.9 * x + 0.1 * grey.mean()).clamp(0, 1)
    assert torch.allclose(Tint((1.0, 0.9, 1.0, 0.0), (1, 0, 2, 3)).on(x), contrast, atol=1e-6)
    paler = (0.9 * x + 0.1 * grey).clamp(0, 1)
    assert torch.allclose(Tint((1.0, 1.0, 0.9, 0.0), (3, 2, 1, 0)).on(x), paler, atol=1e-6)
    red = torch.tensor([1.0, 0.0, 0.0], dtype=x.dtype).view(1, 3, 1, 1)
    orange = Tint((1.0, 1.0, 1.0, 1 / 12), (0, 1, 2, 3)).on(red)
    assert torch.allclose(orange.flatten(), torch.tensor([1.0, 0.5, 0.0], dtype=x.dtype), atol=1e-6)
    assert draw_tint(chance(5)) == draw_tint(chance(5))


def test_gradients_pass_through_all_of_it():
    x = picture(24, 20, dtype=torch.float32).requires_grad_()
    views = draw_photo_views(8, chance(2))
    seen = look_at_photo(x, views, 16, fill=1.0)
    assert seen.shape == (8, 3, 19, 16)
    (seen - 0.5).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad != 0).float().mean() > 0.9
