"""Every pipeline gives what it gives, to the bit, whatever its caller has set for all of PyTorch."""

import ast
import copy
import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import geokernels
from geokernels import metrics, world
from geokernels import pipelines as pl
from geokernels.losses import feature_distance, pyramid_distance, total_variation
from geokernels.models import AtlasShape, load_clip, load_diffusion, load_flow, load_generator
from geokernels.pipelines.comparators import METHODS, UNET, EditModels, EditTask
from geokernels.pipelines.guidance.clip import Guidance
from geokernels.pipelines.start.search import search_guess

pytest.importorskip("diffusers")
pytest.importorskip("cv2")
TEXTS = "a large plain red circle on a white background", "a large plain blue circle on a white background"
GUIDED = {"steps": 2, "views": 2, "guess": 2.0}


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(count=1):
    return world.render(world.sample_scenes(count, generator=chance(5)))


def resumed(make):
    """What a run gives that is stopped after a step, and continued by another."""
    first = make()
    first.step()
    second = make()
    second.load_state_dict(first.state_dict())
    while not second.done:
        second.step()
    return second


def morph(models):
    def make():
        config = pl.ClipInversionConfig(**GUIDED, hold=1, perceptual=0.1, total_variation=0.1)
        how = {"config": config, "generator": chance()}
        return pl.ClipInversion(scene()[0], [models.encoder], *TEXTS, **how)

    return resumed(make).picture()


def layer(models):
    config = pl.LayerEditConfig(**GUIDED, screen_views=1, crops=2, widths=(8, 16))
    start = torch.zeros_like(scene()[0, :1])
    how = {"config": config, "generator": chance(), "relevancy": start}
    return pl.edit_layer(scene()[0], [models.encoder], *TEXTS, **how).composite


def adapt(models):
    def make():
        config = pl.AdaptationConfig(steps=2, searched=16, pool=4, batch=2, choose_from=2, perceptual=0.1)
        how = {"config": config, "generator": chance()}
        return pl.Adaptation(models.generator, [models.encoder], *TEXTS, **how)

    run = resumed(make)
    return run.pictures(run.pool.w[:1])


def inversion(models):
    config = pl.WInversionConfig(steps=2, searched=8)
    return pl.invert_picture(models.generator, scene()[0], config=config, generator=chance()).picture


def video(models):
    generator = chance(1)
    clip = world.render_clip(world.sample_scenes(1, generator=generator), 4, 24, generator=generator)
    footage = pl.prepare_footage(clip.frames, load_flow())
    shape = AtlasShape(width=16, layers=2, map_layers=1, octaves=3)
    fitting = pl.AtlasFitConfig(steps=2, samples=32, shape=shape)
    atlas = pl.fit_atlas(footage, config=fitting, generator=chance()).atlas
    config = pl.VideoEditConfig(**GUIDED, screen_views=1, crops=2, widths=(8, 16))
    how = {"config": config, "generator": chance()}
    return torch.stack(list(pl.edit_video(footage, atlas, [models.encoder], *TEXTS, **how).frames))


def interpolation(models):
    config = pl.PromptInterpolationConfig(frames=3, steps=1, height=64, width=64)
    metric = pl.feature_metric(models.encoder)
    how = {"config": config, "generator": chance(), "distance": metric}
    found = pl.interpolate_prompts(models.pipeline, ["red cat", "a blue hat"], **how)
    return torch.cat([found.frames.flatten(), found.distances])


def blend(models):
    small = pl.MatchingConfig(points=8, first=8)
    config = pl.BlendConfig(frames=3, palette=32, matching=small)
    first, second = scene(2)
    found = resumed(lambda: pl.Blend(first, second[:, :40], config=config)).result()
    return torch.cat([found.frames, found.alpha], 1)


def edit(models):
    pipeline = pl.OIGPipeline.from_pipe(models.pipeline)
    source = pipeline.invert(scene(), ["a b"], steps=2, skip=0)
    how = {"cycle": 0.3, "cycle_steps": 1, "output_type": "pt"}
    return pipeline(source, ["a c"], models.encoder, **how).images


def drawn(models):
    def make():
        source = pl.draw_source(models.pipeline, ["a b"], steps=2, generator=chance())
        return pl.OIGEdit(models.pipeline, models.encoder, source, ["a c", "d"])

    return resumed(make).pictures()


