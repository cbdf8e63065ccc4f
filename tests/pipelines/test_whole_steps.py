"""Every run takes a step whole or not at all, whatever stops it and wherever, and says who made its state."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from geokernels import pipelines as pl
from geokernels import world
from geokernels.models import AtlasShape, load_diffusion, load_flow
from geokernels.pipelines.run import Run
from geokernels.pipelines.run_state import FORMAT

TEXTS = "a large plain red circle on a white background", "a large plain blue circle on a white background"
GUIDED = {"steps": 3, "views": 2, "guess": 2.0, "regularisation": 1.0}
PLACES = (0.0, 0.3, 0.6, 0.9, 1.0)  # shares of a step's operations after which it is stopped


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def scene():
    return world.render(world.sample_scenes(1, generator=chance(5)))[0]


def footage():
    generator = chance(1)
    clip = world.render_clip(world.sample_scenes(1, generator=generator), 3, 24, generator=generator)
    return pl.prepare_footage(clip.frames, load_flow())


def morph(models):
    config = pl.ClipInversionConfig(**GUIDED, hold=2, perceptual=0.1)
    return pl.ClipInversion(scene(), [models.encoder], *TEXTS, config=config, generator=chance())


def layer(models):
    config = pl.LayerEditConfig(**GUIDED, screen_views=1, crops=2, widths=(8, 8))
    return pl.LayerEdit(scene(), [models.encoder], *TEXTS, config=config, generator=chance())


def released_layer(models):
    small = {"steps": 3, "views": 2, "screen_views": 1, "widths": (8, 8), "short_side": 40, "whole_every": 2}
    config = pl.LayerEditConfig(recipe="published", **small)
    return pl.LayerEdit(scene(), [models.vit], *TEXTS, config=config, generator=chance())


def atlas(models):
    config = pl.AtlasFitConfig(
        steps=2, samples=16, shape=AtlasShape(width=8, layers=1, map_layers=1, octaves=2)
    )
    return pl.AtlasFit(models.footage, config=config, generator=chance())


def video(models):
    config = pl.VideoEditConfig(**GUIDED, screen_views=1, crops=2, widths=(8, 8))
    run = atlas(models)
    texts = [models.encoder], *TEXTS
    return pl.VideoEdit(models.footage, run.atlas, *texts, config=config, generator=chance())


def adaptation(models):
    config = pl.AdaptationConfig(
        steps=3, searched=16, pool=4, batch=2, choose_from=2, choose_every=2, guess=0.0, perceptual=0.1
    )
    return pl.Adaptation(models.generator, [models.encoder], *TEXTS, config=config, generator=chance())


def w_inversion(models):
    config = pl.WInversionConfig(steps=3, searched=4)
    return pl.WInversion(models.generator, scene(), config=config, generator=chance())


def oig(models):
    source = pl.ddim_inversion(models.pipeline, scene()[None], ["a b"], steps=4, skip=0)
    config = pl.OIGConfig(recipe="world", cycle=0.3, cycle_steps=1, every=2)
    return pl.OIGEdit(models.pipeline, models.encoder, source, ["a c"], config=config)


def interpolation(models):
    config = pl.PromptInterpolationConfig(
        frames=4, steps=1, height=64, width=64, batch=2, uniform=True, rounds=3, evenness=1e-6
    )
    how = {"config": config, "generator": chance(), "distance": pl.feature_metric(models.encoder)}
    return pl.PromptInterpolation(models.pipeline, ["red cat", "a blue hat"], **how)


def blend(models):
    config = pl.BlendConfig(frames=3, palette=32, matching=pl.MatchingConfig(points=8, first=8))
    return pl.Blend(scene(), scene()[:, :40].flip(-1), config=config)


RUNS = {
    f.__name__: f
    for f in (morph, layer, released_layer, atlas, video, adaptation, w_inversion, oig, interpolation, blend)
}


def test_no_kind_of_run_is_left_out(models):
    def kinds(of):
        return {of} if not of.__subclasses__() else set().union(*map(kinds, of.__subclasses__()))

    assert {type(make(models)) for make in RUNS.values()} == {
        kind for kind in kinds(Run) if kind.__module__.startswith("geokernels.")
    }


class Models:
    """What runs are made of."""

    def __init__(self, encoder, vit, generator, pipeline, footage):
        self.encoder, self.vit, self.generator = encoder, vit, generator
        self.pipeline, self.footage = pipeline, footage


@pytest.fixture
def models(tiny_encoder, tiny_vit, tiny_generator, pipeline_folder):
    pytest.importorskip("cv2")
    return Models(tiny_encoder(), tiny_vit, tiny_generator, load_diffusion(pipeline_folder), footage())


class Stopped(TorchDispatchMode):
    """Counts operations of PyTorch, and raises once, in place of one of them."""

    def __init__(self, at=None, error=None):
        super().__init__()
        self.count, self.at, self.error = 0, at, error

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count - 1 == self.at:
            raise self.error
        return func(*args, **kwargs or {})


def equal(a, b):
    """To the bit, NaN included."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5))
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def finish(run):
    while not run.done:
        run.step()
    return run.state_dict()


ERRORS = FloatingPointError("not finite"), MemoryError("none"), KeyboardInterrupt()


def counted(work):
    with Stopped() as mode:
        work()
    return mode.count


def stopped(work, operation, error):
    """Do some work that is stopped by ``error`` at that operation."""
    with pytest.raises(type(error)), Stopped(operation, error):
        work()


@pytest.mark.parametrize("name", RUNS)
def test_a_step_is_taken_whole_or_not_at_all(name, models):
    expected = finish(RUNS[name](models))
    run = RUNS[name](models)
    run.prepare()
    while not run.done:
        before = copy.deepcopy(run.state_dict())
        fresh, other = RUNS[name](models), RUNS[name](models)
        for like in (fresh, other):
            like.load_state_dict(before)
            like.prepare()
        stopped(other.step, counted(fresh.step) - 1, KeyboardInterrupt())
        count = counted(other.step)  # without what a step looks up once and keeps
        for share, error in zip(PLACES, ERRORS * 2):
            stop = int(share * (count - 1))
            stopped(run.step, stop, error)
            assert equal(run.state_dict(), before), f"{error!r} at operation {stop} of {count}"
        run.step()
    assert equal(run.state_dict(), expected)


@pytest.mark.parametrize("name", RUNS)
def test_what_is_prepared_is_prepared_whole_or_not_at_all(name, models):
    expected = finish(RUNS[name](models))
    run, count = RUNS[name](models), counted(RUNS[name](models).prepare)
    for share, error in zip(PLACES if count else (), ERRORS * 2):
        stopped(run.prepare, int(share * (count - 1)), error)
        assert run.prepared_in == 0
    assert equal(finish(run), expected)


@pytest.mark.parametrize("name", RUNS)
def test_a_state_says_its_format_and_an_older_one_is_refused(name, models):
    run = RUNS[name](models)
    state = run.state_dict()
    assert state["format"] == FORMAT == 3
    old = {key: value for key, value in state.items() if key != "format"}
    with pytest.raises(
        ValueError, match=r"^the checkpoint was made by geokernels 0\.1\.0, .*; start the run"
    ):
        run.load_state_dict(old)
    with pytest.raises(ValueError, match=r"^the checkpoint has format 2, this version reads format 3; start"):
        run.load_state_dict({**state, "format": 2})
    run.load_state_dict(state)
