"""Editors on rectified flows, each written down line by line in float64 as it was published and released."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from geokernels.models import load_diffusion
from geokernels.models.flow import FlowModel
from geokernels.pipelines import ddim_inversion, flow_inversion
from geokernels.pipelines.comparators import FLOW, METHODS, UNET, EditModels, EditTask, require_suited
from geokernels.runs.edit_batch import Contender
from geokernels.testing.pipelines import FLOWS

diffusers = pytest.importorskip("diffusers")

STEPS = 4
OURS = ("no_edit", "flow_swap", "flow_sdedit", "flow_edit", "rf_inversion")
SETTINGS = {
    "flow_edit": {"steps": STEPS, "n_max": 3, "source_guidance_scale": 2.0, "guidance_scale": 5.0},
    "flow_swap": {"guidance_scale": 3.0},
    "flow_sdedit": {"steps": STEPS, "guidance_scale": 3.0},
    "rf_inversion": {"steps": STEPS, "guidance_scale": 3.0},
}


def task_of(pipeline, n=1, **settings):
    shown = torch.rand(n, 3, 24, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    captions, targets = ("a b", "c")[:n], ("a d", "e")[:n]
    source = flow_inversion(pipeline, shown, captions, **{"steps": STEPS, **settings})
    return EditTask(shown, source, targets, targets, tuple(range(n)))


def run(name, pipeline, task, **more):
    settings = {**SETTINGS.get(name, {}), **more}
    if not FlowModel(pipeline).guidable:
        settings = {k: v for k, v in settings.items() if k != "guidance_scale"}
    return METHODS[name].run(EditModels(pipeline), task, METHODS[name].settings(**settings))


class Literal:
    """One edit of one picture: what the papers and their code do, one line each."""

    def __init__(self, pipeline):
        self.pipeline, self.flux = pipeline, type(pipeline).__name__ == "FluxPipeline"

    def levels(self, steps):
        scheduler, config = self.pipeline.scheduler, self.pipeline.scheduler.config
        mu = None
        if config.use_dynamic_shifting:
            slope = (config.max_shift - config.base_shift) / (4096 - 256)
            mu = 15 * slope + config.base_shift - slope * 256  # 3 x 5 tokens
        if self.flux:
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        else:
            scheduler.set_timesteps(steps)
        return scheduler.sigmas.tolist()

    def encode(self, picture):
        vae = self.pipeline.vae
        x = vae.encode(2 * picture - 1).latent_dist.mode()
        return (x - vae.config.shift_factor) * vae.config.scaling_factor

    def velocity(self, x, t, prompt, scale=None):
        pipe = self.pipeline
        if not self.flux:
            embeds, nothing, pooled, none_pooled = pipe.encode_prompt(prompt, None, None, negative_prompt="")
            time = torch.tensor([1000 * t], dtype=torch.float32)
            v = pipe.transformer(x, embeds, pooled, time).sample
            if scale is None:
                return v
            empty = pipe.transformer(x, nothing, none_pooled, time).sample
            return empty + scale * (v - empty)
        embeds, pooled, text_ids = pipe.encode_prompt(prompt, None)
        image_ids = pipe._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float64)
        guidance = None
        if pipe.transformer.config.guidance_embeds:
            guidance = torch.tensor([1.0 if scale is None else scale], dtype=torch.float32)
        v = pipe.transformer(
            pipe._pack_latents(x, *x.shape), embeds, pooled, torch.tensor([t], dtype=torch.float32),
            image_ids, text_ids, guidance,
        ).sample  # fmt: skip
        return pipe._unpack_latents(v, 24, 40, 4)

    def sample(self, x, levels, prompt, scale):
        for t, after in pairwise(levels):
            x = x + (after - t) * self.velocity(x, t, prompt, scale)
        return x

    def flow_edit(self, picture, source, target, noise, n_max, n_min, n_avg, source_scale, scale):
        levels, x_src = self.levels(STEPS), self.encode(picture)
        zt_edit = x_src.clone()
        for i in range(STEPS):
            if STEPS - i > n_max:
                continue
            t_i, t_im1 = levels[i], levels[i + 1]
            if STEPS - i > n_min:
                v_delta = torch.zeros_like(x_src)
                for _ in range(n_avg):
                    zt_src = (1 - t_i) * x_src + t_i * noise()
                    zt_tar = zt_edit + zt_src - x_src
                    v_src = self.velocity(zt_src, t_i, source, source_scale)
                    v_tar = self.velocity(zt_tar, t_i, target, scale)
                    v_delta += (1 / n_avg) * (v_tar - v_src)
                zt_edit = zt_edit + (t_im1 - t_i) * v_delta
            else:
                if i == STEPS - n_min:
                    xt_src = t_i * noise() + (1 - t_i) * x_src
                    xt_tar = zt_edit + xt_src - x_src
                xt_tar = xt_tar + (t_im1 - t_i) * self.velocity(xt_tar, t_i, target, scale)
        return zt_edit if n_min == 0 else xt_tar

    def rf_inversion(self, picture, target, noise, gamma, eta, start, stop, scale):
        levels, y_0, y_1 = self.levels(STEPS), self.encode(picture), noise()
        Y = y_0
        for i in range(STEPS, 0, -1):  # the controlled forward ODE, Algorithm 1
            t = levels[i]
            unguided = 0.0 if self.flux else None
            u = self.velocity(Y, t, "", unguided)
            u_cond = (y_1 - Y) / (1 - t)
            Y = Y + (levels[i - 1] - t) * (u + gamma * (u_cond - u))
        X = Y
        for i in range(STEPS):  # the controlled reverse ODE, Algorithm 2; its time runs from noise
            t = 1 - levels[i]
            v = -self.velocity(X, levels[i], target, scale)
            v_cond = (y_0 - X) / (1 - t)
            eta_t = eta if int(start * STEPS) <= i < min(int(stop * STEPS), STEPS) else 0.0
            X = X + (levels[i] - levels[i + 1]) * (v + eta_t * (v_cond - v))
        return X


@pytest.fixture
def noise():
    chance = torch.Generator().manual_seed(0)
    return lambda: torch.randn(1, 16, 6, 10, generator=chance, dtype=torch.float32).double()


@pytest.fixture
def latents(monkeypatch):
    """Have methods return latents, where nothing has been rounded or clamped."""
    monkeypatch.setattr(FlowModel, "pictures", lambda model, latents: latents)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("latents")
@pytest.mark.parametrize("kind", FLOWS)
class TestLineByLine:
    @pytest.mark.parametrize("n_min, n_avg", [(0, 1), (2, 2)])
    @torch.no_grad()
    def test_flow_edit(self, kind, n_min, n_avg, exact, noise):
        literal, task = Literal(exact(kind)), task_of(exact(kind))
        expected = literal.flow_edit(task.pictures, "a b", "a d", noise, 3, n_min, n_avg, 2.0, 5.0)
        same(run("flow_edit", exact(kind), task, n_min=n_min, n_avg=n_avg), expected)
        assert (literal.encode(task.pictures) - expected).abs().max() > 1e-3

    @pytest.mark.parametrize("start, stop", [(0.0, 0.5), (0.25, 1.0)])
    @torch.no_grad()
    def test_rf_inversion(self, kind, start, stop, exact, noise):
        literal, task = Literal(exact(kind)), task_of(exact(kind))
        expected = literal.rf_inversion(task.pictures, "a d", noise, 0.3, 0.8, start, stop, 3.0)
        same(run("rf_inversion", exact(kind), task, gamma=0.3, eta=0.8, start=start, stop=stop), expected)

    @torch.no_grad()
    def test_swap(self, kind, exact):
        literal, task = Literal(exact(kind)), task_of(exact(kind), solver="euler")
        expected = literal.sample(task.source.latents, literal.levels(STEPS), "a d", 3.0)
        same(run("flow_swap", exact(kind), task), expected)

    @torch.no_grad()
    def test_sdedit(self, kind, exact, noise):
        literal, task = Literal(exact(kind)), task_of(exact(kind))
        levels = literal.levels(STEPS)[1:]  # strength 0.6 of 4 steps takes 3
        x = (1 - levels[0]) * literal.encode(task.pictures) + levels[0] * noise()
        same(run("flow_sdedit", exact(kind), task), literal.sample(x, levels, "a d", 3.0))


class TestEveryMethod:
    @pytest.mark.parametrize("name", OURS)
    @pytest.mark.parametrize("kind", FLOWS[::2])
    def test_an_edit_minds_itself(self, name, kind, exact):
        task = task_of(exact(kind), 2)
        both = run(name, exact(kind), task)
        assert both.shape == task.pictures.shape
        assert both.dtype == torch.float32
        for i in range(2):
            torch.testing.assert_close(run(name, exact(kind), task.part(i))[0], both[i], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("name", OURS)
    def test_whether_it_begins_from_the_inversion(self, name, exact):
        pipeline = exact(FLOWS[0])
        task = task_of(pipeline)
        other = replace(task, source=replace(task.source, latents=task.source.latents.flip(-1)))
        same = torch.equal(run(name, pipeline, task), run(name, pipeline, other))
        assert same != METHODS[name].inverted

    @pytest.mark.parametrize("name", OURS)
    def test_bfloat16(self, name, random_pipeline):
        pipeline = load_diffusion(random_pipeline("distilled"), dtype=torch.bfloat16)
        assert torch.isfinite(run(name, pipeline, task_of(pipeline))).all()

    def test_published_settings(self, exact):
        steps = {"sd3": {"flow_edit": 50, "flow_sdedit": 50, "rf_inversion": 28}}
        steps["flux"] = {"flow_edit": 28, "flow_sdedit": 28, "rf_inversion": 28}
        for kind, model in (("sd3", FLOWS[0]), ("flux", FLOWS[2])):
            for name, count in steps[kind].items():
                contender = Contender(name, METHODS[name], METHODS[name].settings())
                assert contender.settled(EditModels(exact(model))).settings.steps == count
        edit = METHODS["flow_edit"].settings()
        at_sd3, at_flux = (edit.settled(FlowModel(exact(kind))) for kind in (FLOWS[0], FLOWS[2]))
        assert (at_sd3.n_max, at_sd3.source_guidance_scale, at_sd3.guidance_scale) == (33, 3.5, 13.5)
        assert (at_flux.n_max, at_flux.source_guidance_scale, at_flux.guidance_scale) == (24, 1.5, 5.5)


class TestRefusals:
    def test_a_method_of_the_other_family(self, exact, pipeline_folder):
        unet = load_diffusion(pipeline_folder)
        for name, method in METHODS.items():
            for pipeline, family in ((unet, UNET), (exact(FLOWS[0]), FLOW)):
                if family in method.suits:
                    require_suited(name, method, pipeline)
                else:
                    with pytest.raises(
                        TypeError, match=rf"{name} edits with .* alone, got a StableDiffusion"
                    ):
                        require_suited(name, method, pipeline)
        given = torch.zeros(1, 3, 64, 64)
        task = EditTask(given, ddim_inversion(unet, given, ["a"], steps=3), ("b",), ("b",), (0,))
        with pytest.raises(TypeError, match="must be a StableDiffusion3Pipeline or FluxPipeline"):
            METHODS["flow_edit"].run(EditModels(unet), task, METHODS["flow_edit"].settings())

    @pytest.mark.parametrize("settings", [{"n_min": 4, "n_max": 3}, {"steps": 10, "n_max": 11}])
    def test_ways_that_end_before_they_begin(self, settings):
        with pytest.raises(ValueError, match="n_min must be at most n_max, and n_max at most steps"):
            METHODS["flow_edit"].settings(**settings)

    def test_guidance_of_a_model_that_has_none(self, exact):
        with pytest.raises(ValueError, match="guidance_scale must be left out for a model without"):
            METHODS["flow_edit"].settings(guidance_scale=5.0).settled(FlowModel(exact("FluxPipeline")))
