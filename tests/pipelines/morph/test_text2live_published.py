"""Text2LIVE as released: every term against its formula, the schedule, the crops, a resumed run, no harm."""

import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from geokernels.models.clip_proportions import encode_whole, encode_words, tokens_of_whole
from geokernels.pipelines import LayerEdit, LayerEditConfig
from geokernels.pipelines.guidance.photo_views import look_at_photo
from geokernels.pipelines.morph.crops import draw_crop

pytest.importorskip("open_clip")
pytestmark = pytest.mark.filterwarnings("default")
TEXTS = "a horse", "a golden horse"
FULL = LayerEditConfig(recipe="published")
SMALL = replace(FULL, widths=(8, 8), steps=4, views=4, screen_views=4, short_side=40, whole_every=2)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(H=48, W=64):
    return torch.rand(3, H, W, generator=chance(1))


@pytest.fixture
def begin(tiny_vit):
    def begin(given=None, config=SMALL, seed=0, **how):
        given = picture() if given is None else given
        return LayerEdit(given, [tiny_vit], *TEXTS, config=config, generator=chance(seed), **how)

    return begin


def finish(run):
    while not run.done:
        run.step()
    return run


def angle(x, y):
    """Between rows and one text, in float64."""
    x, y = F.normalize(x.double(), dim=-1), F.normalize(y.double(), dim=-1)
    return 2 * ((x - y).norm(dim=-1) / 2).arcsin().square().mean()


def expected_terms(run, encoder, sample):
    """Each term of a sample by its formula, template by template, in float64."""
    layer = run._paint(sample.picture, None)
    colour, opacity = layer[:, :3], layer[:, 3:]
    composite = opacity * colour + (1 - opacity) * sample.picture
    green = torch.tensor([0, 177 / 255, 64 / 255]).view(1, 3, 1, 1)
    screened = opacity * colour + (1 - opacity) * green

    def features(x):
        return encode_whole(encoder, look_at_photo(x, sample.views[0], 32, fill=1.0)).double()

    def similarity(x):
        H, W = x.shape[-2:]
        sides = (32, int(32 * W / H)) if H <= W else (int(32 * H / W), 32)
        x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
        tokens = tokens_of_whole(encoder, x).double()[0]
        lengths = tokens.norm(dim=-1)
        return (tokens @ tokens.T) / (lengths[:, None] * lengths[None])

    before, after = encode_words(encoder, TEXTS, FULL.templates).double()
    alone = encode_words(encoder, TEXTS[1:], FULL.screen_templates)[0].double()
    drawn = [run.guidance._drawn(n, sample.step, end) for n, end in ((14, 0), (14, 1), (2, 2))]
    change = features(composite) - features(sample.picture)
    directions = [1 - F.cosine_similarity(change, after[t] - before[t], dim=-1).mean() for t in drawn[1]]
    alpha = opacity.double()
    return {
        "spherical": sum(angle(features(composite), after[t]) for t in drawn[0]) / len(drawn[0]),
        "directional": sum(directions) / len(directions),
        "structure": (similarity(composite) - similarity(sample.picture)).square().mean(),
        "screen": sum(angle(features(screened), alone[t]) for t in drawn[2]) / len(drawn[2]),
        "sparsity": 0.01 * (2 * (1 / (1 + (-5 * alpha).exp()) - 0.5)).mean() + 0.01 * alpha.mean(),
    }


def test_every_term_is_its_formula_averaged_over_crop_and_whole_picture(begin, tiny_vit):
    run = begin()
    samples = run.dataset.samples(0)
    assert len(samples) == 2
    assert torch.equal(samples[1].picture, run.source)
    with torch.no_grad():
        parts = [expected_terms(run, tiny_vit, sample) for sample in samples]
    run.step()
    found = dict(zip(run.terms, run.history[0].double(), strict=True))
    weights = {"spherical": 1.0, "directional": 1.0, "structure": 2.0, "screen": 1.0, "sparsity": 6.0}
    assert set(found) == {"loss", *weights}
    for name in weights:
        assert found[name].item() == pytest.approx((parts[0][name] + parts[1][name]).item() / 2, abs=2e-5)
    assert found["loss"].item() == pytest.approx(sum(w * found[n].item() for n, w in weights.items()), 1e-5)


