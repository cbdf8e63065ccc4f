"""An edit of a clip as Text2LIVE released it: which frames a step sees, of what, and what it minimises."""

from dataclasses import replace

import pytest
import torch

from geokernels import world
from geokernels.models import AtlasShape, load_flow
from geokernels.pipelines import AtlasFitConfig, VideoEdit, VideoEditConfig, fit_atlas, prepare_footage
from geokernels.pipelines.video.atlas_view import atlas_picture, view_atlas, within_box

pytest.importorskip("cv2")
pytest.importorskip("open_clip")
pytestmark = pytest.mark.filterwarnings("default")
TEXTS = "a red object", "a blue object"
SMALL = VideoEditConfig(
    recipe="published",
    widths=(8, 8),
    steps=4,
    views=3,
    screen_views=3,
    short_side=40,
    border=4,
    whole_every=2,
)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def footage():
    truth = world.render_clip(world.sample_scenes(1, generator=chance(1)), 9, 40, generator=chance(1))
    return prepare_footage(truth.frames, load_flow(), masks=truth.masks)


@pytest.fixture(scope="module")
def atlas(footage):
    shape = AtlasShape(width=16, layers=2, map_layers=1, octaves=3, scale=0.8)
    how = {"steps": 100, "samples": 128, "learning_rate": 0.02, "bootstrap": 1.0, "bootstrapped": 2.0}
    return fit_atlas(footage, config=AtlasFitConfig(**how, shape=shape), generator=chance()).atlas


@pytest.fixture
def begin(footage, atlas, tiny_vit):
    def begin(config=SMALL, seed=0):
        return VideoEdit(footage, atlas, [tiny_vit], *TEXTS, config=config, generator=chance(seed))

    return begin


def terms(run, layer, sample):
    return {name: term for look in run._looks(sample) for name, term in look(layer).items()}


def test_the_settings_are_the_published_ones():
    config = VideoEditConfig(recipe="published")
    found = (
        config.steps,
        config.decay,
        config.learning_rate,
        config.structure,
        config.views,
        config.screen_views,
    )
    assert found == (3000, 0.999, 2.5e-3, 3.0, 6, 6)
    assert (config.sparsity, config.sparsity_count, config.sparsity_amount) == (0.1, 0.005, 0.01)
    assert (config.moments, config.apart, config.border, config.guess > 1) == (3, 2, 30, True)
    assert config.crop == (0.95, 1.0)
    assert VideoEditConfig(recipe="published", layer="background").crop == (0.8, 1.0)
    assert VideoEditConfig(layer="background").settled(object()).crop == (0.8, 1.0)
    assert VideoEditConfig(recipe="published", layer="background", crop=(0.5, 1.0)).crop == (0.5, 1.0)
    assert VideoEditConfig(recipe="world", layer="background").crop == (0.8, 1.0)
    with pytest.raises(ValueError, match="moments must be 1 where crops come again, got 3"):
        VideoEditConfig(recipe="world", moments=3)
    with pytest.raises(ValueError, match=r"zoom must be \(1.0, 1.0\) for a clip"):
        VideoEditConfig(recipe="published", zoom=(0.8, 1.2))


@pytest.mark.parametrize("layer", ["foreground", "background"])
def test_a_step_sees_three_frames_two_apart_and_now_and_then_the_whole_atlas(begin, footage, layer):
    run, asked, mirrored = begin(replace(SMALL, layer=layer, crop=(0.7, 1.0))), [], set()
    run.dataset.whole_frame = lambda index: asked.append(index) or run._working_view(index)
    for step in range(12):
        asked.clear()
        samples = run.dataset.samples(step)
        assert len(samples) == 3 + step % 2
        first = asked[0]
        assert asked == [first, first + 2, first + 4]
        assert first + 4 < len(footage)
        mirrored |= {sample.crop.mirrored for sample in samples[:3]}
        assert len({sample.crop.mirrored for sample in samples[:3]}) == 1
        for index, sample in zip(asked, samples):
            view = run._working_view(index)
            box = within_box(view.cover[0, 0] >= 0.95, 4) if layer == "foreground" else (0, 0, 40, 40)
            crop = sample.crop
            assert box[0] <= crop.top <= crop.top + crop.height <= box[0] + box[2]
            assert box[1] <= crop.left <= crop.left + crop.width <= box[1] + box[3]
            assert int(0.7 * box[2]) <= crop.height
            if crop.tint is None:
                assert torch.equal(sample.picture, crop.take(view.frame))
        if step % 2:
            assert torch.equal(samples[3].picture, run.source)
    assert mirrored == {False, True}


