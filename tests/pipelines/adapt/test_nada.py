"""An adaptation repeats by seed, resumes to the bit, trains what it says, refuses nonsense, and succeeds."""

import copy
from dataclasses import replace

import pytest
import torch

from geokernels import world
from geokernels.models import load_clip, load_generator
from geokernels.pipelines import Adaptation, AdaptationConfig, adapt_generator
from geokernels.pipelines.adapt.layer_choice import usual_count
from geokernels.pipelines.adapt.sight import Sight

TINY = AdaptationConfig(
    recipe="world", steps=5, batch=2, pool=4, searched=12, choose_every=2, choose_from=3, chunk=2, guess=0.0
)
FROM_NOTHING = replace(TINY, guess=2.0)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def begin(tiny_generator, tiny_encoder):
    def start(config=TINY, seed=0, texts=("a cat", "a dog"), encoders=None, **more):
        encoders = [tiny_encoder()] if encoders is None else encoders
        return Adaptation(tiny_generator, encoders, *texts, config=config, generator=chance(seed), **more)

    return start


def finish(run):
    while not run.done:
        run.step()
    return run


def same_weights(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_same_seed_same_generator_and_the_given_one_is_left_alone(tiny_generator, tiny_encoder):
    before = copy.deepcopy(tiny_generator)
    results = [
        adapt_generator(tiny_generator, [tiny_encoder()], "a cat", "a dog", config=TINY, generator=chance(s))
        for s in (1, 1, 2)
    ]
    assert same_weights(tiny_generator, before)
    assert same_weights(results[0].model, results[1].model)
    assert torch.equal(results[0].history, results[1].history)
    assert not same_weights(results[0].model, results[2].model)
    assert results[0].history.shape == (5, len(results[0].terms))
    assert results[0].terms[:3] == ("loss", "consistency", "regularisation")
    assert len(results[0].chosen) == 3  # at steps 0, 2 and 4
    assert all(parameter.requires_grad for parameter in results[0].model.parameters())


# before it has prepared, between and at choices of layers
@pytest.mark.parametrize("stop", [0, 1, 4])
@pytest.mark.parametrize("config", [TINY, replace(FROM_NOTHING, perceptual=0.5, train="layers")], ids=str)
def test_resumed_run_is_identical_to_the_bit(begin, tmp_path, stop, config):
    whole = finish(begin(config))
    first = begin(config)
    for _ in range(stop):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = begin(config)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    finish(second)
    assert same_weights(second.model, whole.model)
    assert torch.equal(second.history, whole.history)
    assert second.chosen == whole.chosen


def test_each_frozen_picture_is_encoded_once(begin, tiny_encoder):
    encoder = tiny_encoder()
    run = begin(FROM_NOTHING, encoders=[encoder])
    run.prepare()
    assert encoder.shown == FROM_NOTHING.pool
    finish(run)
    steps, choices = FROM_NOTHING.steps * FROM_NOTHING.batch, 3 * FROM_NOTHING.choose_from
    assert encoder.shown == FROM_NOTHING.pool + steps + choices


def test_every_latent_is_visited_before_any_comes_again(begin):
    run = begin(FROM_NOTHING)
    run.prepare()
    turns = [torch.cat([run.pool.visit(i, 2, key=9) for i in (k, k + 1)]) for k in (0, 2)]
    assert all(sorted(turn.tolist()) == [0, 1, 2, 3] for turn in turns)
    # a batch that does not divide the pool runs on into the next turn
    assert torch.cat([run.pool.visit(i, 3, key=9) for i in range(4)]).bincount().tolist() == [3, 3, 3, 3]


def test_the_previous_features_are_those_of_the_latent_s_last_visit(begin):
    run = begin(FROM_NOTHING)
    run.step()
    visited = run.pool.visit(0, 2, key=run._seed + 1)
    others = [i for i in range(4) if i not in visited.tolist()]
    source, previous = run.pool.source[0], run.pool.previous[0]
    assert torch.equal(previous[others], source[others])
    with torch.no_grad():
        assert not torch.allclose(
            run.encoders[0].encode_image(run.pictures(run.pool.w[visited])), source[visited]
        )
    # both latents' first visits compare with the frozen picture; the third step is a second visit
    finish(run)
    steps = run.history[:, run.terms.index("regularisation")]
    assert steps[0] < 1e-5
    assert steps[2] > 1e-6


@pytest.mark.parametrize("train", ["modulation", "layers"])
def test_only_the_chosen_layers_learn(begin, tiny_generator, train):
    run = finish(begin(replace(FROM_NOTHING, train=train, layers=2, choose_every=9)))
    (rows,) = run.chosen
    allowed = {id(p) for row in rows for p in run.model.layer(row).parameters()}
    frozen = dict(tiny_generator.named_parameters())
    for name, parameter in run.model.named_parameters():
        moved = not torch.equal(parameter, frozen[name])
        learns = id(parameter) in allowed and (train == "layers" or "modulation" in name)
        # a layer's gradient may be zero; what must not learn must not move
        assert learns or not moved, name
    assert any(not torch.equal(p, frozen[n]) for n, p in run.model.named_parameters())


@pytest.mark.parametrize("loss", ["geodesic", "directional", "global", "spherical"])
def test_every_loss_goes_down(begin, loss):
    config = replace(FROM_NOTHING, loss=loss, steps=12, batch=4, train="layers", learning_rate=0.02, layers=6)
    run = finish(begin(config))
    # the first step of a change that starts at the source has no direction yet
    assert run.history[-1, 1] < run.history[1, 1]


def test_encoders_share_the_guidance_by_weight_whatever_they_see(begin, tiny_encoder):
    alone = finish(begin(encoders=[tiny_encoder()])).history
    twice = finish(
        begin(replace(TINY, encoder_weights=(3.0, 1.0)), encoders=[tiny_encoder(), tiny_encoder()])
    )
    assert torch.allclose(alone, twice.history, atol=1e-5)
    # larger and smaller than the pictures
    other = finish(begin(encoders=[tiny_encoder(image_size=24), tiny_encoder(image_size=5, dim=9, seed=1)]))
    assert torch.isfinite(other.history).all()


def test_a_start_is_taken_where_it_is_good_enough(begin, tiny_generator):
    run = begin(replace(TINY, guess=0.0))
    run.prepare()
    assert run.started == (run.start.cosine >= 0)
    refused = begin(replace(TINY, guess=1.0))
    refused.prepare()
    assert not refused.started
    assert same_weights(refused.model, tiny_generator)


def test_what_was_prepared_serves_runs_of_other_losses(begin):
    first = begin()
    other = begin(replace(TINY, loss="directional"), prepared=first.prepared)
    alone = finish(begin(replace(TINY, loss="directional")))
    assert torch.equal(finish(other).history, alone.history)
    with pytest.raises(ValueError, match="prepared was made with target = 'a dog', this run has 'a cow'"):
        begin(texts=("a cat", "a cow"), prepared=first.prepared)


def test_a_bad_loss_stops_and_keeps_the_last_good_state(begin, tiny_encoder):
    encoder = tiny_encoder()
    run = begin(FROM_NOTHING, encoders=[encoder])
    for _ in range(3):
        run.step()
    good = copy.deepcopy(run.state_dict())
    sane, encoder.last = encoder.last, encoder.last * float("nan")
    with pytest.raises(FloatingPointError, match="the features of the pictures are not finite; lower the"):
        run.step()
    assert all(torch.equal(v, run.state_dict()["model"][k]) for k, v in good["model"].items())
    assert run.index == 3
    encoder.last = sane
    assert torch.equal(finish(run).history, finish(begin(FROM_NOTHING)).history)


def test_a_bad_gradient_stops_before_the_step(begin, monkeypatch):
    run = begin(FROM_NOTHING)
    run.step()
    before = copy.deepcopy(run.model)
    draw = Sight.draw

    def spoil(self, *how):
        drawn = draw(self, *how)
        if drawn.requires_grad:
            drawn.register_hook(lambda gradient: gradient * float("inf"))
        return drawn

    monkeypatch.setattr(Sight, "draw", spoil)
    with pytest.raises(FloatingPointError, match="the gradient at step 1 is not finite"):
        run.step()
    assert same_weights(run.model, before)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_is_one_sentence_that_names_the_knobs(begin, monkeypatch, error):
    run = begin()

    def fail(*args, **kw):
        raise error

    monkeypatch.setattr(run.model, "synthesis", fail)
    with pytest.raises(MemoryError, match=r"ran out of memory; lower batch .*, chunk .* or pool") as caught:
        run.step()
    assert "\n" not in str(caught.value)


def test_other_errors_pass_as_they_are(begin, monkeypatch):
    run = begin()
    monkeypatch.setattr(run.model, "synthesis", lambda w, noise: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        run.step()


def test_layers_are_counted_as_published():
    assert [usual_count(size) for size in (64, 256, 1024)] == [6, 9, 12]


def test_the_embedded_generator_learns_a_background():
    """The whole recipe once, shortened: five seconds buy the only test that it does what it is for."""
    model, encoder = load_generator(), load_clip()
    config = AdaptationConfig(steps=2, searched=160)
    texts = "an object", "an object on a green background"
    found = adapt_generator(model, [encoder], *texts, config=config, generator=chance(0)).model
    z = torch.randn(24, model.config.style_dim, generator=chance(77))
    with torch.no_grad():
        was, now = (world.judge(g(z).clamp(0, 1)).names() for g in (model, found))
    asked = [(a, b) for a, b in zip(was, now, strict=True) if "green" not in (a["background"], a["colour"])]
    assert sum(b["background"] == "green" for _, b in asked) >= 0.8 * len(asked)
    kept = [a[name] == b[name] for a, b in asked for name in a if name != "background"]
    assert sum(kept) >= 0.75 * len(kept)


class TestRefusals:
    def test_texts(self, begin):
        with pytest.raises(ValueError, match="target must differ from source, got 'a cat' for both"):
            begin(texts=("a cat", "a cat"))
        with pytest.raises(ValueError, match="source must be a text, got ''"):
            begin(texts=("", "a cat"))
        encoder = load_clip()
        with pytest.raises(ValueError, match="prompt must have at most 77 tokens"):
            begin(texts=("a cat", "red " * 90), encoders=[encoder])

    def test_guides(self, begin, tiny_encoder):
        with pytest.raises(ValueError, match="encoders must hold at least one CLIP encoder"):
            begin(encoders=[])
        judge = tiny_encoder("judge")
        judge.guides = False
        with pytest.raises(ValueError, match="got 'judge', which evaluates"):
            begin(encoders=[judge])

    def test_settings(self, begin):
        with pytest.raises(ValueError, match="batch must be at most pool, 4, got 5"):
            replace(TINY, batch=5)
        with pytest.raises(ValueError, match="train must be one of modulation, layers, got 'all'"):
            replace(TINY, train="all")
        with pytest.raises(ValueError, match="carried must be at most 1"):
            replace(TINY, carried=1.5)
        with pytest.raises(ValueError, match="layers must be from 1 to 6 for untrained, got 7"):
            begin(replace(TINY, layers=7))

    def test_states_of_other_runs(self, begin, tiny_generator):
        state = begin().state_dict()
        with pytest.raises(ValueError, match="made with steps = 5, this run has 6"):
            begin(replace(TINY, steps=6)).load_state_dict(state)
        with pytest.raises(ValueError, match="made with target = 'a dog', this run has 'a cow'"):
            begin(texts=("a cat", "a cow")).load_state_dict(state)
        with pytest.raises(ValueError, match="made with another seed"):
            begin(seed=1).load_state_dict(state)
        with torch.no_grad():
            tiny_generator.conv1.conv.weight += 1
        with pytest.raises(ValueError, match="made with another model"):
            begin().load_state_dict(state)

    def test_steps_beyond_the_end(self, begin):
        run = finish(begin(replace(TINY, steps=1)))
        with pytest.raises(RuntimeError, match="all 1 steps have been taken"):
            run.step()


@pytest.mark.parametrize("searched", [0, 40])
def test_what_is_encoded_before_the_first_step_is_counted(tiny_generator, tiny_encoder, searched):
    said, encoder = [], tiny_encoder()
    config = replace(TINY, pool=6, chunk=4, searched=max(1, searched), guess=0.0 if searched else 2.0)
    how = {"config": config, "generator": torch.Generator().manual_seed(0)}
    run = Adaptation(tiny_generator, [encoder], "a cat", "a dog", **how)
    run.prepare(lambda what, done=0, total=None, unit=None: said.append((what, done, total, unit)))
    assert said[-1] == ("drawing and encoding latents", encoder.shown, encoder.shown, "encodings")
    assert encoder.shown == (40 + 12 * 24 if searched else 6)
