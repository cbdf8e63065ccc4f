"""oig_edit is what its description says, in any batch, precision and order of interruption."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from geokernels import world
from geokernels.losses.editing import contrast_loss, resemblance_loss
from geokernels.models import load_diffusion
from geokernels.models.denoiser import Denoiser
from geokernels.pipelines.edit.ddim import Schedule, schedule_of
from geokernels.pipelines.edit.network import residual_convolutions
from geokernels.pipelines.edit.oig import OIGConfig, OIGEdit, oig_edit, step_length
from geokernels.pipelines.edit.source import EditSource, ddim_inversion, draw_source

diffusers = pytest.importorskip("diffusers")

V = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

PLAIN = OIGConfig(recipe="published", gradient="exact")
CYCLED = replace(PLAIN, cycle=0.3, cycle_steps=2)


def pictures(n, height=64, width=64):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def noise(pipeline, captions, **settings):
    return draw_source(pipeline, captions, generator=torch.Generator().manual_seed(1), **settings)


class TestMethod:
    def test_gradient_modes_differ(self, exact_pipeline, encoder):
        source, found = noise(exact_pipeline, ["a"], steps=2), []
        for gradient in ("exact", "released"):
            run = OIGEdit(exact_pipeline, encoder, source, ["b"], config=OIGConfig(gradient=gradient))
            run.step()
            found.append(run.edits)
        assert (found[0] - found[1]).abs().max() > 1e-6

    def test_length_of_steps(self):
        found = [step_length(i, 50) for i in range(50)]
        # as released: one on, and the last twice
        assert found[:3] == [0.8, 1.2, 1.6]
        assert found[3:] == [2 * 1.05**-k for k in [*range(5, 51), 50]]
        assert [round(length, 3) for length in (found[3], *found[-2:])] == [1.567, 0.174, 0.174]
        assert step_length(0, 9) == 2 / 1.05**2
        assert step_length(0, 1) == 2 / 1.05

    def test_layers_are_those_of_both_ways(self, pipeline_folder):
        # one block of one ResNet and one more on each way up: 2 + 4, and none of the middle's two
        unet = load_diffusion(pipeline_folder).unet
        names = {id(module): name for name, module in unet.named_modules()}
        found = [names[id(layer)] for layer in residual_convolutions(unet)]
        assert len(found) == 6
        assert all(name.startswith(("down", "up")) and name.endswith("conv2") for name in found)


class TestDdim:
    @pytest.mark.parametrize("steps", [5, 50])
    @pytest.mark.parametrize(
        "settings", [{}, V, {"prediction_type": "sample"}], ids=["epsilon", "v", "sample"]
    )
    def test_steps_are_those_of_diffusers(self, settings, steps):
        scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, **settings)
        scheduler.set_timesteps(steps)
        schedule = schedule_of(scheduler, steps)
        assert list(schedule.timesteps) == scheduler.timesteps.tolist()
        x, output = pictures(2)
        for i, t in enumerate(schedule.timesteps):
            ours = schedule.split(x, output, schedule.shares[i]).at(schedule.shares[i + 1])
            theirs = scheduler.step(output, t, x).prev_sample
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
    def test_a_clean_picture_can_be_led_back_into_noise(self, prediction):
        schedule = Schedule((500, 1), (0.5, 0.9, 1.0), prediction)
        x, output = pictures(2)
        back = schedule.split(x, output, 1.0).at(0.9)
        assert torch.isfinite(back).all()
        assert 0 < (back - x).norm() < 2 * x.norm()

    def test_inversion_is_undone(self):
        # by a U-Net that was trained: only such a one says nearly the same of both ends of a step
        pipeline, chance = load_diffusion("world"), torch.Generator().manual_seed(0)
        scenes = world.sample_scenes(1, generator=chance)
        source = ddim_inversion(pipeline, world.render(scenes), world.caption(scenes), steps=20, skip=0)
        denoise, schedule, x = Denoiser(pipeline), schedule_of(pipeline.scheduler, 20), source.latents
        clean, words = denoise.encode(world.render(scenes)), denoise.read(world.caption(scenes))
        assert (x - clean).norm() > 0.5 * clean.norm()
        with torch.no_grad():
            for i, t in enumerate(schedule.timesteps):
                x = schedule.split(x, denoise(x, t, words), schedule.shares[i]).at(schedule.shares[i + 1])
        assert (x - clean).norm() < 0.25 * clean.norm()

    @pytest.mark.parametrize(
        "scheduler, message",
        [
            (lambda: diffusers.FlowMatchEulerDiscreteScheduler(), "must have a table of alphas_cumprod"),
            (
                lambda: diffusers.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
                "signal",
            ),
        ],
        ids=["flow", "epsilon out of noise alone"],
    )
    def test_refuses_what_it_cannot_follow(self, scheduler, message):
        with pytest.raises(ValueError, match=message):
            schedule_of(scheduler(), 5)


class TestLosses:
    def test_gradients_by_finite_differences(self):
        generator = torch.Generator().manual_seed(0)
        shapes = [(2, 3, 2, 2, 2), (2, 3, 1, 4, 4)]
        draw = lambda: [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]  # noqa: E731
        now, source, previous = draw(), draw(), draw()
        leaves = [part.requires_grad_() for part in now]
        assert torch.autograd.gradcheck(lambda *f: resemblance_loss(f, source, previous), leaves)
        assert torch.autograd.gradcheck(lambda *f: resemblance_loss(f, source, None), leaves)
        rows = [
            torch.randn(4, 5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)
        ]
        assert torch.autograd.gradcheck(lambda *r: contrast_loss(*r), rows)

    def test_no_pull_where_the_last_step_moved_further(self):
        now = [torch.ones(1, 1, 1, 1, 1, requires_grad=True)]
        loss = resemblance_loss(now, [torch.zeros(1, 1, 1, 1, 1)], [torch.full((1, 1, 1, 1, 1), 9.0)])
        assert loss.item() == 0
        assert torch.autograd.grad(loss.sum(), now)[0].item() == 0


class TestBatches:
    @pytest.mark.parametrize("config", [PLAIN, CYCLED], ids=["plain", "cycle"])
    def test_an_edit_does_not_depend_on_the_others(self, exact_pipeline, config, encoder):
        source = ddim_inversion(exact_pipeline, pictures(2), ["a", "c"], steps=3)
        both = oig_edit(exact_pipeline, encoder, source, ["b", "d"], config=config)
        for i, (caption, target) in enumerate([("a", "b"), ("c", "d")]):
            alone = EditSource(source.latents[i : i + 1], (caption,), True, 3, source.model, 1)
            found = oig_edit(exact_pipeline, encoder, alone, [target], config=config)
            torch.testing.assert_close(found.pictures[0], both.pictures[i], rtol=1e-5, atol=1e-6)
            ours, theirs = found.history[:, 0], both.history[:, i]
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, equal_nan=True)

    @pytest.mark.parametrize("config", [PLAIN, CYCLED], ids=["plain", "cycle"])
    @pytest.mark.parametrize("real", [True, False], ids=["inverted", "drawn"])
    def test_one_source_serves_several_edits(self, exact_pipeline, real, config, tmp_path, encoder):
        source = (
            ddim_inversion(exact_pipeline, pictures(1), ["a"], steps=3)
            if real
            else noise(exact_pipeline, ["a"], steps=3)
        )
        source.save(tmp_path / "source.pt")
        kept = EditSource.load(tmp_path / "source.pt")
        both = oig_edit(exact_pipeline, encoder, kept, ["b", "c"], config=config)
        assert both.sources.shape[0] == 1
        for i, target in enumerate("bc"):
            alone = oig_edit(exact_pipeline, encoder, source, [target], config=config)
            torch.testing.assert_close(alone.pictures[0], both.pictures[i], rtol=1e-5, atol=1e-6)

    def test_any_aspect_ratio(self, exact_pipeline, encoder):
        source = ddim_inversion(exact_pipeline, pictures(1, 32, 72), ["a"], steps=2, skip=0)
        assert oig_edit(exact_pipeline, encoder, source, ["b"]).pictures.shape == (1, 3, 32, 72)


class TestEconomy:
    @pytest.mark.parametrize("config", [PLAIN, CYCLED], ids=["plain", "cycle"])
    def test_checkpointing_changes_nothing(self, exact_pipeline, config, encoder):
        source = noise(exact_pipeline, ["a"], steps=2)
        plain = oig_edit(exact_pipeline, encoder, source, ["b"], config=config)
        config = replace(config, checkpointing=True)
        saved = oig_edit(exact_pipeline, encoder, source, ["b"], config=config)
        torch.testing.assert_close(plain.history, saved.history, rtol=1e-6, atol=0, equal_nan=True)
        torch.testing.assert_close(plain.pictures, saved.pictures, rtol=1e-5, atol=1e-6)
        assert not exact_pipeline.unet.is_gradient_checkpointing
        assert not exact_pipeline.vae.is_gradient_checkpointing

    def test_weights_have_no_gradients_and_stay_their_owners(self, exact_pipeline, encoder):
        pipeline = copy.deepcopy(exact_pipeline)
        pipeline.unet.requires_grad_(True)
        source = noise(pipeline, ["a"], steps=2)
        trained = oig_edit(pipeline, encoder, source, ["b"])
        assert all(p.requires_grad and p.grad is None for p in pipeline.unet.parameters())
        torch.testing.assert_close(
            trained.pictures, oig_edit(exact_pipeline, encoder, source, ["b"]).pictures
        )

    def test_guidance_on_a_part_of_the_steps(self, exact_pipeline, encoder):
        config = OIGConfig(every=2, until=0.5)
        run = OIGEdit(exact_pipeline, encoder, noise(exact_pipeline, ["a"], steps=8), ["b"], config=config)
        assert math.isnan(run.loss)
        while not run.done:
            run.step()
        guided = ~run.history.isnan().any(-1)[:, 0]
        assert guided.tolist() == [True, False, True, False, False, False, False, False]
        assert run.loss == run.history[2, 0, 0].item()

    def test_reduced_decoding_shows_the_same_picture_smaller(self, exact_pipeline, encoder):
        source = noise(exact_pipeline, ["a"], steps=2)
        whole = oig_edit(exact_pipeline, encoder, source, ["b"])
        same = oig_edit(exact_pipeline, encoder, source, ["b"], config=OIGConfig(decode_size=64))
        small = oig_edit(exact_pipeline, encoder, source, ["b"], config=OIGConfig(decode_size=32))
        assert torch.equal(same.history, whole.history)
        assert not torch.equal(small.history, whole.history)

    def test_another_decoder(self, exact_pipeline, encoder):
        torch.manual_seed(0)
        tiny = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(4, 4, 4), decoder_block_out_channels=(4, 4, 4),
            num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1),
        ).double().eval()  # fmt: skip
        for checkpointing in (False, True):
            result = oig_edit(
                exact_pipeline,
                encoder,
                noise(exact_pipeline, ["a"], steps=2),
                ["b"],
                decoder=tiny,
                config=OIGConfig(checkpointing=checkpointing),
            )
            assert torch.isfinite(result.history).all()

    @pytest.mark.parametrize("config", [PLAIN, CYCLED], ids=["plain", "cycle"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_precisions(self, pipeline_folder, dtype, config, encoder, single_encoder):
        pipeline = load_diffusion(pipeline_folder, dtype=dtype)
        source = noise(pipeline, ["a"], steps=3)
        found = oig_edit(pipeline, single_encoder, source, ["b"], config=config)
        assert found.history.dtype == found.pictures.dtype == source.latents.dtype == torch.float32
        truth = load_diffusion(pipeline_folder, dtype=torch.float64)
        expected = oig_edit(truth, encoder, source, ["b"], config=config)
        found, expected = (result.history.nan_to_num() for result in (found, expected))
        error = (found - expected).norm() / expected.norm()
        assert error < 300 * torch.finfo(dtype).eps


class TestResuming:
    @pytest.mark.parametrize("config", [PLAIN, CYCLED], ids=["plain", "cycle"])
    @pytest.mark.parametrize("at", [0, 2])
    def test_ends_as_if_never_stopped(self, exact_pipeline, at, config, tmp_path, encoder):
        source = ddim_inversion(exact_pipeline, pictures(1), ["a"], steps=3)
        whole = oig_edit(exact_pipeline, encoder, source, ["b", "c"], config=config)
        first = OIGEdit(exact_pipeline, encoder, source, ["b", "c"], config=config)
        for _ in range(at):
            first.step()
        torch.save(first.state_dict(), tmp_path / "state.pt")
        rest = OIGEdit(exact_pipeline, encoder, source, ["b", "c"], config=config)
        rest.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        while not rest.done:
            rest.step()
        assert torch.equal(rest.pictures(), whole.pictures)
        assert torch.equal(rest.history.nan_to_num(-1), whole.history.nan_to_num(-1))

    def test_not_into_another_run(self, exact_pipeline, encoder):
        source = noise(exact_pipeline, ["a"], steps=2)
        state = OIGEdit(exact_pipeline, encoder, source, ["b"]).state_dict()
        other = OIGEdit(exact_pipeline, encoder, source, ["c"])
        with pytest.raises(ValueError, match=r"made with targets = \['b'\], this run has \['c'\]"):
            other.load_state_dict(state)

    def test_not_of_another_unet(self, exact_pipeline, pipeline_folder, encoder):
        other = load_diffusion(pipeline_folder, dtype=torch.float64)
        with torch.no_grad():
            other.unet.conv_in.weight.neg_()
        runs = [
            OIGEdit(pipeline, encoder, noise(pipeline, ["a"], steps=2), ["b"])
            for pipeline in (exact_pipeline, other)
        ]
        with pytest.raises(ValueError, match=r"^the checkpoint was made with another unet$"):
            runs[1].load_state_dict(runs[0].state_dict())


class TestErrors:
    @pytest.mark.parametrize(
        "targets, message",
        [
            (["b", "c"], "one text for each of 2 sources|must be one text"),
            ([], "must be one text"),
            ("b", "must be one text"),
            (["a", "c", "d"], "must be one text"),
        ],
    )
    def test_targets(self, exact_pipeline, targets, message, encoder):
        source = noise(exact_pipeline, ["a", "b"] if targets != ["b", "c"] else ["a", "b", "c"], steps=2)
        with pytest.raises(ValueError, match=message):
            OIGEdit(exact_pipeline, encoder, source, targets)

    def test_target_is_the_source(self, exact_pipeline, encoder):
        with pytest.raises(ValueError, match="must differ from its source, got 'a '"):
            OIGEdit(exact_pipeline, encoder, noise(exact_pipeline, ["a"], steps=2), ["a "])

    def test_another_model(self, exact_pipeline, pipeline_folder, encoder):
        source = noise(exact_pipeline, ["a"], steps=2)
        other = load_diffusion(pipeline_folder, dtype=torch.float64)
        with torch.no_grad():
            other.unet.conv_in.weight.neg_()
        with pytest.raises(ValueError, match="made with another"):
            OIGEdit(other, encoder, source, ["b"])

    def test_not_finite(self, exact_pipeline, encoder):
        run = OIGEdit(exact_pipeline, encoder, noise(exact_pipeline, ["a"], steps=2), ["b"])
        run.edits.fill_(math.inf)
        with pytest.raises(FloatingPointError, match="gradient at step 0 is not finite"):
            run.step()

    def test_too_many_steps_taken(self, exact_pipeline, encoder):
        run = OIGEdit(exact_pipeline, encoder, noise(exact_pipeline, ["a"], steps=1), ["b"])
        run.step()
        with pytest.raises(RuntimeError, match="all 1 steps"):
            run.step()

    @pytest.mark.parametrize(
        "settings",
        [
            {"gradient": "true"},
            {"negative": "caption"},
            {"clip": -1},
            {"until": 1.5},
            {"every": 0},
            {"decode_size": 0},
            {"step": math.nan},
        ],
        ids=str,
    )
    def test_settings(self, settings):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} must"):
            OIGConfig(**settings)

    def test_pictures(self, exact_pipeline):
        with pytest.raises(ValueError, match="sides divisible by 8, got"):
            ddim_inversion(exact_pipeline, pictures(1, 60, 64), ["a"], steps=4)
        with pytest.raises(ValueError, match=r"shape \(2, 3, H, W\)"):
            ddim_inversion(exact_pipeline, pictures(1), ["a", "b"], steps=4)
        with pytest.raises(ValueError, match="must be finite, got NaN"):
            ddim_inversion(exact_pipeline, pictures(1) * math.nan, ["a"], steps=4)
        with pytest.raises(ValueError, match="skip must leave some of the 2 steps"):
            ddim_inversion(exact_pipeline, pictures(1), ["a"], steps=2)

    def test_damaged_inversion(self, tmp_path):
        (tmp_path / "source.pt").write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"is damaged .* invert the picture again"):
            EditSource.load(tmp_path / "source.pt")
