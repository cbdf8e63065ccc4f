"""Rectified flows are followed there and back as published, at the levels of diffusers' own pipelines."""

from itertools import pairwise

import pytest
import torch

from geokernels.models import load_diffusion
from geokernels.models.flow import FlowModel
from geokernels.pipelines import ddim_inversion, draw_source, flow_inversion
from geokernels.pipelines.comparators import METHODS, EditModels, EditTask
from geokernels.pipelines.edit.flow_inversion import invert
from geokernels.pipelines.edit.flow_schedule import FlowSchedule, flow_schedule
from geokernels.pipelines.edit.flow_solvers import SOLVERS, passes_of, travel
from geokernels.pipelines.edit.source import EditSource
from geokernels.runs.passes import counted
from geokernels.testing.pipelines import FLOWS

diffusers = pytest.importorskip("diffusers")


def pictures(n, height=24, width=40):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def literal(velocity, x, levels, solver):
    """The published steps, one line each."""
    kept = None
    for t_curr, t_next in pairwise(levels):
        if solver == "euler":
            x = x + (t_next - t_curr) * velocity(x, t_curr)
            continue
        pred = velocity(x, t_curr) if kept is None else kept
        x_mid = x + (t_next - t_curr) / 2 * pred
        pred_mid = velocity(x_mid, t_curr + (t_next - t_curr) / 2)
        if solver == "rf_solver":
            derivative = (pred_mid - pred) / ((t_next - t_curr) / 2)
            x = x + (t_next - t_curr) * pred + 0.5 * (t_next - t_curr) ** 2 * derivative
        else:
            x = x + (t_next - t_curr) * pred_mid
        if solver == "fireflow":
            kept = pred_mid
    return x


class TestSolvers:
    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("way", [1, -1], ids=["up", "down"])
    def test_the_published_steps_and_passes(self, solver, way):
        asked = []

        def velocity(x, level):
            asked.append(level)
            return (3 * x + level).sin() * (1 + level)

        levels = [0.0, 0.2, 0.5, 0.6, 1.0][::way]
        x = torch.linspace(-2, 2, 5, dtype=torch.float64)
        *_, found = travel(velocity, x, levels, solver)
        assert len(asked) == passes_of(solver, 4)
        torch.testing.assert_close(found, literal(velocity, x, levels, solver), rtol=1e-13, atol=1e-13)

    @pytest.mark.parametrize("solver, order", [*zip(SOLVERS, (1, 2, 2, 2), strict=True)])
    def test_order(self, solver, order):
        # x' = x, whose way from 0 to 1 is known: a method of order p halves its error p times
        def error(n):
            levels = torch.linspace(0, 1, n + 1, dtype=torch.float64).tolist()
            *_, found = travel(lambda x, level: x, torch.ones(1, dtype=torch.float64), levels, solver)
            return (found - torch.ones(1, dtype=torch.float64).exp()).abs().item()

        assert error(64) / error(128) == pytest.approx(2**order, rel=0.1)

    def test_no_such_solver(self):
        with pytest.raises(ValueError, match="solver must be one of euler, midpoint, rf_solver, fireflow"):
            next(travel(lambda x, level: x, torch.zeros(1), [0.0, 1.0], "heun"))


class TestLevels:
    @pytest.mark.parametrize("kind", FLOWS)
    @pytest.mark.parametrize("sides", [(16, 16), (6, 10)])
    def test_are_those_of_diffusers(self, kind, sides, exact):
        pipeline = exact(kind)
        found = flow_schedule(FlowModel(pipeline), 4, sides)
        height, width = (4 * side for side in sides)
        with torch.no_grad():
            pipeline("a", num_inference_steps=4, height=height, width=width, output_type="latent")
        assert list(found.shares) == pipeline.scheduler.sigmas.tolist()
        assert (found.shares[0], found.shares[-1]) == (1.0, 0.0)

    def test_resolution_shifts_them_where_the_scheduler_says_so(self, exact):
        model = FlowModel(exact("distilled"))
        small, large = (flow_schedule(model, 4, (side, side)).shares[1] for side in (8, 128))
        assert large > small

    def test_a_state_is_its_parts(self):
        schedule, (x, v) = FlowSchedule((1.0, 0.7, 0.0)), pictures(2)
        parts = schedule.split(x, v, 0.7)
        torch.testing.assert_close(parts.noise - parts.picture, v)
        torch.testing.assert_close(parts.at(0.7), x)
        torch.testing.assert_close(parts.at(0.2), x + (0.2 - 0.7) * v)
        assert (len(schedule), schedule.timesteps) == (2, (1.0, 0.7))

    @pytest.mark.parametrize(
        "scheduler, message",
        [
            (lambda: diffusers.DDIMScheduler(), "must be a FlowMatchEulerDiscreteScheduler, got DDIM"),
            (lambda: diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "not have invert_sigmas"),
            (
                lambda: diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=3),
                "between 1 and 3, got 5",
            ),
        ],
        ids=["ddim", "inverted", "steps"],
    )
    def test_refuses_what_it_cannot_follow(self, scheduler, message, random_pipeline):
        pipeline = load_diffusion(random_pipeline("StableDiffusion3Pipeline"))
        pipeline.scheduler = scheduler()
        with pytest.raises(ValueError, match=message):
            flow_schedule(FlowModel(pipeline), 5, (16, 16))