def pipeline_of_prompts(models):
    pipeline = pl.PromptInterpolationPipeline.from_pipe(models.pipeline)
    how = {"frames": 2, "num_inference_steps": 1, "generator": chance(), "output_type": "pt"}
    return pipeline(["red cat", "a blue hat"], **how).images


def comparator(name):
    def run(models):
        pipeline = models.pipeline
        source = pl.ddim_inversion(pipeline, scene(), ["a b"], steps=3, skip=0)
        method = METHODS[name]
        settings = {"null_text": {"inner": 2}, "diffedit": {"maps": 2}}.get(name, {})
        task = EditTask(scene(), source, ("a c",), ("make it c",), (0,))
        return method.run(EditModels(pipeline, models.encoder), task, method.settings(**settings))

    return run


UNETS = [name for name, method in METHODS.items() if UNET in method.suits]
RUNS = {f.__name__: f for f in (morph, layer, adapt, inversion, video, interpolation, blend, edit, drawn)}
RUNS |= {"pipeline_of_prompts": pipeline_of_prompts}
RUNS |= {name: comparator(name) for name in UNETS if name not in ("oig", "instruct_pix2pix")}


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def handler():
    """As in a web handler of a program that computes in float64."""
    with default_dtype(torch.float64), torch.inference_mode():
        yield


@contextmanager
def notebook():
    """As in a notebook after many cells."""
    defaults = default_dtype(torch.bfloat16), torch.device("meta")
    with defaults[0], defaults[1], torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        yield


MODES = {"handler": handler, "notebook": notebook}


class Models(NamedTuple):
    encoder: torch.nn.Module
    generator: torch.nn.Module
    pipeline: object


@pytest.fixture
def models(tiny_encoder, tiny_generator, pipeline_folder):
    return Models(tiny_encoder(), tiny_generator, load_diffusion(pipeline_folder))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_in_a_mode_is_the_run_without(name, models):
    expected = RUNS[name](models)
    assert torch.isfinite(expected).all()
    for mode in MODES.values():
        with mode():
            found = RUNS[name](models)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected), (found - expected).abs().max()


def copies(models):
    pipeline = copy.copy(models.pipeline)
    pipeline.register_modules(unet=copy.deepcopy(models.pipeline.unet))
    return Models(models.encoder, copy.deepcopy(models.generator), pipeline)


def test_what_was_made_in_inference_mode_can_be_moved(models):
    """Pictures and modules of the caller's own."""
    runs = [RUNS[name] for name in ("adapt", "edit", "null_text")]
    expected = [run(copies(models)) for run in runs]
    with torch.inference_mode():
        copied = copies(models)
        modules = copied.generator, copied.pipeline.unet
        assert all(next(module.parameters()).is_inference() for module in modules)
        found = [run(copied) for run in runs]
    assert [float((a - b).abs().max()) for a, b in zip(found, expected)] == [0, 0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_models_are_loaded_the_same(mode, pipeline_folder):
    def load():
        encoder, generator, pipeline = load_clip(), load_generator(), load_diffusion(pipeline_folder)
        texts = encoder.encode_text(["a red circle"])
        return encoder, generator, pipeline, texts

    expected = load()
    with MODES[mode]():
        found = load()
    for ours, theirs in zip(found[:2], expected[:2]):
        pairs = zip(ours.state_dict().items(), theirs.state_dict().values())
        assert all(torch.equal(a, b) and a.dtype == b.dtype for (_, a), b in pairs)
        assert not any(tensor.is_inference() for tensor in ours.state_dict().values())
    assert found[2].unet.dtype == torch.float32
    assert torch.equal(found[3], expected[3])
    assert not found[3].is_inference()


def losses_and_metrics():
    """What is called by itself, of tensors whose dtype is given."""
    x, y = torch.rand(2, 5, 8, 8, generator=chance(), dtype=torch.float32)
    pictures, others = torch.rand(2, 2, 3, 16, 16, generator=chance(1), dtype=torch.float32)
    flow = torch.rand(1, 2, 16, 16, generator=chance(2), dtype=torch.float32)
    inside = pictures[0].mean(0, keepdim=True) > 0.5
    texts = x[2, :1], y[2, :1]
    yield geokernels.directional_loss(x[0], y[0], *texts)
    yield geokernels.geodesic_consistency_loss(x[0], y[0], *(part[:1] for part in (x[1], y[1])))
    yield feature_distance([pictures], [others])
    yield pyramid_distance(pictures, others)
    yield total_variation(pictures)
    yield metrics.warping_error(pictures, flow, inside[None])
    yield metrics.outside_score(*pictures, inside)
    yield metrics.gini(x.flatten())
    yield metrics.score_path(x[0, 0].double(), missed=0.1, chord=0.2)
    yield geokernels.displacement(x[0], y[0], [0.0, 0.5])
    yield geokernels.sinkhorn(x[0], y[0], eps=0.5).value
    yield geokernels.geodesic_flow(x[0], y[0]).at(0.5)
    clip = world.render_clip(world.sample_scenes(1, generator=chance()), 3, 16, generator=chance())
    yield clip.frames
    yield clip.flow
    scenes = world.edit(world.sample_scenes(4, generator=chance()), "colour", generator=chance())
    yield world.judge(world.render(scenes)).confidence


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["f64", "bf16"])
def test_losses_metrics_and_the_world_have_the_dtype_of_their_input(dtype):
    expected = list(losses_and_metrics())
    with default_dtype(dtype):
        found = list(losses_and_metrics())
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(theirs, torch.Tensor):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        assert str(ours) == str(theirs)


