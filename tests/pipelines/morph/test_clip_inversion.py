"""A morph repeats by seed, resumes to the bit, refuses nonsense, and really changes what was asked."""

import copy
from dataclasses import replace

import pytest
import torch

from geokernels import world
from geokernels.losses import feature_distance
from geokernels.models.clip import load_clip
from geokernels.pipelines import ClipInversion, ClipInversionConfig, clip_inversion

SHORT = ClipInversionConfig(recipe="world", steps=6, views=2, hold=4)


@pytest.fixture(scope="module")
def encoder():
    return load_clip("world")


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(attribute="colour", seed=3):
    """A drawn picture, its caption, and the caption after the edit."""
    source = world.sample_scenes(1, generator=chance(seed))
    target = world.edit(source, attribute, generator=chance(seed))
    return world.render(source)[0], world.caption(source)[0], world.caption(target)[0]


def test_same_seed_same_result_and_another_seed_another(encoder):
    runs = [
        clip_inversion(*(scene()[0], [encoder], *scene()[1:]), config=SHORT, generator=chance(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0].picture, runs[1].picture)
    assert torch.equal(runs[0].history, runs[1].history)
    assert not torch.equal(runs[0].picture, runs[2].picture)
    assert runs[0].history.shape == (6, len(runs[0].terms))
    assert runs[0].terms[:3] == ("loss", "consistency", "regularisation")


def test_settings_are_compared_from_one_first_guess(encoder):
    picture, *texts = scene()

    def begin(config, seed=0, **more):
        return ClipInversion(picture, [encoder], *texts, config=config, generator=chance(seed), **more)

    first = begin(SHORT)
    shared = first.prepared
    assert first.start is not None
    other = replace(SHORT, loss="directional", strength=3.0, steps=2)
    again, alone = begin(other, prepared=shared), begin(other)
    again.prepare()
    assert again.start is first.start
    for run in (again, alone):
        while not run.done:
            run.step()
    assert torch.equal(again.picture(), alone.picture())
    with pytest.raises(ValueError, match=r"^prepared was made with opacity = 0.1, this run has 0.2$"):
        begin(replace(SHORT, opacity=0.2), prepared=shared)
    with pytest.raises(ValueError, match="prepared was made with another seed"):
        begin(SHORT, 1, prepared=shared)


# before, at and after a change of views
@pytest.mark.parametrize("stop", [1, 4, 5])
@pytest.mark.parametrize("parametrisation", ["layer", "fourier"])
def test_resumed_run_is_identical_to_the_bit(encoder, stop, parametrisation):
    picture, *texts = scene()
    # the guess is made anew on every start, and is tested to be the same each time
    config = ClipInversionConfig(steps=6, views=2, hold=4, parametrisation=parametrisation, guess=2.0)

    def begin():
        return ClipInversion(picture, [encoder], *texts, config=config, generator=chance())

    whole = begin()
    while not whole.done:
        whole.step()
    first = begin()
    for _ in range(stop):
        first.step()
    state = copy.deepcopy(first.state_dict())
    second = begin()
    second.load_state_dict(state)
    while not second.done:
        second.step()
    assert torch.equal(second.picture(), whole.picture())
    assert torch.equal(second.history, whole.history)


def test_state_is_tensors_and_plain_values_only(encoder, tmp_path):
    picture, *texts = scene()
    run = ClipInversion(picture, [encoder], *texts, config=SHORT, generator=chance())
    run.step()
    torch.save(run.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    run.load_state_dict(loaded)
    assert run.index == 1


@pytest.mark.parametrize("loss", ["geodesic", "directional"])
@pytest.mark.parametrize("parametrisation", ["layer", "fourier", "pixels"])
def test_every_parametrisation_moves_the_picture_and_lowers_its_loss(encoder, parametrisation, loss):
    config = ClipInversionConfig(steps=8, views=2, hold=8, parametrisation=parametrisation, loss=loss)
    picture, *texts = scene()
    result = clip_inversion(picture, [encoder], *texts, config=config, generator=chance())
    assert not torch.equal(result.picture, picture)
    # the first step of a change that starts at the source has no direction yet
    assert result.history[-1, 1] < result.history[1, 1]


def test_regularisation_compares_with_the_previous_iterate(encoder):
    picture, *texts = scene()
    # from nothing: steps from a good guess are too short for float32 to see
    config = replace(SHORT, guess=2.0)
    result = clip_inversion(picture, [encoder], *texts, config=config, generator=chance())
    steps = result.history[:, result.terms.index("regularisation")]
    assert steps[0] == 0
    assert (steps[1:3] > 1e-5).all()


@pytest.mark.parametrize(
    "changes, draws", [({"loss": "directional"}, 1), ({"regularisation": 0.0}, 1), ({}, 2)]
)
def test_the_previous_iterate_is_encoded_only_where_it_counts(encoder, monkeypatch, changes, draws):
    picture, *texts = scene()
    config = replace(SHORT, guess=2.0, hold=2, **changes)
    run = ClipInversion(picture, [encoder], *texts, config=config, generator=chance())
    encoded, encode = [], encoder.encode_image
    monkeypatch.setattr(encoder, "encode_image", lambda seen: encoded.append(len(seen)) or encode(seen))
    for _ in range(2):
        run.step()
    encoded.clear()
    run.step()
    # the source's views and, for IMR, those of the iterate before; then the picture's
    assert encoded == [config.views] * (draws + 1)
    if changes.get("regularisation") == 0:
        assert not run.history[:, run.terms.index("regularisation")].any()


def test_one_view_and_one_template_suffice(encoder):
    config = ClipInversionConfig(steps=2, views=1, hold=1, templates=("{}",))
    picture, *texts = scene()
    result = clip_inversion(picture, [encoder], *texts, config=config, generator=chance())
    assert torch.isfinite(result.history).all()


def test_two_encoders_share_the_guidance_by_weight(encoder):
    picture, *texts = scene()

    def run(encoders, weights):
        config = ClipInversionConfig(steps=2, views=2, encoder_weights=weights)
        return clip_inversion(picture, encoders, *texts, config=config, generator=chance()).history

    alone, twice = run([encoder], None), run([encoder, encoder], (3.0, 1.0))
    assert torch.allclose(alone, twice, atol=1e-6)


def test_perceptual_term_is_the_callable_s(encoder):
    def distance(a, b):
        return feature_distance(encoder.image_features(a), encoder.image_features(b))

    config = ClipInversionConfig(steps=2, views=2, perceptual=0.5)
    picture, *texts = scene()
    result = clip_inversion(
        picture, [encoder], *texts, config=config, generator=chance(), perceptual=distance
    )
    assert result.history[0, result.terms.index("perceptual")] > 0
    # the encoders' own maps are the default
    own = clip_inversion(picture, [encoder], *texts, config=config, generator=chance())
    assert torch.allclose(own.history, result.history, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 40), (200, 90)], ids=str)
