"""StyleGAN-NADA as published, against its formulas in float64: what is drawn, seen, chosen and followed."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from geokernels.models.imagenet_templates import IMAGENET_TEMPLATES
from geokernels.pipelines import Adaptation, AdaptationConfig
from geokernels.pipelines.adapt.fresh import Fresh

PUBLISHED = AdaptationConfig(recipe="published", steps=4, layers=2)
TEXTS = ("photo", "sketch")


@pytest.fixture
def network(tiny_generator):
    """One whose noise shows, in float64."""
    chance = torch.Generator().manual_seed(5)
    for layer in (tiny_generator.conv1, *tiny_generator.convs):
        with torch.no_grad():
            layer.noise.weight.copy_(torch.rand(1, generator=chance) + 0.2)
    return tiny_generator.double()


@pytest.fixture
def encoders(tiny_encoder):
    """Two that compute in float64 and, like every CLIP here, give float32."""

    def exact(**how):
        encoder = tiny_encoder(**how)
        encoder.first, encoder.last = encoder.first.double(), encoder.last.double()
        encoder.in_double = encoder.encode_image
        encoder.encode_image = lambda pictures, *, clamp: encoder.in_double(pictures, clamp=clamp).float()
        return encoder

    return [exact(), exact(name="other", seed=1, image_size=10)]


def begin(network, encoders, config=PUBLISHED, seed=0):
    return Adaptation(network, encoders, *TEXTS, config=config, generator=torch.Generator().manual_seed(seed))


def finish(run):
    while not run.done:
        run.step()
    return run


def test_the_table_of_the_recipe():
    """As ``stylegan_nada.ipynb`` and ``ZSSGAN/train.py`` have it."""
    config = AdaptationConfig(recipe="published")
    assert (config.steps, config.batch, config.mixing, config.choose_from, config.choose_every) == (
        300,
        2,
        0.9,
        8,
        1,
    )
    assert (config.loss, config.reach_weight, config.perceptual) == ("directional", 0, 0)
    assert (config.pool, config.noise, config.clamp, config.choose_by) == (None, "fresh", False, "text")
    assert config.templates == IMAGENET_TEMPLATES
    assert config.guess > 1
    assert config.layers is None
    assert not config.mixed_precision


class Recorded(list):
    """What every draw of a network was given."""

    def __init__(self, network, monkeypatch):
        draw = type(network).synthesis

        def synthesis(model, w, *, noise="fixed", **how):
            self.append((model, w.detach(), noise))
            return draw(model, w, noise=noise, **how)

        monkeypatch.setattr(type(network), "synthesis", synthesis)


def test_a_run_is_the_formulas(network, encoders, monkeypatch):
    """Three steps: layers by one step of descent on W+, the direction over the templates, Adam by hand."""
    config = replace(PUBLISHED, steps=3)
    run = begin(network, encoders, config)
    drawn = Recorded(network, monkeypatch)
    finish(run)
    calls = iter([call for call in drawn])
    monkeypatch.undo()

    ours = {name: p.detach().clone() for name, p in network.named_parameters()}
    squares, taken = {}, {}
    for step in range(config.steps):
        chosen = [next(calls) for _ in range(2)]  # eight pictures in chunks of four
        (_, codes, frozen_noise), (_, same, trained_noise) = next(calls), next(calls)
        assert torch.equal(codes, same)
        assert moves_most(network, ours, encoders, chosen) == run.chosen[step]
        for row in run.chosen[step]:
            assert row < 6
        names = [n for row in run.chosen[step] for n in names_of(network, row)]
        leaves = {n: ours[n].clone().requires_grad_() for n in names}
        with torch.no_grad():
            frozen = network.synthesis(codes, noise=frozen_noise)
        pictures = drawn_by(network, ours | leaves, codes, trained_noise)
        loss = 0
        for encoder in encoders:
            before, after = encoder.encode_text(TEXTS, IMAGENET_TEMPLATES).double()
            asked = F.normalize((after - before).mean(0), dim=0)
            change = F.normalize(encoder.in_double(pictures) - encoder.in_double(frozen), dim=1)
            loss = loss + (1 - change @ asked).mean() / 2
        assert run.history[step, 0].item() == pytest.approx(loss.item(), abs=1e-5)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()))))
        for name, gradient in gradients.items():
            # Adam without a first moment
            beta = 0.99**0.8
            taken[name] = taken.get(name, 0) + 1
            squares[name] = beta * squares.get(name, 0) + (1 - beta) * gradient.square()
            scale = (squares[name] / (1 - beta ** taken[name])).sqrt() + 1e-8
            ours[name] = ours[name] - 0.002 * 4 / 5 * gradient / scale
    assert next(calls, None) is None
    for name, parameter in run.model.named_parameters():
        # features become float32 on their way into the loss
        torch.testing.assert_close(parameter, ours[name], rtol=0, atol=2e-6)
    assert any(
        (parameter - old).abs().max() > 1e-3 for parameter, old in zip(ours.values(), network.parameters())
    )


def names_of(network, row):
    """Parameters of the convolution that a row styles; the last row styles the last output alone."""
    layer = network.layer(row)
    mine = {id(p) for p in layer.parameters()}
    return [name for name, p in network.named_parameters() if id(p) in mine]


def drawn_by(network, parameters, codes, noise):
    return torch.func.functional_call(
        _Synthesis(network), {f"network.{n}": p for n, p in parameters.items()}, (codes, noise)
    )


class _Synthesis(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, codes, noise):
        return self.network.synthesis(codes, noise=noise)


def moves_most(network, parameters, encoders, chosen):
    """The two rows of W+ that one step of rate 0.01 on the global loss of the bare text moves most."""
    start = torch.cat([codes for _, codes, _ in chosen])
    noise = [torch.cat(parts) for parts in zip(*(noise for *_, noise in chosen))]
    codes = start.clone().requires_grad_()
    pictures = drawn_by(network, parameters, codes, noise)
    loss = 0
    for encoder in encoders:
        goal = encoder.encode_text([TEXTS[1]])[0, 0].double()
        loss = loss + (1 - encoder.in_double(pictures) @ goal).mean()
    descent = torch.optim.SGD([codes], lr=0.01)
    loss.backward()
    descent.step()
    moved = (codes.detach() - start).abs().mean(-1).mean(0)
    return sorted(moved.topk(2).indices.tolist())


def test_the_templates_would_choose_otherwise(network, encoders):
    """Else the test above could not tell by which text layers are chosen."""
    bare, filled = (
        finish(begin(network, encoders, replace(PUBLISHED, choose_by=by))).chosen
        for by in ("text", "templates")
    )
    assert bare != filled


def test_everything_is_drawn_anew(network, encoders, monkeypatch):
    drawn = Recorded(network, monkeypatch)
    finish(begin(network, encoders))
    noises = [
        noise[0].flatten() for *_, noises in drawn for noise in [torch.cat([n.flatten(1) for n in noises], 1)]
    ]
    assert len({tuple(noise.tolist()) for noise in noises}) == len(drawn)
    assert torch.cat(noises).std().item() == pytest.approx(1, abs=0.1)
    codes = [w.flatten(1)[0] for model, w, _ in drawn if model is network]
    assert len(codes) == 4  # one frozen batch a step
    assert len({tuple(code.tolist()) for code in codes}) == 4


def test_styles_are_mixed_as_often_as_asked_and_at_any_row(network):
    fresh, rows = Fresh(3), []
    for turn in range(400):
        codes = fresh.codes(network, turn, 2, truncation=1.0, mixing=0.9)
        if codes.ndim == 3:
            same = (codes == codes[:, :1]).all(-1).all(0)
            assert same.tolist() == sorted(same.tolist(), reverse=True)
            rows.append(int(same.sum()))
    assert len(rows) / 400 == pytest.approx(0.9, abs=0.05)
    assert set(rows) == set(range(1, network.config.codes))
    assert fresh.codes(network, 0, 2, truncation=1.0, mixing=0.0).shape == (2, 7)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_resumed_run_is_identical_to_the_bit(network, encoders, tmp_path, stop):
    whole, first = finish(begin(network, encoders)), begin(network, encoders)
    for _ in range(stop):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = begin(network, encoders)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    finish(second)
    assert torch.equal(second.history, whole.history)
    assert second.chosen == whole.chosen
    pairs = zip(second.model.state_dict().values(), whole.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("loss", ["directional", "geodesic"])
def test_the_chunk_changes_memory_and_nothing_else(network, encoders, loss):
    """Also with a loss that compares the pictures of a batch, and the feature maps."""
    config = replace(PUBLISHED, loss=loss, batch=3, perceptual=0.3)
    one, two, whole = (finish(begin(network, encoders, replace(config, chunk=n))) for n in (1, 2, 8))
    for parts in (one, two):
        torch.testing.assert_close(parts.history, whole.history, rtol=0, atol=2e-6)
        for a, b in zip(parts.model.parameters(), whole.model.parameters()):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_nothing_is_prepared_and_frozen_pictures_are_seen_every_step(network, encoders):
    run = begin(network, encoders[:1])
    run.prepare()
    assert encoders[0].shown == 0
    finish(run)
    assert encoders[0].shown == PUBLISHED.steps * (2 + 2 + 8)


def test_without_noise_in_the_network_the_first_step_has_a_direction(tiny_generator, tiny_encoder):
    run = begin(tiny_generator, [tiny_encoder()], replace(PUBLISHED, mixing=0.0))
    run.step()
    assert any(not torch.equal(a, b) for a, b in zip(run.model.parameters(), tiny_generator.parameters()))


def test_a_start_that_is_asked_for_is_found_once(network, encoders, tmp_path):
    config = replace(PUBLISHED, guess=0.0, searched=12)
    whole, first = finish(begin(network, encoders, config)), begin(network, encoders, config)
    first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = begin(network, encoders, config)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(finish(second).history, whole.history)


def test_settings_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"mixing must be 0 for latents of a pool, got 0.9 with pool 8"):
        replace(PUBLISHED, pool=8)
    with pytest.raises(ValueError, match=r"mixing must be at most 1, got 1.5"):
        replace(PUBLISHED, mixing=1.5)
    with pytest.raises(ValueError, match="noise must be one of fixed, fresh, got 'random'"):
        replace(PUBLISHED, noise="random")
    with pytest.raises(ValueError, match="choose_by must be one of templates, text, got 'bare'"):
        replace(PUBLISHED, choose_by="bare")
    with pytest.raises(ValueError, match="schedule must be one of cosine, constant, got 'linear'"):
        replace(PUBLISHED, schedule="linear")
