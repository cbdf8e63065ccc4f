"""Frames that a diffusion model draws: of every format, ends to the bit, noise as strong as it was."""

import pytest
import torch

from geokernels import world
from geokernels.media.pictures import Picture
from geokernels.models import load_diffusion
from geokernels.models.flow import latent_model
from geokernels.pipelines import Blend, BlendConfig, Maps, blend_pictures, ddim_inversion, flow_inversion
from geokernels.pipelines.blend import bands
from geokernels.pipelines.blend.colours import find_moves
from geokernels.pipelines.blend.drawn import Drawing, find_drawing
from geokernels.pipelines.blend.frames import Scene, over_white, trust_of
from geokernels.pipelines.blend.places import Places, pixels
from geokernels.pipelines.blend.warp import Motion
from geokernels.pipelines.edit.partway import Partway
from geokernels.pipelines.interpolate.couplings import prompt_path
from geokernels.runs.passes import counted

pytest.importorskip("diffusers")
KINDS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline")
QUICK = {"grid": 24, "palette": 16, "steps": 4, "batch": 2}


def noise(*size, seed=0):
    """A picture of bytes, as a file holds it."""
    return torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(seed)).float() / 255


def still(first, second):
    """Maps that send each place to the same share of the other picture's sides, and are sure of it."""

    def to(here, there):
        scale = torch.tensor([(there[1] - 1) / (here[1] - 1), (there[0] - 1) / (here[0] - 1)])
        return pixels(torch.empty(1, *here)) * scale

    a, b = first.shape[1:], second.shape[1:]
    return Maps(to(a, b), to(b, a), torch.ones(a), torch.ones(b))


@pytest.fixture(scope="module")
def loaded(random_pipeline):
    """A pipeline of a kind; nobody may change it."""
    kept = {}

    def of(kind):
        if kind not in kept:
            kept[kind] = load_diffusion(random_pipeline(kind))
        return kept[kind]

    return of


def begun(pipeline, first, second, *, frames=5, texts=("a b", "c"), **settings):
    config = BlendConfig(frames=frames, **{**QUICK, **settings})
    rgb = [p.rgb if isinstance(p, Picture) else p for p in (first, second)]
    return Blend(first, second, config=config, maps=still(*rgb), model=pipeline, texts=texts)


@pytest.mark.parametrize("kind", [*KINDS, "distilled"])
def test_every_format_draws_and_a_resumed_film_is_the_same_to_the_bit(kind, loaded):
    first, second, model = noise(40, 56), noise(56, 48, seed=1), loaded(kind)
    whole = begun(model, first, second)
    said = []
    whole.prepare(lambda what, *counted: said.append((what, *counted)))
    whole.finish()
    assert (whole.steps, len(whole.made)) == (3, 5)  # two at once
    assert {what for what, *_ in said} >= {"inverting the pictures", "drawing the pictures again"}
    (last,) = [done for what, done, total, _ in (s for s in said if len(s) == 4) if done == total]
    assert last == (2 if kind in ("StableDiffusion3Pipeline", "FluxPipeline", "distilled") else 1)
    found = whole.result()
    assert found.frames.shape == (5, 3, 56, 56)
    assert torch.equal(found.frames[0, :, 8:48], first)
    assert torch.equal(found.frames[-1, :, :, 4:52], second)
    plain = Blend(first, second, config=whole.config, maps=still(first, second))
    plain.finish()
    middle = found.frames[2], plain.result().frames[2]
    assert torch.equal(found.alpha, plain.result().alpha)
    assert (middle[0] - middle[1]).abs().max() > 0.02  # it is drawn, and not mixed
    half = begun(model, first, second)
    half.step()
    again = begun(model, first, second)
    again.load_state_dict(half.state_dict())
    assert again.index == 1
    again.finish()
    assert torch.equal(again.result().frames, found.frames)
    other = begun(model, first, second, texts=("a b", "d"))
    with pytest.raises(ValueError, match="made with"):
        other.load_state_dict(half.state_dict())