def test_pictures_of_any_size_keep_it(encoder, size):
    picture = torch.rand(3, *size, generator=chance())
    config = ClipInversionConfig(steps=2, views=2, working_size=48)
    result = clip_inversion(picture, [encoder], *scene()[1:], config=config, generator=chance())
    assert result.picture.shape == picture.shape
    assert 0 <= result.picture.min() <= result.picture.max() <= 1


def test_callback_sees_every_step_and_its_interrupt_passes(encoder):
    seen = []

    def stop(run):
        seen.append(run.index)
        if run.index == 2:
            raise KeyboardInterrupt

    picture, *texts = scene()
    with pytest.raises(KeyboardInterrupt):
        clip_inversion(picture, [encoder], *texts, config=SHORT, generator=chance(), callback=stop)
    assert seen == [1, 2]


def test_the_judge_sees_the_asked_colour_and_the_rest_as_it_was(encoder):
    scenes = world.sample_scenes(64, generator=chance(0))
    # large and plain: the colour must change here, whatever happens on harder scenes
    scenes = scenes[((scenes.size == 1) & (scenes.texture == 0)).nonzero()[:4, 0]]
    targets = world.edit(scenes, "colour", generator=chance(0))
    texts = zip(world.caption(scenes), world.caption(targets), strict=True)
    morphs = [
        clip_inversion(picture, [encoder], *pair, generator=chance(0)).picture
        for picture, pair in zip(world.render(scenes), texts, strict=True)
    ]
    seen = world.judge(torch.stack(morphs)).names()
    right = sum(a == b for a, b in zip(seen, targets.names(), strict=True))
    # nine in ten are, over 200 edits (docs/morph.md)
    assert right >= 3, seen


