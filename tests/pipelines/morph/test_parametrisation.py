"""Every parametrisation paints any size, reaches its parameters, and leaves alone what it does not edit."""

import pytest
import torch

from geokernels.models import load_clip
from geokernels.pipelines import ClipInversion, LayerEdit
from geokernels.pipelines.guidance.views import draw_views, look
from geokernels.pipelines.morph.edit_network import BAND, by_bands
from geokernels.pipelines.morph.parametrisation import PARAMETRISATIONS, parametrise

SETTINGS = {"scale": (0.7, 1.1), "shift": 0.1, "jitter": 0.05, "noise": 0.05, "blurred": 0.5}


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(H, W, seed=0):
    return torch.rand(1, 3, H, W, generator=chance(seed))


# one pixel, odd sides, a strip, and a size that needs no padding
@pytest.mark.parametrize("size", [(1, 1), (17, 23), (5, 40), (32, 32)], ids=str)
@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_any_size_stays_in_range_and_gradients_reach_every_parameter(name, size):
    source = picture(*size)
    edit = parametrise(name, source, generator=chance())
    painted, penalties = edit(source)
    assert painted.shape == source.shape
    assert painted.min() >= 0
    assert painted.max() <= 1
    loss = (painted * picture(*size, seed=1)).sum() + sum(penalties.values())
    grads = torch.autograd.grad(loss, list(edit.parameters()))
    assert all(torch.isfinite(grad).all() for grad in grads)
    if min(size) > 16:
        assert all(grad.any() for grad in grads)


@pytest.mark.parametrize("name", ["fourier", "pixels"])
def test_a_change_starts_at_the_source(name):
    source = picture(16, 12)
    edit = parametrise(name, source, generator=chance())
    assert torch.equal(edit(source)[0], source)
    assert torch.equal(edit.render(source, source), source)


def test_the_edit_layer_starts_half_opaque_and_repeats_by_seed():
    source = picture(32, 32)
    first, second = (parametrise("layer", source, generator=chance(3)) for _ in range(2))
    assert torch.equal(first(source)[0], second(source)[0])
    assert first(source)[1]["opacity"].item() == pytest.approx(0.5, abs=0.2)


def test_a_transparent_edit_keeps_every_detail_of_a_larger_picture():
    source, full = picture(16, 16), picture(64, 64, seed=1)
    edit = parametrise("layer", source, generator=chance())
    with torch.no_grad():
        edit.head.bias[3] = -100
    assert torch.equal(edit.render(source, full), full)


def test_a_low_frequency_step_is_larger_than_a_high_one():
    edit = parametrise("fourier", picture(32, 32), generator=chance())
    with torch.no_grad():
        edit.spectrum[0, 0, 0, 1, 0] = 1
        low = edit.change().abs().max()
        edit.spectrum.zero_()
        edit.spectrum[0, 0, 0, 16, 0] = 1
        high = edit.change().abs().max()
    assert low > 4 * high


def test_unknown_parametrisation_is_refused():
    with pytest.raises(ValueError, match="parametrisation must be one of layer, fourier, pixels, got 'clay'"):
        parametrise("clay", picture(4, 4), generator=chance())


def test_views_repeat_by_seed_and_share_crops_over_sizes():
    small, again, large = (draw_views(6, size, **SETTINGS, generator=chance(5)) for size in (16, 16, 32))
    assert all(torch.equal(a, b) for a, b in zip(small, again))
    assert torch.equal(small.maps, large.maps)
    assert torch.equal(small.blurred, large.blurred)


def test_two_pictures_under_shared_views_differ_only_where_they_differ():
    views = draw_views(4, 16, **SETTINGS, generator=chance())
    source = picture(20, 30)
    assert torch.equal(look(source, views), look(source.clone(), views))
    lighter = look(source + 0.25, views) - look(source, views)
    assert torch.allclose(lighter, torch.full_like(lighter, 0.25), atol=1e-5)


def test_a_still_view_shows_the_picture():
    still = {"scale": (1.0, 1.0), "shift": 0.0, "jitter": 0.0, "noise": 0.0, "blurred": 0.0}
    source = picture(16, 16)
    seen = look(source, draw_views(2, 16, **still, generator=chance()))
    assert torch.allclose(seen, source.expand(2, -1, -1, -1), atol=1e-5)


def test_a_large_picture_is_averaged_and_not_skipped():
    still = {"scale": (1.0, 1.0), "shift": 0.0, "jitter": 0.0, "noise": 0.0, "blurred": 0.0}
    # columns alternate: every sample of a skipping view would be 0 or 1
    stripes = (torch.arange(256) % 2).float().expand(1, 3, 256, 256)
    seen = look(stripes, draw_views(1, 16, **still, generator=chance()))
    assert (seen - 0.5).abs().max() < 0.1


def test_a_large_picture_is_mixed_by_bands_as_at_once():
    ground, layer = (torch.rand(1, c, 3 * BAND + 5, 7, generator=chance(c)) for c in (3, 4))
    mix = lambda ground, layer: ground * (1 - layer[:, 3:]) + layer[:, :3] * layer[:, 3:]  # noqa: E731
    assert torch.equal(by_bands(mix, ground, layer), mix(ground, layer))


@pytest.mark.parametrize("kind", [ClipInversion, LayerEdit])
def test_a_preview_is_the_picture_made_small(kind):
    smooth = torch.nn.functional.interpolate(picture(6, 8), (300, 400))[0]
    run = kind(smooth, [load_clip()], "a red circle", "a blue circle", generator=chance())
    assert torch.equal(run.preview(400), run.picture())
    small = run.preview(200)
    assert small.shape == (3, 150, 200)
    shrunk = torch.nn.functional.interpolate(run.picture()[None], (150, 200), mode="bilinear", antialias=True)
    assert (small - shrunk[0]).abs().mean() < 0.02
    assert run.preview(10).shape == run.source.shape[1:]