class TestInversion:
    @pytest.mark.parametrize("kind", FLOWS)
    @pytest.mark.parametrize("solver", SOLVERS)
    @torch.no_grad()
    def test_line_by_line(self, kind, solver, exact):
        pipeline, steps, told = exact(kind), 3, []
        source = flow_inversion(
            pipeline, pictures(2), ["a b", "c"], steps=steps, solver=solver, callback=told.append
        )
        model, vae = FlowModel(pipeline), pipeline.vae
        words = model.read(["a b", "c"])
        x = vae.encode(2 * pictures(2) - 1).latent_dist.mode()
        x = (x - vae.config.shift_factor) * vae.config.scaling_factor
        levels = flow_schedule(model, steps, (6, 10)).shares[::-1]
        with counted(model.network) as passes:
            expected = literal(lambda x, level: model(x, level, words), x, levels, solver)
        torch.testing.assert_close(source.latents, expected, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(source.path[-1], x)
        assert torch.equal(source.path[0], source.latents)
        assert (len(source.path), told, source.solver) == (steps + 1, [1, 2, 3], solver)
        assert passes.count == 2 * passes_of(solver, steps)
        if kind == "distilled":
            assert words.guidance.tolist() == [1.0, 1.0]

    @pytest.mark.parametrize("kind", FLOWS[:1])
    def test_more_steps_come_back_nearer(self, kind, exact):
        task, missed = pictures(1), []
        for steps in (2, 12):
            source = flow_inversion(exact(kind), task, ["a b"], steps=steps)
            edits = EditTask(task, source, ("b",), ("b",), (0,))
            back = METHODS["no_edit"].run(EditModels(exact(kind)), edits, METHODS["no_edit"].settings())
            plain = FlowModel(exact(kind)).pictures(source.path[-1])
            missed.append((back - plain).norm().item())
        assert missed[1] < 0.3 * missed[0]

    def test_a_file_keeps_it(self, exact, tmp_path):
        source = flow_inversion(exact(FLOWS[0]), pictures(1), ["a"], steps=2, solver="fireflow")
        source.save(tmp_path / "inversion.pt")
        read = EditSource.load(tmp_path / "inversion.pt")
        assert torch.equal(read.path, source.path)
        assert read.solver == "fireflow"

    def test_noise_is_drawn_for_flows_too(self, exact):
        chance = torch.Generator().manual_seed(1)
        source = draw_source(exact("distilled"), ["a"], steps=2, height=24, width=40, generator=chance)
        assert (source.latents.shape, source.solver, source.inverted) == ((1, 16, 6, 10), None, False)

    def test_each_model_has_its_own(self, exact, pipeline_folder):
        unet = load_diffusion(pipeline_folder)
        given = pictures(1, 64, 64).float()
        assert invert(unet, given, ["a"], steps=3).solver is None
        assert invert(exact(FLOWS[0]), given, ["a"], steps=3, skip=0).solver == "midpoint"
        with pytest.raises(ValueError, match="solver must be left out for a U-Net"):
            invert(unet, given, ["a"], steps=3, solver="euler")
        with pytest.raises(ValueError, match="skip must be left out for a rectified-flow model"):
            invert(exact(FLOWS[0]), given, ["a"], steps=3, skip=1)
        with pytest.raises(TypeError, match="must be a StableDiffusion3Pipeline or FluxPipeline"):
            flow_inversion(unet, given, ["a"])
        with pytest.raises(TypeError, match="must be a StableDiffusionPipeline or StableDiffusionXLPipeline"):
            ddim_inversion(exact(FLOWS[0]), given, ["a"])
