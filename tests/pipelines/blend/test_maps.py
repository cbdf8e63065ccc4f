"""Maps lead from the pixels of one picture to where they lie in another."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geokernels.models.dino import load_dino
from geokernels.pipelines.blend import dense, features, matching, motions, refinement, smoothing
from geokernels.pipelines.blend.fixed import Fixed
from geokernels.pipelines.blend.grids import plane
from geokernels.pipelines.blend.maps import Maps, MatchingConfig, find_maps, unfolded_share

pytest.importorskip("cv2")
QUICK = MatchingConfig(points=24, first=24)


def pattern(H, W, seed=0):
    """Blobs of many sizes in many colours, ``(3, H, W)``."""
    chance = torch.Generator().manual_seed(seed)
    planes = [
        F.interpolate(torch.randn(1, 3, *(max(2, side // step) for side in (H, W)), generator=chance), (H, W),
                      mode="bicubic")[0]
        for step in (32, 16, 8, 4)
    ]  # fmt: skip
    return (0.5 + 0.12 * sum(planes)).clamp(0, 1)


def still(H, W):
    return torch.stack(torch.meshgrid(torch.arange(W), torch.arange(H), indexing="xy"), -1).float()


WHOLE = pattern(140, 180)
A, B = WHOLE[:, :110, :128], WHOLE[:, 20:130, 35:163]  # B shows what lies 35 to the right and 20 below


def test_a_large_shift_is_found_both_ways_and_what_left_is_not_believed():
    said = []
    maps = find_maps(A, B, QUICK, progress=lambda *step: said.append(step))
    assert [part.shape for part in maps] == [(110, 128, 2), (110, 128, 2), (110, 128), (110, 128)]
    assert {part.dtype for part in maps} == {torch.float32}
    shared = (slice(22, 108), slice(37, 126))
    shift = torch.tensor([35.0, 20.0])
    error = (maps.to_b - (still(110, 128) - shift)).square().sum(-1).sqrt()
    assert error[shared].mean() < 0.3
    back = (maps.to_a - (still(110, 128) + shift)).square().sum(-1).sqrt()
    assert back[2:88, 2:91].mean() < 0.3
    assert maps.confidence_a[shared].mean() > 0.6
    assert maps.confidence_a[:, :30].mean() < 0.1
    assert all(float(part.min()) >= 0 and float(part.max()) <= 1 for part in maps[2:])
    assert said[-1] == ("refining", 2, 2)
    assert said[0][:2] == ("matching", 1)


def test_pictures_of_other_sizes_and_light():
    b = F.interpolate(A[None], (64, 96), mode="bilinear", antialias=True)[0] ** 1.3 * 0.8
    maps = find_maps(A, b, QUICK)
    wanted = (still(110, 128) + 0.5) * torch.tensor([96 / 128, 64 / 110]) - 0.5
    assert maps.to_a.shape == (64, 96, 2)
    assert (maps.to_b - wanted).square().sum(-1).sqrt().mean() < 0.5


def test_without_refinement_the_map_is_the_transports():
    coarse = find_maps(A, B, MatchingConfig(points=24, first=24, refine=False))
    error = (coarse.to_b - (still(110, 128) - torch.tensor([35.0, 20.0]))).square().sum(-1).sqrt()
    assert 0.1 < error[34:100, 50:120].mean() < 3


def test_the_same_call_gives_the_same_bits():
    for one, other in zip(find_maps(A, B, QUICK), find_maps(A, B, QUICK)):
        assert torch.equal(one, other)


def test_fixed_pairs_are_led_to_their_partners():
    # against what the pictures say, and beside each other
    pairs = torch.tensor([[60.0, 50.0, 80.0, 60.0], [70.0, 50.0, 88.0, 66.0], [20.0, 90.0, 10.0, 20.0]])
    maps = find_maps(A, B, QUICK, fixed=pairs)
    for x0, y0, x1, y1 in pairs.tolist():
        there = maps.to_b[int(y0), int(x0)]
        assert (there - torch.tensor([x1, y1])).abs().max() < 1
        assert (maps.to_a[int(y1), int(x1)] - torch.tensor([x0, y0])).abs().max() < 1
    # what is near is drawn along, what is far is not
    free = find_maps(A, B, QUICK)
    assert (maps.to_b - free.to_b)[52, 62].abs().max() > 10
    assert (maps.to_b - free.to_b)[100, 120].abs().max() < 3


def test_patches_of_a_model_are_taken_in_place_of_gradients(tiny_encoder):
    encoder = tiny_encoder()
    maps = find_maps(A, B, QUICK, encoder=encoder)
    assert all(part.isfinite().all() for part in maps)
    rows = features.describe(A, B, (6, 7), (5, 8), encoder)
    assert (rows[0].shape[0], rows[1].shape[0]) == (42, 40)
    with pytest.raises(TypeError, match="encoder must be a CLIP or a DINO, got str"):
        find_maps(A, B, QUICK, encoder="world")


@pytest.mark.parametrize(
    ("message", "a", "b", "fixed"),
    [
        ("b must have shape (3, H, W), got (1, 20, 20)", A, A[:1, :20, :20], None),
        ("a must be at least 16 pixels a side, got 128 x 12", A[:, :12], B, None),
        ("fixed must have shape (F, 4), got (2, 3)", A, B, torch.zeros(2, 3)),
        ("B is 128 x 110 pixels, got 128,3", A, B, torch.tensor([[0.0, 0.0, 128.0, 3.0]])),
        ("fixed must name each point of A once", A, B, torch.tensor([[1.0, 1, 2, 2], [1, 1, 9, 9]])),
        ("fixed must be finite, got NaN", A, B, torch.tensor([[1.0, 1, 2, torch.nan]])),
    ],
)
def test_refusals(message, a, b, fixed):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_maps(a, b, QUICK, fixed=fixed)


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("points must lie between 8 and 128, got 256", {"points": 256}),
        ("cost must be one of cosine, sqeuclidean, got 'lp'", {"cost": "lp"}),
        ("eps must be a finite number above 0, got 0", {"eps": 0}),
    ],
)
def test_refused_settings(message, settings):
    with pytest.raises(ValueError, match=re.escape(message)):
        MatchingConfig(**settings)


def test_levels_double_up_to_the_last():
    assert MatchingConfig(points=128, first=32).levels() == [32, 64, 128]
    assert MatchingConfig(points=100, first=32).levels() == [32, 64, 100]
    assert MatchingConfig(points=20, first=32).levels() == [20]


def test_light_and_tint_of_a_whole_picture_do_not_change_features():
    tinted = A * torch.tensor([0.7, 0.8, 0.6])[:, None, None] + 0.1
    one, other = (F.normalize(part, dim=1) for part in features.describe(A, tinted, (24, 28), (24, 28)))
    assert (one * other).sum(1).median() > 0.9


def test_a_window_forgets_what_disagrees_and_takes_the_prior_where_nothing_is_known():
    prior = torch.zeros(9, 9, 2)
    to = torch.full((9, 9, 2), 3.0)
    to[4, 4] = 40.0
    sure, colours = torch.ones(9, 9), torch.zeros(3, 9, 9)
    found = smoothing.smoothed(to, prior, sure, colours, 1.5)
    assert (found[4, 4] - 3).abs().max() < 0.3
    torch.testing.assert_close(smoothing.smoothed(to, prior, 0 * sure, colours, 1.5), prior)
    # two halves of other colours do not mix
    to[:, :4], to[4, 4], colours[:, :, :4] = -3.0, 3.0, 1.0
    found = smoothing.smoothed(to, prior, sure, colours, 1.5)
    assert (found[:, 3] + 3).abs().max() < 0.6
    assert (found[:, 4] - 3).abs().max() < 0.6


def test_the_guided_filter_is_a_regression_on_colours_in_windows():
    chance = np.random.default_rng(0)
    guide, values = (chance.random((12, 13, k)).astype(np.float32) for k in (3, 2))
    weight = chance.random((12, 13)).astype(np.float32)
    slope, level = dense.regressed(guide, values, weight, 2)
    rows = slice(3, 8), slice(4, 9)  # the window about (5, 6)
    g, v, w = (part[rows].reshape(25, -1).astype(np.float64) for part in (guide, values, weight[..., None]))
    w = w / w.sum()
    around = g - (w * g).sum(0)
    wanted = np.linalg.solve(around.T @ (w * around) + dense.FILTER_EPS * np.eye(3), around.T @ (w * v))
    np.testing.assert_allclose(slope[5, 6].reshape(3, 2), wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(level[5, 6], (w * v).sum(0) - (w * g).sum(0) @ wanted, rtol=1e-3, atol=1e-3)


def test_blurs_are_those_of_opencv():
    import cv2

    planes = torch.rand(1, 2, 20, 33, generator=torch.Generator().manual_seed(0))
    blurred = features._blurred(planes, 2.0)
    for ours, plane_ in zip(blurred[0].numpy(), planes[0].numpy()):
        theirs = cv2.GaussianBlur(plane_, (13, 13), 2.0, borderType=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(ours, theirs, atol=2e-3)  # of windows that end at three widths


def test_a_ground_and_what_moves_before_it_have_a_motion_each():
    here, sure = plane((32, 32)), torch.ones(32, 32)
    to, colours = here + torch.tensor([0.3, -0.1]), torch.zeros(3, 32, 32)
    to[10:24, 8:24], colours[:, 10:24, 8:24] = here[10:24, 8:24] - 0.4, 1.0
    wanted = to.clone()
    chance = torch.Generator().manual_seed(0)
    lost = torch.rand(32, 32, generator=chance) < 0.3
    to[lost] = 2 * torch.rand(int(lost.sum()), 2, generator=chance) - 1
    found = motions.affine_motions(to, sure, colours)
    assert (found - wanted).abs().amax(2).flatten().quantile(0.95) < 0.03
    # where points go anywhere they are left in their places, or nearly
    to = 2 * torch.rand(32, 32, 2, generator=chance) - 1
    assert motions.affine_motions(to, 0 * sure, colours).equal(here)


def test_likeness_is_a_correlation_that_light_does_not_change():
    a = refinement.Look.of(A)
    lit = refinement.Look.of(0.2 + 0.5 * A)
    here = refinement.pixels(a.size)
    shared = np.ones(a.size, bool)
    assert refinement.likeness(a, lit, here, shared).min() > 0.98
    assert np.median(refinement.likeness(a, lit, here + 12, shared)) < 0.6
    # what is not shared does not count, for better or worse
    left = here.copy()
    left[:, :60] += 12
    shared[:, :60] = False
    assert refinement.likeness(a, lit, left, shared)[:, 75:].min() > 0.98


def test_folds_are_smoothed_away_and_nothing_else_is():
    smooth = refinement.pixels((60, 80)) + np.float32([3, 2])
    np.testing.assert_array_equal(refinement.unfolded(smooth), smooth)
    torn = smooth.copy()
    torn[20:40, 30:50] += np.float32([-9, 4])
    assert unfolded_share(torch.from_numpy(torn)) < 1
    mended = refinement.unfolded(torn)
    assert unfolded_share(torch.from_numpy(mended)) > unfolded_share(torch.from_numpy(torn))
    np.testing.assert_allclose(mended[:5], smooth[:5], atol=1e-3)


def test_a_map_drawn_through_pairs_goes_through_them():
    at = torch.tensor([[-0.5, 0.25], [0.1, 0.3], [0.8, -0.9]])
    pairs = Fixed(at, at + torch.tensor([[0.2, -0.1], [0.3, 0.3], [-0.5, 0.4]]))
    drawn = pairs.draw(plane((60, 90)), (60, 90))
    found = F.grid_sample(drawn.permute(2, 0, 1)[None], at[None, None], align_corners=False)[0, :, 0].T
    torch.testing.assert_close(found, pairs.at_b, atol=5e-3, rtol=0)


def test_points_are_matched_without_opencv(monkeypatch):
    found = matching.match_grids(
        A, B, QUICK, encoder=None, fixed=None, masks=None, progress=lambda stage, done, total: None
    )
    assert found.to_b.shape == (*found.confidence_a.shape, 2)
    assert isinstance(Maps(*found), tuple)


def test_masks_say_which_of_two_twins_is_meant():
    """An object of A is in B twice: each mask of B leads there, and to no other place."""
    thing, a, b = 0.5 + pattern(24, 24, 5) / 2, pattern(64, 96, 1) / 2, pattern(64, 96, 2) / 2
    a[:, 20:44, 36:60] = b[:, 20:44, 4:28] = b[:, 20:44, 68:92] = thing
    of_a, left, right = (torch.zeros(64, 96) for _ in range(3))
    of_a[20:44, 36:60] = left[20:44, 4:28] = right[20:44, 68:92] = 1
    inner, shifts = (slice(24, 40), slice(40, 56)), {}
    for name, masks in (("left", (of_a, left)), ("right", (of_a, right))):
        maps = find_maps(a, b, MatchingConfig(points=32, first=32), masks=masks)
        shifts[name] = float((maps.to_b - still(64, 96))[inner][..., 0].median())
        assert maps.confidence_a[inner].mean() > 0.3
        # nothing is believed that leads out of one mask and into the other's outside
        there = refinement.resampled(masks[1].numpy(), maps.to_b.numpy())
        crossed = torch.from_numpy(np.abs(masks[0].numpy() - there)) > 0.9
        assert maps.confidence_a[crossed].sum() <= 0.1 * crossed.sum()
    assert shifts["left"] == pytest.approx(-32, abs=2)
    assert shifts["right"] > 26  # which is farther than the other


def test_masks_that_say_nothing_are_refused():
    good, other = torch.zeros(110, 128), torch.zeros(110, 120)
    good[:50] = other[:50] = 1
    for masks, said in (
        ((good, other), r"mask_b must have shape \(H, W\) = \(110, 128\), got \(110, 120\)"),
        ((good * 0, good), r"mask_a must have an inside and an outside, got 0% inside"),
        ((good, good * 0 + 1), r"mask_b must have an inside and an outside, got 100% inside"),
        ((good, 2 * good), r"mask_b must lie in \[0, 1\]"),
        ((good,), "masks must be two, one of each picture, got 1"),
    ):
        with pytest.raises(ValueError, match=said):
            find_maps(A, B, QUICK, masks=masks)


def test_a_map_is_continued_from_the_nearest_place_that_is_known():
    known = np.zeros((6, 8), bool)
    known[:, :3] = True
    moved = refinement.pixels((6, 8))
    moved[:, 2] += np.float32([5, -1])
    found = refinement._continued(moved, known) - refinement.pixels((6, 8))
    np.testing.assert_allclose(found[:, 2:], np.broadcast_to(np.float32([5, -1]), (6, 6, 2)))
    np.testing.assert_allclose(found[:, :2], 0, atol=1e-6)
    folded = refinement.pixels((6, 8))
    folded[:, 4:, 0] -= 6  # what lies within a mask moves before the rest
    apart = refinement.unfolded_apart(folded, np.arange(8)[None].repeat(6, 0) >= 4)
    np.testing.assert_allclose(apart, folded, atol=1e-5)
    assert np.abs(refinement.unfolded(folded) - folded).max() > 0.5


def test_the_keys_of_a_dino_are_matched(tmp_path):
    """One of random weights, saved as DINO's are: what it sees leads, and not colours and gradients."""
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "dino.pth")
    dino = load_dino(tmp_path / "dino.pth", architecture="test_vit")
    seen = features.describe(A, A, (12, 12), (12, 12), dino)
    assert torch.equal(*seen)
    keys = dino(A[None])[:, 1:]
    side = int(keys.shape[1] ** 0.5)
    own = features.describe(A, B, (side, side), (side, side), dino)[0]
    # axes are turned and cut, and distances are the keys' own
    apart = torch.cdist(keys[0], keys[0])
    assert (torch.cdist(own, own) <= apart + 1e-3).all()
    assert torch.cdist(own, own).sum() > 0.8 * apart.sum()
    maps = find_maps(A, A, MatchingConfig(points=24, first=24, refine=False), encoder=dino)
    error = (maps.to_b - still(110, 128)).square().sum(-1).sqrt()[20:-20, 20:-20]
    assert error.mean() < 2
    other = find_maps(A, B, MatchingConfig(points=24, first=24, refine=False), encoder=dino)
    plain = find_maps(A, B, MatchingConfig(points=24, first=24, refine=False))
    assert (other.to_b - plain.to_b).abs().mean() > 0.5
