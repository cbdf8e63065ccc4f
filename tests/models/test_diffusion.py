"""load_diffusion gives diffusers' own pipeline, frozen, from any folder of its format, or a clear error."""

import builtins
import json
import shutil

import pytest
import torch

from geokernels.models import load_diffusion, load_tiny_autoencoder

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


def real_parts() -> dict:
    """Randomly initialised parts with the block types of Stable Diffusion 1, only narrower."""
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        sample_size=64,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    settings = transformers.CLIPTextConfig(
        vocab_size=5,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=3,
        eos_token_id=4,
        pad_token_id=4,
    )
    vocabulary = {"r": 0, "d</w>": 1, "e": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    return {
        "vae": vae,
        "unet": unet,
        "text_encoder": transformers.CLIPTextModel(settings),
        "tokenizer": tokenizer,
        "scheduler": diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
    }


def draw(pipeline, **settings) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return pipeline(
            ["red"], num_inference_steps=2, output_type="pt", generator=generator, **settings
        ).images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline") / "model"
    diffusers.StableDiffusionPipeline(**real_parts(), requires_safety_checker=False).save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the folder to do damage to."""
    return shutil.copytree(folder, tmp_path / "copy")


def test_pictures_are_those_of_diffusers(folder):
    parts = {k: v.eval() if isinstance(v, torch.nn.Module) else v for k, v in real_parts().items()}
    theirs = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    loaded = load_diffusion(folder)
    # weights mapped from a file are aligned otherwise in memory, which changes the order of some sums
    torch.testing.assert_close(draw(loaded), draw(theirs), rtol=0, atol=1e-5)
    assert loaded.vae_scale_factor == 8


def test_a_string_names_a_folder_too(folder):
    assert load_diffusion(str(folder)).unet.config.sample_size == 8


def test_weights_are_frozen_and_latents_are_not(folder):
    pipeline = load_diffusion(folder)
    modules = pipeline.unet, pipeline.vae, pipeline.text_encoder
    assert not any(p.requires_grad for m in modules for p in m.parameters())
    assert not any(part.training for m in modules for part in m.modules())
    latents = torch.randn(1, 4, 8, 8, requires_grad=True)
    words, _ = pipeline.encode_prompt(["red"], "cpu", 1, False)
    noise = pipeline.unet(latents, 10, words).sample
    pipeline.vae.decode(noise).sample.sum().backward()
    assert latents.grad.abs().sum() > 0


def test_dtype_is_the_one_asked_for(folder):
    pipeline = load_diffusion(folder, dtype=torch.float64)
    found = {p.dtype for m in (pipeline.unet, pipeline.vae, pipeline.text_encoder) for p in m.parameters()}
    assert found == {torch.float64}


def test_no_safety_checker_even_if_the_folder_asks_for_one(copy):
    index = json.loads((copy / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["requires_safety_checker"] = True
    (copy / "model_index.json").write_text(json.dumps(index))
    assert load_diffusion(copy).safety_checker is None


def test_the_embedded_one_is_read_without_bars_and_others_with(folder, capfd):
    load_diffusion("world")
    load_tiny_autoencoder("world")
    assert "it/s" not in capfd.readouterr().err
    load_diffusion(folder)
    assert "it/s" in capfd.readouterr().err


def test_tiny_autoencoder_of_a_folder(tmp_path):
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()  # fmt: skip
    tiny.save_pretrained(tmp_path)
    loaded = load_tiny_autoencoder(tmp_path)
    latents = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(loaded.decode(latents).sample, tiny.decode(latents).sample, rtol=0, atol=1e-5)
    assert not any(p.requires_grad for p in loaded.parameters())


class TestErrors:
    def test_no_such_folder(self):
        with pytest.raises(FileNotFoundError, match=r"found no folder \./nowhere"):
            load_diffusion("./nowhere")

    def test_no_pipeline_in_the_folder(self, tmp_path):
        with pytest.raises(ValueError, match=r"must hold model_index.json, found none in"):
            load_diffusion(tmp_path)

    def test_another_pipeline(self, copy):
        index = json.loads((copy / "model_index.json").read_text())
        index["_class_name"] = "AudioLDMPipeline"
        (copy / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=r"must be a StableDiffusionPipeline, .* got AudioLDMPipeline"):
            load_diffusion(copy)

    def test_a_part_that_its_class_needs(self, copy):
        index = json.loads((copy / "model_index.json").read_text())
        index["_class_name"] = "StableDiffusionXLPipeline"
        (copy / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="a StableDiffusionXLPipeline must have a tokenizer_2, found"):
            load_diffusion(copy)

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
    def test_truncated_weights(self, copy, part):
        (path,) = (copy / part).glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(ValueError, match=r"the model in .*copy could not be read \(.*\)"):
            load_diffusion(copy)

    def test_missing_weights(self, copy):
        next((copy / "unet").glob("*.safetensors")).unlink()
        with pytest.raises(ValueError, match=r"the model in .*copy could not be read"):
            load_diffusion(copy)

    def test_pickled_weights_are_not_read(self, copy):
        (path,) = (copy / "unet").glob("*.safetensors")
        path.unlink()
        torch.save(real_parts()["unet"].state_dict(), path.with_suffix(".bin"))
        with pytest.raises(ValueError, match="saved as safetensors"):
            load_diffusion(copy)

    def test_hub_does_not_answer(self, monkeypatch):
        def refuse(*_, **__):
            raise OSError("no such repository")

        monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", refuse)
        with pytest.raises(
            FileNotFoundError, match=r"'someone/something' could not .* \(no such repository\)"
        ):
            load_diffusion("someone/something")

    @pytest.mark.parametrize("library", ["diffusers", "transformers"])
    def test_library_is_missing(self, monkeypatch, library):
        original = builtins.__import__

        def without(name, *args, **kwargs):
            if name == library:
                raise ImportError(name)
            return original(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ImportError, match=r'pip install "geokernels\[diffusion\]"'):
            load_diffusion()
