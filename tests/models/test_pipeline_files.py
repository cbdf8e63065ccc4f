"""Pipelines are read as they are in circulation: variants of a folder, and single files."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from geokernels.models import load_diffusion, load_text_to_image
from geokernels.models.diffusion import load_instructed
from geokernels.testing.single_file import single_file

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def pipeline(random_pipeline):
    return load_diffusion(random_pipeline("StableDiffusionPipeline"))


@pytest.fixture
def config(random_pipeline, tmp_path):
    """The folder of the pipeline without its weights."""
    folder = random_pipeline("StableDiffusionPipeline")
    return shutil.copytree(folder, tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors"))


def same(first, second) -> bool:
    parts = ("unet", "vae", "text_encoder")
    pairs = [(getattr(first, part).state_dict(), getattr(second, part).state_dict()) for part in parts]
    return all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in pairs)


class TestSingleFile:
    @pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
    def test_with_a_configuration(self, pipeline, config, tmp_path, ending):
        path = tmp_path / f"model.{ending}"
        # what trainings leave beside the weights
        state = single_file(pipeline) | {"betas": torch.zeros(1000), "model_ema.decay": torch.tensor(0.9)}
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
        if ending == "ckpt":
            torch.save({"state_dict": state, "global_step": 3}, path)
        else:
            save_file(state, path)
        found = load_text_to_image(path, config=config)
        assert type(found) is diffusers.StableDiffusionPipeline
        assert same(found, pipeline)
        assert found.safety_checker is None
        assert not any(p.requires_grad for p in found.unet.parameters())
        assert load_diffusion(str(path), config=config, dtype=torch.float64).unet.dtype == torch.float64

    def test_without_one_the_sentence_says_which_and_what_of_it(
        self, pipeline, config, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        save_file(single_file(pipeline), tmp_path / "model.safetensors")
        said = r"could not be read .*; config must name a folder of \S+/stable-diffusion-v1-5 without its w"
        with pytest.raises(ValueError, match=said):
            load_text_to_image(tmp_path / "model.safetensors")
        # what the sentence asks for is what the configuration of the other test holds
        assert not [*config.glob("**/*.safetensors")]

    def test_a_part_that_is_missing(self, pipeline, config, tmp_path):
        state = {k: v for k, v in single_file(pipeline).items() if not k.startswith("cond_stage")}
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(
            ValueError, match=r"model.safetensors could not be read .* must be in the file, and fit"
        ):
            load_text_to_image(tmp_path / "model.safetensors", config=config)

    def test_a_weight_that_is_missing(self, pipeline, config, tmp_path):
        state = single_file(pipeline)
        del state["cond_stage_model.transformer.text_model.final_layer_norm.weight"]
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"model.safetensors could not be read"):
            load_text_to_image(tmp_path / "model.safetensors", config=config)

    def test_a_weight_that_is_not_finite(self, pipeline, config, tmp_path):
        state = single_file(pipeline)
        state["model.diffusion_model.out.2.bias"] = torch.full((4,), float("nan"))
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(
            ValueError, match=r"finite, got NaN or infinity in unet's 'conv_out.bias' of .*model.saf"
        ):
            load_text_to_image(tmp_path / "model.safetensors", config=config)

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            (
                "lora_unet_mid_block_attentions_0.lora_up.weight",
                "it is a LoRA, .* merge it into its model by diff",
            ),
            ("visual.conv1.weight", "these are CLIP weights"),
            (
                "down_blocks.0.resnets.0.norm1.weight",
                "one part of a diffusers pipeline: give .* whole folder",
            ),
            ("emb_params", "it begins with 'emb_params'"),
        ],
    )
    def test_other_files_are_named(self, tmp_path, key, said):
        save_file({key: torch.zeros(1)}, tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=f"a.safetensors is none: .*{said}"):
            load_text_to_image(tmp_path / "a.safetensors")

    def test_what_is_damaged(self, config, tmp_path):
        (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
        with pytest.raises(ValueError, match=r"a.safetensors could not be read"):
            load_text_to_image(tmp_path / "a.safetensors", config=config)
        (tmp_path / "a.ckpt").write_bytes(b"x" * 100)
        with pytest.raises(ValueError, match=r"a.ckpt could not be read"):
            load_text_to_image(tmp_path / "a.ckpt", config=config)

    def test_a_configuration_of_another_pipeline(self, pipeline, config, random_pipeline, tmp_path):
        save_file(single_file(pipeline), tmp_path / "model.safetensors")
        with pytest.raises(
            ValueError, match="must be a StableDiffusionInstructPix2PixPipeline, got StableDiffusionP"
        ):
            load_instructed(tmp_path / "model.safetensors", config=config)
        with pytest.raises(FileNotFoundError, match="config must be an existing folder"):
            load_text_to_image(tmp_path / "model.safetensors", config=tmp_path / "none")
        with pytest.raises(ValueError, match="config goes with a single file as name"):
            load_text_to_image(random_pipeline("StableDiffusionPipeline"), config=config)
        with pytest.raises(ValueError, match="variant goes with a folder as name, got 'fp16' with a file"):
            load_text_to_image(tmp_path / "model.safetensors", variant="fp16")


class TestVariants:
    @pytest.fixture
    def half(self, random_pipeline, tmp_path):
        """A folder as ``save_pretrained(variant="fp16")`` leaves it."""
        plain = diffusers.StableDiffusionPipeline.from_pretrained(random_pipeline("StableDiffusionPipeline"))
        plain.to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
        assert (tmp_path / "half" / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
        return tmp_path / "half"

    def test_the_only_one_there_is_is_taken(self, half, pipeline):
        found = load_text_to_image(half)
        assert found.unet.dtype == torch.float32
        assert torch.equal(found.unet.conv_in.weight, pipeline.unet.conv_in.weight.half().float())

    def test_among_several_it_is_named(self, half):
        for file in half.glob("*/*.fp16.safetensors"):
            other = {key: value.float() + 1 for key, value in load_file(file).items()}
            save_file(other, file.with_name(file.name.replace("fp16", "ema")))
        with pytest.raises(ValueError, match=r"variant must be one of ema, fp16, which .*half has, got none"):
            load_text_to_image(half)
        apart = load_text_to_image(half, variant="ema").unet.conv_in.weight
        assert torch.allclose(apart, load_text_to_image(half, variant="fp16").unet.conv_in.weight + 1)

    def test_beside_the_usual_ones_it_is_asked_for(self, half, pipeline):
        for file in half.glob("*/*.fp16.safetensors"):
            other = {key: value.float() + 1 for key, value in load_file(file).items()}
            save_file(other, file.with_name(file.name.replace(".fp16", "")))
        usual, asked = (load_text_to_image(half, variant=v).unet.conv_in.weight for v in (None, "fp16"))
        assert torch.allclose(usual, asked + 1)

    def test_one_that_is_not_there(self, half):
        with pytest.raises(ValueError, match=r"variant must be one of fp16, which .*half has, got 'bf16'"):
            load_diffusion(half, variant="bf16")


def test_a_folder_with_a_weight_that_is_not_finite(random_pipeline, tmp_path):
    folder = shutil.copytree(random_pipeline("StableDiffusionPipeline"), tmp_path / "copy")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["decoder.conv_out.bias"][0] = float("inf")
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"got NaN or infinity in vae's 'decoder.conv_out.bias' of .*copy"):
        load_text_to_image(folder)


def test_a_clone_without_its_large_files(random_pipeline, tmp_path):
    folder = shutil.copytree(random_pipeline("StableDiffusionPipeline"), tmp_path / "copy")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_text(pointer)
    with pytest.raises(ValueError, match=r"unet/diffusion_pytorch_model.safetensors is a pointer of Git LFS"):
        load_text_to_image(folder)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("adapter_config.json", "it is a LoRA: merge it"),
        ("open_clip_config.json", "--clip local-dir:FOLDER"),
        ("config.json", "not a whole pipeline"),
    ],
)
def test_other_folders_are_named(tmp_path, file, said):
    (tmp_path / file).write_text("{}")
    with pytest.raises(ValueError, match=rf"must hold model_index.json, found none in .*; .*{said}"):
        load_text_to_image(tmp_path)


@pytest.mark.parametrize("kind", [f"StableDiffusion{version}Pipeline" for version in ("", "XL", "3")])
def test_no_weight_that_is_missing_is_filled_by_chance(random_pipeline, tmp_path, kind):
    whole = random_pipeline(kind)
    for path in sorted(whole.glob("*/*.safetensors")):
        folder = shutil.copytree(whole, tmp_path / path.parent.name)
        state = load_file(path)
        lost = next(key for key in sorted(state) if "norm" in key)
        kept = {key: value for key, value in state.items() if key != lost}
        save_file(kept, folder / path.relative_to(whole), metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"could not be read \(.*norm.* is missing"):
            load_text_to_image(folder)
