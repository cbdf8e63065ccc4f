"""DDIM inversion tells the U-Net the level of the latents that it sees, and ends where sampling begins."""

import copy
import math

import pytest
import torch

from geokernels._sealed import save_sealed
from geokernels.pipelines.comparators import METHODS, EditModels, EditTask
from geokernels.pipelines.comparators.ddim_swap import DdimSwapConfig
from geokernels.pipelines.edit import source as inversion
from geokernels.pipelines.edit.oig import OIGConfig, OIGEdit
from geokernels.pipelines.edit.source import EditSource, ddim_inversion

diffusers = pytest.importorskip("diffusers")

SCHEDULERS = {
    "epsilon": {"steps_offset": 1, "set_alpha_to_one": False},
    "sample": {"prediction_type": "sample"},  # its last share is 1
    "v": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,  # its first share is 0
        "timestep_spacing": "trailing",
    },
}


class Analytic:
    """A denoiser whose U-Net is a formula; notes what it is told."""

    device, dtype = torch.device("cpu"), torch.float64

    def __init__(self, pipeline):
        self.pipeline, self.told = pipeline, pipeline.told

    def read(self, prompts):
        return None

    def digest(self):
        return "analytic"

    def encode(self, pictures):
        return 2 * pictures - 1

    def __call__(self, x, t, words):
        self.told.append(t)
        return (x * (1 + t / 500) + t / 1000).sin()


class Pipeline:
    def __init__(self, **settings):
        self.scheduler = diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, **settings
        )
        self.told = []


@pytest.fixture
def invert(monkeypatch):
    """From the name of a scheduler, steps and skip to its pipeline and the inversion."""
    monkeypatch.setattr(inversion, "Denoiser", Analytic)
    picture = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def run(name, **settings):
        pipeline = Pipeline(**SCHEDULERS[name])
        return pipeline, ddim_inversion(pipeline, picture, ["a"], **settings)

    return run


def by_hand(pipeline, x, steps, skip):
    """Level by level, from the formulas alone; clean latents first."""
    scheduler, kind = pipeline.scheduler, pipeline.scheduler.config.prediction_type
    scheduler.set_timesteps(steps)
    levels = scheduler.timesteps.tolist()
    seen = [x]
    for own, noisier in zip(levels[::-1], levels[-2::-1], strict=False):
        if own in levels[len(levels) - skip :] or own in levels[:skip]:
            continue
        said = (x * (1 + own / 500) + own / 1000).sin()
        share = float(scheduler.alphas_cumprod[own])
        signal, noise = math.sqrt(share), math.sqrt(1 - share)
        if kind == "epsilon":
            picture, epsilon = (x - noise * said) / signal, said
        elif kind == "sample":
            picture, epsilon = said, (x - signal * said) / noise
        else:
            picture, epsilon = signal * x - noise * said, noise * x + signal * said
        share = float(scheduler.alphas_cumprod[noisier])
        x = math.sqrt(share) * picture + math.sqrt(1 - share) * epsilon
        seen.append(x)
    return seen


class TestRule:
    @pytest.mark.parametrize("skip", [0, 1, 2])
    @pytest.mark.parametrize("name", SCHEDULERS)
    def test_every_level_is_that_of_a_plain_loop(self, invert, name, skip):
        for steps in range(max(2, 2 * skip + 1), 51):
            pipeline, source = invert(name, steps=steps, skip=skip)
            expected = by_hand(pipeline, source.path[-1], steps, skip)
            found = list(source.path.flip(0))
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
            assert torch.equal(source.latents, source.path[0])

    def test_the_published_48_of_50(self, invert):
        pipeline, source = invert("epsilon", steps=50, skip=1)
        assert pipeline.told == list(range(21, 962, 20))
        assert len(source.path) == 49
        schedule = source.schedule(pipeline.scheduler)
        # sampling begins at the level to which 961 led
        assert schedule.timesteps[0] == 981
        assert len(schedule) == 50

    @pytest.mark.parametrize("skip, begins", [(0, 0), (1, 0), (2, 1), (3, 2)])
    def test_sampling_begins_where_it_ended(self, invert, skip, begins):
        pipeline, source = invert("epsilon", steps=10, skip=skip)
        pipeline.scheduler.set_timesteps(10)
        levels = pipeline.scheduler.timesteps.tolist()
        schedule = source.schedule(pipeline.scheduler)
        assert list(schedule.timesteps) == levels[begins:]
        assert len(schedule.shares) == len(schedule) + 1
        # the U-Net was told the levels of the path but the last, backwards
        assert pipeline.told[::-1] == list(schedule.timesteps[1 : len(source.path)])

    @pytest.mark.parametrize("steps, skip, message", [(1, 0, "at least 2"), (2, 1, "skip must leave some")])
    def test_too_few_steps(self, invert, steps, skip, message):
        with pytest.raises(ValueError, match=message):
            invert("epsilon", steps=steps, skip=skip)


class TestFiles:
    def test_one_of_the_levels_before_is_refused(self, invert, tmp_path):
        path = tmp_path / "inversion.pt"
        _, source = invert("epsilon", steps=4)
        source.save(path)
        assert torch.equal(EditSource.load(path).path, source.path)
        old = {**vars(source), "captions": list(source.captions)}  # as it was written, without a number
        save_sealed(path, old, kind=inversion.KIND)
        with pytest.raises(ValueError, match="another version of geokernels, whose levels of noise are not"):
            EditSource.load(path)


@pytest.fixture(scope="module")
def later(exact_pipeline):
    """An inversion that ends a level below the noisiest, as an edit."""
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    source = ddim_inversion(exact_pipeline, picture, ["a"], steps=5, skip=2)
    return EditTask(picture, source, ("b",), ("b",), (0,))


class TestLaterBeginnings:
    def test_an_edit_takes_the_steps_that_are_left(self, exact_pipeline, later, encoder):
        run = OIGEdit(exact_pipeline, encoder, later.source, ["b"], config=OIGConfig())
        assert run.steps == 4
        unguided = OIGConfig(until=0.0, guidance_scale=3.0)
        run = OIGEdit(exact_pipeline, encoder, later.source, ["b"], config=unguided)
        run.finish()
        swap = DdimSwapConfig(guidance_scale=3.0)
        swapped = METHODS["ddim_swap"].run(EditModels(exact_pipeline), later, swap)
        torch.testing.assert_close(run.pictures(), swapped)

    def test_diffusers_begins_at_the_noisiest(self, exact_pipeline, later):
        method = METHODS["pix2pix_zero"]
        with pytest.raises(ValueError, match=r"Pix2Pix-Zero begins at the noisiest level, .* skip = 2"):
            method.run(EditModels(exact_pipeline), later, method.settings())


def test_diffedit_ends_with_the_picture_outside_its_mask(exact_pipeline, monkeypatch):
    pipeline = copy.copy(exact_pipeline)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    source = ddim_inversion(pipeline, picture, ["a"], steps=5)
    nowhere = torch.zeros(1, 16, 16, dtype=torch.float64).numpy()
    kind = diffusers.StableDiffusionDiffEditPipeline
    monkeypatch.setattr(kind, "generate_mask", lambda self, *given, **settings: nowhere)
    method, task = METHODS["diffedit"], EditTask(picture, source, ("b",), ("b",), (0,))
    found = method.run(EditModels(pipeline), task, method.settings())
    denoiser = inversion.Denoiser(pipeline)
    torch.testing.assert_close(found, denoiser.pictures(denoiser.encode(picture)), rtol=0, atol=1e-6)