@pytest.mark.parametrize("kind", ["StableDiffusionPipeline", "FluxPipeline"])
@pytest.mark.parametrize("level", [0.5, 1.0])
def test_the_way_to_the_level_is_that_of_the_inversion(kind, level, loaded):
    model = latent_model(loaded(kind))
    pictures, texts = torch.stack([noise(64, 64), noise(64, 64, seed=1)]), ("a", "b")
    if kind == "FluxPipeline":
        source = flow_inversion(model.pipeline, pictures, texts, steps=4)
    else:
        source = ddim_inversion(model.pipeline, pictures, texts, steps=4, skip=0)
    clean = model.encode(pictures)
    way = Partway(model, steps=4, level=level, sides=tuple(clean.shape[2:]), solver=None)
    states = list(way.up(clean, model.read(texts)))
    assert way.steps == 4 * level
    assert len(states) == way.climbs + 1
    at = 4 - way.steps
    torch.testing.assert_close(states[-1], source.path[at])
    whole = way.down(source.path[at], (model.read(texts),), guidance_scale=1.0)
    assert whole.shape == clean.shape
    if kind == "FluxPipeline":
        assert (way.picture + way.noise) == pytest.approx(1)
    else:
        assert way.picture**2 + way.noise**2 == pytest.approx(1)


