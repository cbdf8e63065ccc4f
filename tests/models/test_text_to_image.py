"""One face for every kind of pipeline: what it reads of a prompt, what it draws, what it refuses."""

import json
import shutil

import pytest
import torch

from geokernels.models import load_text_to_image
from geokernels.models.families import FAMILIES
from geokernels.models.text_to_image import CONTENT, END, PADDING, START, TextToImage

pytest.importorskip("diffusers")
MEASURES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
)
SIZE = {"FluxPipeline": (64, 64)}  # its own is fixed in its code, and large


@pytest.fixture(scope="module")
def models(random_pipeline):
    loaded = {}

    def model(kind: str) -> TextToImage:
        if kind not in loaded:
            loaded[kind] = TextToImage(load_text_to_image(random_pipeline(kind)))
        return loaded[kind]

    return model


def noise_of(model: TextToImage, seed: int = 0) -> torch.Tensor:
    shape = model.latent_shape(*SIZE.get(model.name, ()))
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", FAMILIES)
def test_pictures_are_those_of_diffusers_for_the_prompt(kind, models):
    model = models(kind)
    noise, key, negative = noise_of(model), model.encode("red cat"), model.encode_negative()
    pooled = None if key.pooled is None else key.pooled[None]
    ours = model.draw(key.rows[None], pooled, negative, noise, steps=2, guidance_scale=3.0)
    latents = model.pipeline._pack_latents(noise, *noise.shape) if kind == "FluxPipeline" else noise
    side = 4 * noise.shape[-1]
    with torch.no_grad():
        theirs = model.pipeline(
            "red cat", latents=latents, num_inference_steps=2, guidance_scale=3.0, output_type="pt",
            height=side, width=side, **model.family.options,
        ).images  # fmt: skip
    # PixArt's masked rows are left out of ours and weigh nothing in theirs
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_are_a_set_for_all_and_a_measure_for_some(kind, models):
    model = models(kind)
    found = model.invariance(model.encode("red cat"), noise_of(model))
    assert found.permuted < 1e-3
    assert (found.repeated < 1e-3) == (kind in MEASURES)


def test_a_model_that_knows_the_order_of_rows_is_found_out(random_pipeline):
    model = TextToImage(load_text_to_image(random_pipeline("StableDiffusionPipeline")))

    def number_rows(unet, args, kwargs):
        rows = kwargs["encoder_hidden_states"]
        place = torch.linspace(-3, 3, rows.shape[1])[:, None]
        return args, {**kwargs, "encoder_hidden_states": rows + place}

    model.pipeline.unet.register_forward_pre_hook(number_rows, with_kwargs=True)
    assert model.invariance(model.encode("red cat"), noise_of(model)).permuted > 0.05


class TestEncoding:
    def test_kinds_of_rows(self, models):
        kinds = models("StableDiffusionPipeline").encode("red cat").kinds.tolist()
        assert kinds == [START, *[CONTENT] * 6, END, *[PADDING] * 69]
        # spaces are tokens of T5, there is no start, and what is masked is left out
        assert models("PixArtSigmaPipeline").encode("red cat").kinds.tolist() == [*[CONTENT] * 8, END]
        kinds = models("StableDiffusion3Pipeline").encode("red cat").kinds
        assert kinds.bincount().tolist() == [1, 6 + 8, 2, 69 + 247]

    def test_pooled_vectors(self, models):
        assert models("StableDiffusionPipeline").encode("a").pooled is None
        assert models("StableDiffusionXLPipeline").encode("a").pooled.shape == (8,)
        assert models("StableDiffusion3Pipeline").encode("a").pooled.shape == (16,)

    def test_too_long_a_prompt_is_refused_or_cut_as_diffusers_cuts_it(self, models):
        model = models("StableDiffusionPipeline")
        prompt = "a " * 75 + "red cat"
        with pytest.raises(ValueError, match=r"at most 77 tokens, got 83: .*shorten it, or"):
            model.encode(prompt)
        with pytest.warns(UserWarning, match="reads 77 tokens and leaves out 'red ?cat'"):
            cut = model.encode(prompt, truncate=True)
        theirs, _ = model.pipeline.encode_prompt(prompt, "cpu", 1, False)
        torch.testing.assert_close(cut.rows, theirs[0], rtol=0, atol=0)
        assert cut.kinds[-1] == END
        with pytest.raises(ValueError, match="at most 77 tokens"):
            model.encode_negative(prompt)

    def test_tokenizers_that_disagree_are_refused(self, random_pipeline):
        model = TextToImage(load_text_to_image(random_pipeline("StableDiffusionXLPipeline")))
        model.pipeline.tokenizer_2.add_tokens(["red"])
        model.pipeline.text_encoder_2.resize_token_embeddings(len(model.pipeline.tokenizer_2))
        with pytest.raises(ValueError, match=r"two tokenizers must read a prompt alike.* got 8 and 6 tokens"):
            model.encode("red cat")

    def test_a_tokenizer_of_another_encoder_is_refused(self, random_pipeline):
        model = TextToImage(load_text_to_image(random_pipeline("StableDiffusionPipeline")))
        model.pipeline.tokenizer.add_tokens(["red"])
        with pytest.raises(ValueError, match="tokenizer must belong to its text encoder, which knows 54"):
            model.encode("red cat")

    def test_negative_prompts(self, models):
        model = models("StableDiffusionXLPipeline")
        # the pipeline's own are zeros, of its configuration
        assert not model.encode_negative().rows.any()
        assert model.encode_negative("blur").rows.any()
        with pytest.raises(ValueError, match="must be left out for FluxPipeline, got 'blur'"):
            models("FluxPipeline").encode_negative("blur")