def test_a_first_guess_does_not_look_at_the_default_dtype(models):
    def guess():
        config = pl.ClipInversionConfig(recipe="world", views=1)
        guidance = Guidance([models.encoder], *TEXTS, config, key=0)
        return search_guess(scene(), guidance, area=0.1, seed=1, tell=lambda *said, **counted: None)

    expected = guess()
    with default_dtype(torch.float64):
        found = guess()
    assert str(found) == str(expected)


FLOATS = ("empty", "eye", "linspace", "logspace", "ones", "rand", "randn", "zeros")


def test_no_tensor_of_the_package_has_the_default_dtype():
    """Whatever makes numbers says which; what the linter cannot see."""
    found = []
    for path in sorted(Path(geokernels.__file__).parent.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            made = ast.unparse(call.func)
            told = any(key.arg in ("dtype", None) for key in call.keywords)
            if made in {f"torch.{name}" for name in FLOATS} and not told:
                found.append(f"{path.name}:{call.lineno} {made}")
    assert not found


def test_settings_of_numpy_are_kept_as_plain_numbers(models):
    """A checkpoint of a run holds nothing that cannot be read again, whatever its settings came from."""

    def begin(**settings):
        config = pl.ClipInversionConfig(**settings, guess=2.0)
        how = {"config": config, "generator": chance()}
        return pl.ClipInversion(scene()[0], [models.encoder], *TEXTS, **how)

    run = begin(steps=np.int64(2), views=np.float32(2), strength=np.float64(0.5), opacity=np.float32(0.5))
    run.step()
    kept = io.BytesIO()
    torch.save(run.state_dict(), kept)
    again = begin(steps=2, views=2, strength=0.5, opacity=0.5)
    again.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
    assert again.index == 1


@pytest.mark.parametrize(
    "config, settings",
    [
        (pl.ClipInversionConfig, {"steps": 2.5}),
        (pl.ClipInversionConfig, {"strength": "0.1"}),
        (pl.ClipInversionConfig, {"scale": 0.5}),
        (pl.AdaptationConfig, {"batch": "4"}),
        (pl.OIGConfig, {"cycle_steps": 1.5}),
        (pl.PromptInterpolationConfig, {"frames": 2.5}),
        (pl.AtlasFitConfig, {"samples": None}),
    ],
)
def test_settings_of_wrong_types_are_named(config, settings):
    (name,) = settings
    with pytest.raises(TypeError, match=rf"^{name} must be "):
        config(**settings)


def test_threads_may_share_a_pipeline(models):
    def edited(seed):
        source = pl.draw_source(models.pipeline, ["a b"], steps=2, generator=chance(seed))
        return pl.oig_edit(models.pipeline, models.encoder, source, ["a c"]).pictures

    expected = [edited(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(edited, range(3)))
    for ours, theirs in zip(found, expected):
        # nothing of another thread's edit; the same threads of the processor are shared differently
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