def drawing(pipeline, first, second, shift, *, texts=("", "")):
    """What frames are drawn from where everything moves by the same, in cells of 4 pixels."""
    size = tuple(first.shape[1:])
    places, grid = Places.of(size, size), tuple(side // 4 for side in size)
    motion = Motion(torch.zeros(2, *grid) + torch.tensor(shift).view(2, 1, 1) / 2, 4, 0.0)
    trust = trust_of(still(first, second), 4)
    moves = find_moves(first, second, palette=16, eps=0.01)
    scene = Scene((first, second), places, motion, trust, moves, 0.25, 0.5)
    model = latent_model(pipeline)
    return find_drawing(model, scene, texts, BlendConfig(**QUICK), lambda *said: None)


def test_latents_move_along_and_noise_keeps_its_strength(loaded):
    pipeline = loaded("StableDiffusionPipeline")
    # 128 pixels are 16 cells of latents: a shift by 4 cells of the motion, 16 pixels, is one by two of them
    found = drawing(pipeline, noise(128, 128), noise(128, 128, seed=1), (4.0, 0.0))
    assert found.clean.shape == (2, 4, 16, 16)
    chance = torch.Generator().manual_seed(0)
    white = torch.randn(found.noise.shape, generator=chance)
    steps = torch.zeros_like(found.clean)
    steps[0, ..., :8] = steps[1, ..., :10] = 1.0  # an edge, which moves along
    halfway = found._replace(clean=steps, noise=0 * white)
    assert isinstance(halfway, Drawing)
    inner = (halfway._state(0.5) / halfway.way.picture)[:, 2:-2]
    assert (inner[..., 2:9] - 1).abs().max() < 0.1
    assert inner[..., 9:-2].abs().max() < 0.1
    for t in (0.25, 0.5, 0.75):
        moved = found._replace(clean=0 * white, noise=white)._state(t) / found.way.noise
        assert moved[:, 2:-2, 2:-2].std() == pytest.approx(1, abs=0.12)


def test_texts_move_by_transport(loaded):
    model = latent_model(loaded("StableDiffusionXLPipeline"))
    found = drawing(model.pipeline, noise(64, 64), noise(64, 64, seed=1), (0.0, 0.0), texts=("a b", "c"))
    wanted = prompt_path([model.embedding("a b"), model.embedding("c")])
    seen = []
    ask, way = type(model).__call__, found.way

    def note(self, latents, time, words):
        seen.append(words)
        return ask(self, latents, time, words)

    type(model).__call__ = note
    try:
        found._drawn((0.0, 0.25), [found.clean[0]] * 2)
    finally:
        type(model).__call__ = ask
    at = torch.tensor([0.0, 0.25], dtype=torch.float64)
    assert len(seen) == way.steps
    assert all(torch.equal(words.rows, wanted.segments[0].at(at)) for words in seen)
    assert torch.equal(seen[0].pooled, wanted.pooled_at(0, at).to(seen[0].rows))
    assert torch.equal(seen[0].rows[0], model.read(["a b"]).rows[0])


def test_guidance_asks_for_both_and_a_scale_of_one_for_the_texts_alone(loaded):
    pipeline = loaded("StableDiffusion3Pipeline")
    first, second = noise(64, 64), noise(64, 64, seed=1)
    passes = []
    films = []
    for scale in (1.0, 3.0):
        run = begun(pipeline, first, second, frames=3, guidance_scale=scale, solver="euler")
        run.prepare()
        with counted(run.model.network) as found:
            run.finish()
        passes.append(found.count)
        films.append(run.result().frames)
    assert passes == [2, 4]  # half of four steps, of the one frame in between
    assert not torch.equal(*films)


def test_a_film_is_continuous_at_its_ends_and_transparency_is_the_film_s_own(loaded):
    """What the model loses of the pictures is given back: a frame next to an end is next to it."""
    pipeline = loaded("StableDiffusionPipeline")
    alpha = torch.zeros(1, 64, 64)
    alpha[:, 16:48, 16:48] = 1
    colour = noise(64, 64)
    first = Picture(colour * alpha + 1 - alpha, alpha)
    run = begun(pipeline, first, noise(64, 64, seed=1), frames=401)
    run.prepare()
    (drawn,) = run._drawing.draw([1 / 400])
    near = run._drawing.complete(drawn, 1 / 400, run._scene, slice(None))
    assert (near - first.rgb).abs().mean() < 0.03
    rgb, opacity = run._scene.frame(1 / 400, drawn=near)
    assert opacity[0, :8].max() < 0.02
    assert opacity[0, 20:40, 20:40].min() > 0.98
    assert over_white(torch.cat([rgb, opacity]).mul(255).byte())[0].shape == (3, 64, 64)


def test_what_a_model_cannot_have_is_refused(loaded):
    first, second, pipeline = noise(64, 64), noise(64, 64, seed=1), loaded("StableDiffusionPipeline")
    with pytest.raises(ValueError, match="texts must be left out without a model"):
        Blend(first, second, texts=("a", "b"))
    with pytest.raises(ValueError, match=r"texts must be two, one of each picture, got \('a',\)"):
        Blend(first, second, model=pipeline, texts=("a",))
    with pytest.raises(TypeError, match="pipeline must be a Stable"):
        Blend(first, second, model=object())
    for settings, said in (
        ({"level": 0.0}, "level must be above 0 and at most 1, got 0.0"),
        ({"level": 1.5}, "level must be above 0 and at most 1, got 1.5"),
        ({"guidance_scale": 0.5}, "guidance_scale must be"),
        ({"solver": "heun"}, "solver must be one of"),
        ({"batch": 0}, "batch must be"),
        ({"longest": 0}, "longest must be"),
    ):
        with pytest.raises(ValueError, match=said):
            BlendConfig(recipe="world", **settings)


def test_with_the_model_objects_do_not_shine_through_each_other():
    """Two scenes that have nothing in common: halfway, one of them is drawn."""
    pipeline = load_diffusion("world")
    scenes = world.sample_scenes(2, generator=torch.Generator().manual_seed(1))
    found = blend_pictures(*world.render(scenes), config=BlendConfig(frames=5, steps=12), model=pipeline)
    named = [all(seen[a] for a in ("shape", "colour")) for seen in world.judge(found.frames).names()]
    assert sum(named) >= 4


def test_a_drawn_frame_is_made_in_bands_to_the_bit(loaded, monkeypatch):
    films = []
    for pixels_of_band in (2**20, 1):
        monkeypatch.setattr(bands, "PIXELS", pixels_of_band)
        run = begun(loaded("StableDiffusionPipeline"), noise(150, 70), noise(150, 70, seed=1), frames=3)
        run.finish()
        films.append(run.result().frames)
    assert torch.equal(*films)