class TestRefusals:
    def begin(self, encoder, picture=None, texts=("a red circle", "a blue circle"), **kw):
        picture = torch.rand(3, 16, 16, generator=chance()) if picture is None else picture
        return ClipInversion(picture, [encoder], *texts, generator=chance(), **kw)

    def test_pictures(self, encoder):
        with pytest.raises(ValueError, match=r"picture must have shape \(3, H, W\), got \(1, 16, 16\)"):
            self.begin(encoder, torch.rand(1, 16, 16))
        with pytest.raises(TypeError, match=r"picture must be float16, .*, got torch.uint8"):
            self.begin(encoder, torch.zeros(3, 8, 8, dtype=torch.uint8))
        with pytest.raises(ValueError, match="picture must be finite, got NaN"):
            self.begin(encoder, torch.full((3, 8, 8), float("nan")))

    def test_texts(self, encoder):
        with pytest.raises(ValueError, match="target must differ from source"):
            self.begin(encoder, texts=("a star", "a star"))
        with pytest.raises(ValueError, match="source must be a text, got ' '"):
            self.begin(encoder, texts=(" ", "a star"))

    def test_settings(self):
        with pytest.raises(ValueError, match=r"loss must be one of geodesic, .*, spherical, got 'euclidean'"):
            ClipInversionConfig(loss="euclidean")
        with pytest.raises(ValueError, match="steps must be a finite number above 0, got 0"):
            ClipInversionConfig(steps=0)
        with pytest.raises(ValueError, match="noise must be a finite number, 0 or above, got -1"):
            ClipInversionConfig(noise=-1)
        with pytest.raises(ValueError, match="scale must be two numbers above 0, the smaller first"):
            ClipInversionConfig(scale=(1.1, 0.7))
        with pytest.raises(ValueError, match=r"templates must each contain \{\} once"):
            ClipInversionConfig(templates=("a photo",))

    def test_guides(self, encoder):
        with pytest.raises(ValueError, match="encoder_weights must be 1 numbers"):
            self.begin(encoder, config=ClipInversionConfig(encoder_weights=(1.0, 2.0)))
        with pytest.raises(ValueError, match="encoders must hold at least one CLIP encoder, got none"):
            ClipInversion(torch.rand(3, 8, 8), [], "a", "b", generator=chance())

    def test_states_of_other_runs(self, encoder):
        state = self.begin(encoder).state_dict()
        with pytest.raises(ValueError, match="made with steps = 40, this run has 9"):
            self.begin(encoder, config=ClipInversionConfig(steps=9)).load_state_dict(state)
        with pytest.raises(
            ValueError, match="made with target = 'a blue circle', this run has 'a cyan circle'"
        ):
            self.begin(encoder, texts=("a red circle", "a cyan circle")).load_state_dict(state)
        with pytest.raises(ValueError, match="made with another picture"):
            self.begin(encoder, torch.zeros(3, 16, 16)).load_state_dict(state)

    def test_steps_beyond_the_end(self, encoder):
        run = self.begin(encoder, config=ClipInversionConfig(steps=1, views=1))
        run.step()
        with pytest.raises(RuntimeError, match="all 1 steps have been taken"):
            run.step()


class TestStart:
    """What is searched before the first step, and by whom it was asked for."""

    def prepared(self, encoder, **settings):
        said = []

        def tell(what, done=0, total=None, unit=None):
            said.append((what, done, total, unit))

        run = ClipInversion(
            scene()[0],
            [encoder],
            *scene()[1:],
            config=ClipInversionConfig(steps=1, views=4, **settings),
            generator=chance(),
        )
        run.prepare(tell)
        return run, said

    def test_a_model_that_is_not_embedded_begins_without_a_search(self, tiny_encoder):
        encoder = tiny_encoder()
        encoder.embedded = False
        run, said = self.prepared(encoder)
        assert run.facts["config"]["recipe"] == "published"
        assert encoder.shown == 0
        assert run.start is None
        assert said == []

    def test_it_searches_where_it_is_asked_to_and_counts(self, tiny_encoder):
        encoder = tiny_encoder()
        encoder.embedded = False
        _, said = self.prepared(encoder, guess=0.5, guess_encodings=300)
        assert 224 <= encoder.shown <= 300
        assert said[-1] == ("searching a first guess", encoder.shown, 300, "encodings")
        assert [done for _, done, _, _ in said] == sorted(done for _, done, _, _ in said)