def test_a_step_minimises_the_mean_over_its_pictures_and_paints_once(begin):
    run, painted = begin(), []
    run.step()
    samples = run.dataset.samples(1)
    layer = run._layer_of(samples[0])
    parts = [terms(run, layer, sample) for sample in samples]
    expected = sum(run._weighted(part) / len(samples) for part in parts)
    slopes = torch.autograd.grad(expected, list(run.network.parameters()))
    paint = run._paint
    run._paint = lambda *given: painted.append(0) or paint(*given)
    run.step()
    assert len(painted) == 1
    for parameter, slope in zip(run.network.parameters(), slopes, strict=True):
        assert (parameter.grad - slope).abs().max() <= 2e-5 * max(1.0, slope.abs().max().item())
    found = dict(zip(run.terms, run.history[1].tolist(), strict=True))
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-5)
    for name in parts[0]:
        assert found[name] == pytest.approx(sum(part[name].item() for part in parts) / len(parts), rel=1e-4)


def test_a_mirrored_step_shows_the_network_a_mirrored_atlas(begin):
    run = begin()
    step = next(step for step in range(20) if run.dataset.samples(step)[0].crop.mirrored)
    sample = run.dataset.samples(step)[0]
    expected = run._paint(run.source.flip(-1), None).flip(-1)
    assert torch.equal(run._layer_of(sample), expected)
    assert not torch.allclose(expected, run._paint(run.source, None), atol=1e-4)


def test_a_resumed_edit_ends_in_the_same_frames_and_kept_views_change_nothing(begin, monkeypatch, tmp_path):
    whole, first = begin(), begin()
    while not whole.done:
        whole.step()
    first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    monkeypatch.setattr("geokernels.pipelines.video.moments.ROOM", 0)
    second = begin()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    while not second.done:
        second.step()
    assert whole.dataset.kept
    assert not second.dataset.kept
    assert torch.equal(whole.history, second.history)
    assert all(torch.equal(a, b) for a, b in zip(whole.frames(), second.frames(), strict=True))


def test_the_first_step_searches_nothing_and_bare_pixels_keep_their_bytes(begin, footage, atlas, monkeypatch):
    monkeypatch.setattr("geokernels.pipelines.video.atlas_edit.recolour", None)
    run = begin()
    run.step()
    assert run.start is None
    for index, frame in enumerate(run.frames()):
        bare = (atlas.look(index).opacity.view(1, 40, 40) <= 0.03).expand(3, -1, -1)
        assert bare.any()
        assert torch.equal(frame[bare], footage.frame(index)[bare])


def test_an_atlas_is_drawn_as_large_as_the_network_needs(begin, atlas):
    assert min(begin(replace(SMALL, widths=(8,) * 6)).source.shape[-2:]) == 65
    picture = atlas_picture(atlas, 0, 40)
    view = view_atlas(picture)
    layer = torch.rand(1, 4, *picture.rgb.shape[-2:], generator=chance(2))
    shown = view.shown(layer)
    assert torch.allclose(shown[:, :3], layer[:, :3], atol=1e-5)
    assert torch.allclose(shown[:, 3:], layer[:, 3:] * picture.seen, atol=1e-5)


def test_boxes_are_those_of_what_is_inside_and_of_its_surroundings():
    inside = torch.zeros(10, 12, dtype=torch.bool)
    assert within_box(inside, 1) is None
    inside[2:4, 7] = inside[3, 9] = True
    assert within_box(inside, 0) == (2, 7, 2, 3)
    assert within_box(inside, 4) == (0, 3, 8, 9)
