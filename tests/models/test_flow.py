"""FlowModel asks a transformer for what diffusers' own pipelines ask it for, in any size and batch."""

import json
import shutil
from itertools import pairwise

import pytest
import torch

from geokernels.models import load_diffusion
from geokernels.models.denoiser import Denoiser
from geokernels.models.flow import FlowModel, latent_model
from geokernels.models.latents import UnsuitedPipelineError, decode
from geokernels.runs.passes import counted
from geokernels.testing.pipelines import save_random_pipeline

diffusers = pytest.importorskip("diffusers")

KINDS = ("StableDiffusion3Pipeline", "FluxPipeline", "distilled")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    saved = {}

    def of(kind: str):
        if kind not in saved:
            saved[kind] = save_random_pipeline(kind, tmp_path_factory.mktemp(kind) / "model")
        return saved[kind]

    return of


@pytest.fixture(scope="module")
def exact(folder):
    """A pipeline of a kind in float64; nobody may change it."""
    loaded = {}

    def of(kind: str):
        if kind not in loaded:
            loaded[kind] = load_diffusion(folder(kind), dtype=torch.float64)
        return loaded[kind]

    return of


def states(n: int, h: int = 6, w: int = 10) -> torch.Tensor:
    return torch.randn(n, 16, h, w, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_sample_is_that_of_diffusers(kind, exact):
    pipeline, noise, steps, scale = exact(kind), states(2), 3, 4.0
    model = FlowModel(pipeline)
    asked, nothing = model.read(["red cat", "a dog"]), model.read(["", ""])
    words, packed = model.guided(nothing, asked, scale), kind != KINDS[0]
    given = pipeline._pack_latents(noise, *noise.shape) if packed else noise
    theirs = pipeline(
        ["red cat", "a dog"], latents=given, num_inference_steps=steps, guidance_scale=scale,
        height=24, width=40, output_type="latent",
    ).images  # fmt: skip
    theirs = pipeline._unpack_latents(theirs, 24, 40, 4) if packed else theirs
    x, sigmas = noise, pipeline.scheduler.sigmas.tolist()
    with counted(model.network) as passes:
        for before, after in pairwise(sigmas):
            copies = [model(x, before, part) for part in words]
            v = copies[0] if len(copies) == 1 else copies[0] + scale * (copies[1] - copies[0])
            x = x + (after - before) * v
    # their scheduler adds in float32
    torch.testing.assert_close(x, theirs.double(), rtol=1e-5, atol=1e-5)
    assert passes.count == 2 * steps * len(words)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_each_of_a_batch_minds_itself(kind, exact):
    model, x = FlowModel(exact(kind)), states(2)
    words = model.read(["red cat", "a dog"])
    both = model(x, 0.4, words)
    for i in range(2):
        one = model(x[i : i + 1], 0.4, model.read([["red cat", "a dog"][i]]))
        torch.testing.assert_close(one[0], both[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_there_and_back_as_the_autoencoder_scales_and_shifts_them(kind, exact):
    pipeline = exact(kind)
    model, config = FlowModel(pipeline), pipeline.vae.config
    shown = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        raw = pipeline.vae.encode(2 * shown - 1).latent_dist.mode()
        found = model.encode(shown)
        assert config.shift_factor
        torch.testing.assert_close(found, (raw - config.shift_factor) * config.scaling_factor)
        theirs = pipeline.vae.decode(found / config.scaling_factor + config.shift_factor).sample
        torch.testing.assert_close(decode(model.vae, found), theirs / 2 + 0.5)
        torch.testing.assert_close(model.pictures(found), (theirs / 2 + 0.5).clamp(0, 1).float())


class TestGuidance:
    def test_distilled_guidance_is_an_input(self, exact):
        model, x = FlowModel(exact("distilled")), states(1)
        asked, nothing = model.read(["red"]), model.read([""])
        (weak,), (strong,) = model.guided(nothing, asked, 1.0), model.guided(nothing, asked, 5.0)
        torch.testing.assert_close(asked.guidance, weak.guidance)
        with torch.no_grad():
            assert (model(x, 0.5, weak) - model(x, 0.5, strong)).abs().max() > 1e-6

    def test_without_guidance_there_is_none(self, exact):
        model = FlowModel(exact("FluxPipeline"))
        asked, nothing = model.read(["red"]), model.read([""])
        assert model.guided(nothing, asked, 5.0) == (asked,)
        assert not model.guidable

    def test_a_scale_of_one_needs_no_second_pass(self, exact):
        model = FlowModel(exact("StableDiffusion3Pipeline"))
        asked, nothing = model.read(["red"]), model.read([""])
        assert len(model.guided(nothing, asked, 1.0)) == 1
        assert len(model.guided(nothing, asked, 2.0)) == 2


class TestLoading:
    @pytest.mark.parametrize("kind", KINDS)
    def test_precision_and_gradients(self, kind, folder):
        model = FlowModel(load_diffusion(folder(kind), dtype=torch.bfloat16))
        assert (model.network.dtype, model.dtype) == (torch.bfloat16, torch.float32)
        x, words = states(1).float().requires_grad_(), model.read(["red"])
        plain = model(x, 0.5, words)
        assert plain.dtype == torch.float32
        (gradient,) = torch.autograd.grad(plain.square().sum(), x)
        model.network.enable_gradient_checkpointing()
        (again,) = torch.autograd.grad(model(x, 0.5, words).square().sum(), x)
        torch.testing.assert_close(again, gradient)
        assert gradient.abs().max() > 0
        assert not any(p.requires_grad for p in model.network.parameters())

    def test_stable_diffusion_3_without_t5(self, folder, tmp_path):
        pipeline = load_diffusion(folder("StableDiffusion3Pipeline"))
        whole = FlowModel(pipeline).read(["red"])
        pipeline.text_encoder_3 = pipeline.tokenizer_3 = None
        pipeline.save_pretrained(tmp_path / "without")
        model = FlowModel(load_diffusion(tmp_path / "without"))
        words = model.read(["red"])
        assert words.rows.shape == whole.rows.shape
        torch.testing.assert_close(words.rows[:, :77], whole.rows[:, :77])
        assert not words.rows[:, 77:].any()

    @pytest.mark.parametrize("kind", KINDS[:2])
    @pytest.mark.parametrize("part", ["text_encoder_2", "transformer"])
    def test_a_missing_part_is_named(self, kind, part, folder, tmp_path):
        copy = shutil.copytree(folder(kind), tmp_path / "copy")
        index = json.loads((copy / "model_index.json").read_text())
        index[part] = [None, None]
        (copy / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=rf"must have a {part}, found none in .*copy"):
            load_diffusion(copy)

    def test_the_same_model_in_any_precision(self, folder):
        digests = {
            FlowModel(load_diffusion(folder(KINDS[0]), dtype=dtype)).digest()
            for dtype in (torch.float32, torch.bfloat16)
        }
        assert len(digests) == 1

    def test_what_is_no_flow(self, random_pipeline, exact):
        unet = load_diffusion(random_pipeline("StableDiffusionPipeline"))
        assert isinstance(latent_model(unet), Denoiser)
        assert isinstance(latent_model(exact(KINDS[0])), FlowModel)
        with pytest.raises(UnsuitedPipelineError, match="StableDiffusion3Pipeline or FluxPipeline, got Stab"):
            FlowModel(unet)
        with pytest.raises(UnsuitedPipelineError, match=r"XLPipeline, .* or FluxPipeline, got str"):
            latent_model("world")


class TestSizes:
    @pytest.mark.parametrize("kind", KINDS[:2])
    def test_sides_that_do_not_divide(self, kind, exact):
        model = FlowModel(exact(kind))
        assert model.multiple == 8
        with pytest.raises(ValueError, match=r"sides divisible by 8, got \(20, 24\)"):
            model.encode(torch.zeros(1, 3, 20, 24))
        assert model.tokens(6, 10) == 15

    def test_pictures_beyond_the_known_places(self, exact):
        model = FlowModel(exact("StableDiffusion3Pipeline"))
        most = model.network.config.pos_embed_max_size * 8
        with pytest.raises(ValueError, match=f"sides of at most {most} pixels"):
            model.latent_shape(64, most + 8)
