"""The motion between two pictures: it follows the maps, holds what is fixed, and folds nothing over."""

import pytest
import torch
import torch.nn.functional as F

from geokernels.pipelines.blend.maps import Maps
from geokernels.pipelines.blend.places import Places, pixels, sample
from geokernels.pipelines.blend.warp import Motion, _unfolded, areas, find_motion, missed

HOW = {"grid": 48, "doubt": 0.3, "least_area": 0.1, "fixed_reach": 0.15}


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def maps_of(move, size, *, sure=1.0):
    """Maps of two pictures of one size, by a way there and back of every place."""
    here = pixels(torch.empty(1, *size))
    sure = torch.full(size, sure)
    return Maps(here + move, here - move, sure, sure)


def both(maps, places, t, **how):
    motion = find_motion(maps, places, **{**HOW, **how})
    return motion, motion.origins(t, places.size)


@pytest.mark.parametrize("size", [(96, 96), (64, 100), (33, 120)])
def test_a_shift_moves_everything_by_its_share(size):
    places, move = Places.of(size, size), torch.tensor([12.0, -6.0])
    for t in (0.25, 0.5, 0.9):
        motion, (first, second) = both(maps_of(move, size), places, t)
        inside = (slice(12, -12), slice(16, -16))  # beyond, one of the two has no such place
        here = pixels(torch.empty(1, *size))
        assert (first + t * move - here)[inside].abs().max() < 0.3
        assert (second - (1 - t) * move - here)[inside].abs().max() < 0.3
        assert motion.folded == 0


def test_pictures_of_other_sizes_meet_in_the_middle_of_the_frame():
    places = Places.of((40, 60), (60, 40))
    assert places == ((60, 60), (0, 10), (10, 0), ((40, 60), (60, 40)))
    # the same place of the frame in both
    to_b = pixels(torch.empty(1, 40, 60)) + torch.tensor([-10.0, 10.0])
    to_a = pixels(torch.empty(1, 60, 40)) + torch.tensor([10.0, -10.0])
    maps = Maps(to_b, to_a, torch.ones(40, 60), torch.ones(60, 40))
    motion, (first, second) = both(maps, places, 0.3)
    assert motion.shift.abs().max() < 1e-3
    torch.testing.assert_close(first, pixels(torch.empty(1, 60, 60)), rtol=0, atol=1e-2)
    torch.testing.assert_close(second, first, rtol=0, atol=1e-2)


def test_both_pictures_are_read_where_one_place_lies_in_them():
    """What makes ghosts is that two maps do not agree; one motion does, whatever it was made of."""
    size, places = (64, 64), Places.of((64, 64), (64, 64))
    noise = torch.randn(2, 64, 64, 2, generator=chance()) * 3
    maps = maps_of(torch.tensor([4.0, 2.0]), size)
    maps = maps._replace(to_b=maps.to_b + noise[0], to_a=maps.to_a + noise[1])
    for t in (0.1, 0.5, 0.8):
        _, (first, second) = both(maps, places, t)
        # the place in the frame is on the straight way from the one to the other
        met = torch.lerp(first, second, t)
        torch.testing.assert_close(met, pixels(torch.empty(1, 64, 64)), rtol=0, atol=0.05)


def test_a_place_without_a_match_follows_its_surroundings():
    size, places, move = (64, 64), Places.of((64, 64), (64, 64)), torch.tensor([6.0, 0.0])
    maps = maps_of(move, size)
    hole = (slice(24, 40), slice(24, 40))
    for to, sure in ((maps.to_b, maps.confidence_a), (maps.to_a, maps.confidence_b)):
        to[hole], sure[hole] = 1000.0, 0.0
    motion, _ = both(maps, places, 0.5)
    assert (2 * motion.cell * motion.shift[0, 12:20, 12:20] - 6).abs().max() < 0.5


def test_where_nothing_matches_nothing_moves():
    maps = maps_of(torch.tensor([20.0, 5.0]), (64, 64), sure=0.0)
    motion, _ = both(maps, Places.of((64, 64), (64, 64)), 0.5)
    assert motion.shift.abs().max() == 0


FOLDS = {
    "two halves that change places": lambda x, y: torch.where(x < 32, 40.0, -40.0),
    "a strip that runs through the others": lambda x, y: torch.where((x > 24) & (x < 40), 30.0, 0.0),
    "noise": lambda x, y: 20 * torch.randn(x.shape, generator=chance(3)),
}


@pytest.mark.parametrize("name", FOLDS)
def test_nothing_is_folded_over_at_any_time(name):
    size, places = (64, 64), Places.of((64, 64), (64, 64))
    here = pixels(torch.empty(1, *size))
    move = torch.stack([FOLDS[name](*here.unbind(-1)), torch.zeros(size)], -1)
    motion, _ = both(maps_of(move, size), places, 0.5, doubt=1e-3)
    assert motion.folded > 0
    assert areas(motion.shift).min() >= HOW["least_area"]
    for t in (0.05, 0.35, 0.65, 0.95):
        first, _ = motion.origins(t, size)
        across, down = first.diff(dim=1)[:-1], first.diff(dim=0)[:, :-1]
        turned = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
        assert turned.min() > 0


def test_areas_are_the_least_on_the_whole_way():
    shift = 0.4 * torch.randn(2, 5, 5, generator=chance(1))
    here = pixels(shift).permute(2, 0, 1)
    least = torch.full((4, 4), torch.inf)
    for s in torch.linspace(-1, 1, 401).tolist():
        at = here + s * shift
        corners = at[:, :-1, :-1], at[:, :-1, 1:], at[:, 1:, 1:], at[:, 1:, :-1]
        for i in range(4):
            a, b = corners[(i + 1) % 4] - corners[i], corners[(i - 1) % 4] - corners[i]
            least = torch.minimum(least, a[0] * b[1] - a[1] * b[0])
    torch.testing.assert_close(areas(shift), least, rtol=0, atol=1e-3)


def test_a_motion_that_cannot_be_smoothed_is_made_smaller():
    shift = pixels(torch.empty(1, 3, 3)).permute(2, 0, 1) * -1.5
    assert areas(_unfolded(shift, 0.1)).min() >= 0.1


def test_fixed_pairs_are_held_and_draw_along_what_is_near():
    size, places = (96, 96), Places.of((96, 96), (96, 96))
    fixed = torch.tensor([[30.0, 30.0, 38.0, 30.0], [70.0, 60.0, 70.0, 54.0]])
    motion, (first, _) = both(maps_of(torch.zeros(2), size), places, 1.0, fixed=fixed)
    assert missed(motion, fixed, places) < 0.2
    found = sample(first.permute(2, 0, 1), fixed[:, 2:][None])[:, 0].T
    torch.testing.assert_close(found, fixed[:, :2], rtol=0, atol=0.5)
    near = 2 * motion.cell * sample(motion.shift, torch.tensor([[[18.0, 15.0]]]))[0]
    assert 4 < near < 8


def test_places_are_found_where_motion_is_strong():
    """Newton's method, on a motion that comes near to folding."""
    wave = torch.sin(pixels(torch.empty(1, 40, 40)) / 4).permute(2, 0, 1).flip(0)
    motion = Motion(_unfolded(6 * wave, 0.1), 1, 0.0)
    assert areas(motion.shift).min() < 0.2
    for s in (-0.9, 0.6, 1.0):
        place = motion._places(s)
        back = place + s * sample(motion.shift, place).permute(1, 2, 0) - pixels(motion.shift)
        inside = F.pad(torch.ones(32, 32), (4,) * 4).bool()
        assert back[inside].norm(dim=-1).quantile(0.99) < 0.1