class TestDrawing:
    def test_rows_repeated_draw_the_same_picture_with_guidance(self, models):
        for kind in MEASURES:
            model = models(kind)
            key, negative = model.encode("red cat"), model.encode_negative()
            pooled = None if key.pooled is None else key.pooled[None]
            once, twice = (
                model.draw(rows[None], pooled, negative, noise_of(model), steps=2, guidance_scale=2.0)
                for rows in (key.rows, key.rows.repeat(2, 1))
            )
            torch.testing.assert_close(once, twice, rtol=0, atol=1e-4)

    def test_rows_that_no_negative_prompt_fits_are_refused(self, models):
        model = models("StableDiffusionPipeline")
        rows = model.encode("red cat").rows[:50]
        with pytest.raises(ValueError, match="a path of 50 rows must have a multiple of the 77"):
            model.draw(
                rows[None], None, model.encode_negative(), noise_of(model), steps=1, guidance_scale=2.0
            )

    def test_stochastic_schedulers_add_the_same_to_every_picture(self, random_pipeline):
        from diffusers import EulerAncestralDiscreteScheduler

        model = TextToImage(load_text_to_image(random_pipeline("StableDiffusionPipeline")))
        scheduler = model.pipeline.scheduler
        model.pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(scheduler.config)
        rows = model.encode("red cat").rows.expand(2, -1, -1)
        noise = noise_of(model).expand(2, -1, -1, -1)
        pictures = model.draw(rows, None, None, noise, steps=2, guidance_scale=1.0, seed=3)
        torch.testing.assert_close(pictures[0], pictures[1])

    def test_nan_of_half_precision_names_the_remedy(self, random_pipeline):
        model = TextToImage(
            load_text_to_image(random_pipeline("StableDiffusionPipeline"), dtype=torch.float16)
        )
        with torch.no_grad():
            model.pipeline.vae.decoder.conv_out.weight.fill_(65504)
        key = model.encode("red cat")
        with pytest.raises(
            FloatingPointError, match=r"NaN .* float16 weights; load the model in bfloat16 or"
        ):
            model.draw(key.rows[None] * 1e4, None, None, noise_of(model) * 1e4, steps=1, guidance_scale=1.0)

    def test_one_step_of_pixart_needs_a_scheduler_for_it(self, models):
        model = models("PixArtAlphaPipeline")
        with pytest.raises(
            ValueError, match="at least 2 for PixArtAlphaPipeline with DPMSolverMultistepSche"
        ):
            model.draw(model.encode("a").rows[None], None, None, noise_of(model), steps=1, guidance_scale=1.0)

    def test_sizes(self, models):
        model = models("StableDiffusionPipeline")
        assert model.latent_shape(32, 48) == (4, 8, 12)
        with pytest.raises(ValueError, match="height must be a multiple of 8 pixels, got 36"):
            model.latent_shape(36, 48)


class TestLoading:
    def test_other_kinds_are_refused(self, random_pipeline, tmp_path):
        folder = shutil.copytree(random_pipeline("StableDiffusionPipeline"), tmp_path / "copy")
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "KandinskyPipeline"}))
        with pytest.raises(ValueError, match="or FluxPipeline, got KandinskyPipeline"):
            load_text_to_image(folder)
        with pytest.raises(TypeError, match=r"pipeline must be one of .* got int"):
            TextToImage(3)

    def test_no_such_folder(self):
        with pytest.raises(FileNotFoundError, match=r"found no folder \./nowhere"):
            load_text_to_image("./nowhere")

    def test_weights_are_frozen(self, models):
        pipeline = models("PixArtAlphaPipeline").pipeline
        assert not any(p.requires_grad for p in pipeline.transformer.parameters())