def test_gradients_of_two_samples_are_those_of_their_mean(begin):
    run = begin()
    total = 0
    for sample in run.dataset.samples(0):
        layer = run._layer_of(sample)
        for look in run._looks(sample):
            total = total + run._weighted(look(layer)) / 2
    expected = torch.autograd.grad(total, list(run.network.parameters()))
    run.step()
    for p, grad in zip(run.network.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, grad, atol=1e-6)


def test_templates_are_drawn_for_each_end_alike_in_number_and_kind(begin):
    guidance = begin().guidance
    drawn = [guidance._drawn(14, step, end) for step in range(600) for end in (0, 1)]
    counts = torch.tensor([len(chosen) for chosen in drawn])
    assert set(counts.tolist()) == set(range(1, 15))
    assert counts.float().mean() == pytest.approx(7.5, abs=0.5)
    kinds = torch.tensor([t for chosen in drawn for t in chosen]).bincount(minlength=14)
    assert kinds.min() > 0.85 * kinds.float().mean()
    assert guidance._drawn(14, 5, 0) != guidance._drawn(14, 5, 1)
    assert guidance._drawn(14, 5, 0) == begin().guidance._drawn(14, 5, 0)


def test_steps_are_those_of_madgrad_with_its_decaying_rate(begin):
    run = begin(config=replace(SMALL, steps=1000, widths=(8,), whole_every=None))
    x0 = [p.detach().double().clone() for p in run.network.parameters()]
    x, total, squares = [p.clone() for p in x0], [0.0 for _ in x0], [0.0 for _ in x0]
    rate = 2.5e-3
    for k in range(3):
        run.step()
        # Defazio and Jelassi 2021, algorithm 1, with weight decay 0.01 in the gradient and momentum 0.9
        scale = (rate + 1e-6) * (k + 1) ** 0.5
        for i, p in enumerate(run.network.parameters()):
            gradient = p.grad.double() + 0.01 * x[i]
            total[i] = total[i] + scale * gradient
            squares[i] = squares[i] + scale * gradient.square()
            x[i] = 0.9 * x[i] + 0.1 * (x0[i] - total[i] / (squares[i] ** (1 / 3) + 1e-6))
            assert torch.allclose(p.detach().double(), x[i], atol=1e-6)
        rate = max(1e-5, 0.99 * rate)
    for index in range(3, 1000):
        run.index = index
        assert run._learning_rate() == pytest.approx(rate, rel=1e-9)
        rate = max(1e-5, 0.99 * rate)
    assert run._learning_rate() == 1e-5


def test_crops_have_the_published_ranges():
    how = {"zoom": FULL.zoom, "share": FULL.crop, "mirrored": FULL.mirrored, "tinted": FULL.tinted}
    crops = [draw_crop((512, 640), **how, generator=chance(seed)) for seed in range(1000)]
    zooms = torch.tensor([crop.sides[0] / 512 for crop in crops])
    shares = torch.tensor([crop.height / crop.sides[0] for crop in crops])
    assert 0.797 < zooms.min() < 0.81
    assert 1.19 < zooms.max() <= 1.2
    assert 0.848 < shares.min() < 0.86
    assert 0.99 < shares.max() <= 1
    for crop in crops:
        assert abs(crop.width / crop.sides[1] - crop.height / crop.sides[0]) < 0.004
        assert 0 <= crop.top <= crop.sides[0] - crop.height
        assert 0 <= crop.left <= crop.sides[1] - crop.width
    assert sum(crop.mirrored for crop in crops) == pytest.approx(500, abs=65)
    assert sum(crop.tint is not None for crop in crops) == pytest.approx(100, abs=40)
    x = torch.rand(1, 3, 40, 50, generator=chance())
    crop = draw_crop((40, 50), **{**how, "zoom": (1.0, 1.0), "tinted": 0.0}, generator=chance(4))
    window = x[..., crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    assert torch.equal(crop.show(x), window.flip(-1) if crop.mirrored else window)


def test_the_picture_is_learned_at_its_short_side_and_given_back_at_its_own(begin):
    run = begin(picture(20, 26))
    assert run.source.shape == (1, 3, 40, 52)
    assert begin(picture(20, 26), replace(SMALL, working_size=26)).source.shape == (1, 3, 20, 26)
    run.step()
    assert run.picture().shape == (3, 20, 26)


@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_run_is_identical_to_the_bit(begin, stop, tmp_path):
    whole, first = finish(begin()), begin()
    for _ in range(stop):
        first.step()
        first.preview(16)  # looking on changes nothing
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = begin()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    finish(second)
    assert torch.equal(whole.history, second.history)
    assert all(torch.equal(a, b) for a, b in zip(whole.layers(), second.layers(), strict=True))
    for p, q in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_step_that_fails_leaves_the_optimiser_as_it_was(begin, monkeypatch):
    run, other = begin(), finish(begin())
    run.step()
    monkeypatch.setattr(run.guidance, "screen_terms", lambda *_: {"screen": torch.tensor(float("nan"))})
    with pytest.raises((FloatingPointError, RuntimeError)):
        run.step()
    monkeypatch.undo()
    assert torch.equal(finish(run).history, other.history)


def test_outside_of_the_opacity_the_picture_is_the_source_to_the_bit(begin):
    run = begin()
    run.step()
    with torch.no_grad():
        run.network.head.weight[3] *= 120
    layers, full = run.layers(), run.full[0]
    bare = (layers.alpha == 0).expand(3, -1, -1)
    assert 0.01 < bare.float().mean() < 0.95
    assert torch.equal(layers.composite[bare], full[bare])
    assert layers.alpha[layers.alpha > 0].min() >= 1 / 510
    assert torch.equal(run.preview(64), layers.composite)
    # while it learns, nothing is cut off, and every pixel has a gradient
    assert run._paint(run.source, None)[:, 3:].min() > 0


def test_relevancy_weighs_less_at_every_step_of_the_run(begin):
    run = begin(relevancy=torch.rand(1, 48, 64, generator=chance(3)))
    weights = []
    while not run.done:
        weights.append(run._weight("bootstrap"))
        run.step()
    assert weights == [10.0, 7.5, 5.0, 2.5]
    assert "bootstrap" in run.terms


def test_the_edit_alone_is_described_in_two_sentences_of_the_screen(begin):
    run = begin(screen="gold")
    assert run.guidance.screen == "gold"
    assert len(run.guidance.screens[0]) == 2
    assert begin().guidance.screen == "a golden horse"


@pytest.mark.parametrize("loss", ["geodesic", "spherical"])
def test_any_loss_of_direction_may_take_the_place_of_the_published_one(begin, loss):
    run = finish(begin(config=replace(SMALL, steps=2, loss=loss)))
    assert torch.isfinite(run.history).all()
    assert ("consistency" in run.terms) == (loss == "geodesic")


class TestRefusals:
    def test_settings(self):
        for name in ("network", "optimiser", "schedule", "augmentation"):
            with pytest.raises(ValueError, match=f"{name} must be one of"):
                LayerEditConfig(**{name: "none"})
        with pytest.raises(ValueError, match="regularisation must be 0 where crops is None"):
            LayerEditConfig(crops=None, regularisation=1.0)
        with pytest.raises(ValueError, match="screen_templates must each contain"):
            LayerEditConfig(screen_templates=("green",))

    def test_pictures_too_small_for_the_network(self, begin):
        with pytest.raises(ValueError, match="working_size must leave crops of at least 129 x 129 pixels"):
            begin(config=replace(SMALL, widths=(8,) * 7))

    def test_madgrad_without_timm(self, begin, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm.optim.madgrad", None)
        with pytest.raises(ImportError, match="optimiser 'madgrad' needs timm"):
            begin()

    def test_states_of_another_optimiser(self, begin):
        first = begin()
        first.step()
        state = first.state_dict()
        state["optimizer"]["state"][0]["s"] = torch.zeros(1)
        with pytest.raises(ValueError, match=r"state.optimizer.*s must be"):
            begin().load_state_dict(state)
