"""load_clip takes the names that open_clip's users type and the files in circulation, or says why not.

Architectures are open_clip's own, only narrower; weights are random, saved as their authors save them.
"""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from geokernels.models import load_clip
from geokernels.models.clip_activation import _digests
from geokernels.testing.pipelines import clip_tokenizer

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
# torch's fused attention warns once about its own internals on some builds, and of TorchScript at every use
pytestmark = pytest.mark.filterwarnings("default")

ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
SIGLIP = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 54,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        **{"width": 64, "heads": 1, "layers": 1, "no_causal_mask": True, "pool_type": "last"},
    },
}
ROBERTA = {
    "embed_dim": 16,
    "vision_cfg": ARCHITECTURE["vision_cfg"],
    "text_cfg": {
        "hf_model_name": "roberta-base",
        "hf_tokenizer_name": "roberta-base",
        "hf_pooler_type": "mean_pooler",
        "context_length": 16,
    },
}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "squash"}
SIZES = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
PICTURES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TEXTS = ["a cat", "a large dog"]


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory):
    """Narrow architectures beside those of open_clip; what it knows of them is forgotten afterwards."""
    folder = tmp_path_factory.mktemp("configs")
    paths, configs = list(open_clip.factory._MODEL_CONFIG_PATHS), dict(open_clip.factory._MODEL_CONFIGS)
    quick = {**ARCHITECTURE, "quick_gelu": True}
    for name, config in (
        *(("narrow", ARCHITECTURE), ("narrow-quickgelu", quick)),
        *(("siglip-narrow", SIGLIP), ("roberta-narrow", ROBERTA)),
    ):
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")
    known = open_clip.pretrained._PRETRAINED
    openai = {**open_clip.get_pretrained_cfg("ViT-B-32", "openai"), "hf_hub": "", "url": "https://x.org/a.pt"}
    known["narrow"] = {"openai": openai, "other_s1": {**HALF, "hf_hub": "org/narrow/", "url": ""}}
    known["siglip-narrow"] = {"webli": {**HALF, "hf_hub": "org/siglip/", "url": ""}}
    yield
    del known["narrow"], known["siglip-narrow"]
    open_clip.factory._MODEL_CONFIG_PATHS[:] = paths
    open_clip.factory._MODEL_CONFIGS = configs


def build(quick: bool = False) -> torch.nn.Module:
    torch.manual_seed(1)
    model = open_clip.CLIP(**ARCHITECTURE, quick_gelu=quick).eval()
    for block in (*model.visual.transformer.resblocks, *model.transformer.resblocks):
        # where the two activations differ most, and large afterwards, so that it counts which one it is
        torch.nn.init.normal_(block.mlp.c_fc.weight, std=0.15)
        torch.nn.init.normal_(block.mlp.c_proj.weight)
    return model


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model of open_clip without the quick GELU, and its file."""
    path = tmp_path_factory.mktemp("plain") / "open_clip_model.safetensors"
    save_file(build().state_dict(), path)
    return build(), path


class OpenAI(torch.nn.Module):
    """A model as OpenAI released it: in half precision, its sizes among its buffers."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        for name in ("visual", "transformer", "token_embedding", "ln_final"):
            setattr(self, name, getattr(model, name))
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, getattr(model, name))
        for name, size in SIZES.items():
            self.register_buffer(name, torch.tensor(size))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.visual(pictures)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """OpenAI's archive, and the model that it is of."""
    folder = tmp_path_factory.mktemp("openai")
    theirs = OpenAI(build(quick=True))
    traced = torch.jit.trace(theirs, PICTURES, check_trace=False)
    open_clip.convert_weights_to_fp16(theirs)  # the weights are shared with the traced module
    torch.jit.save(traced, folder / "ViT.pt")
    exact = build(quick=True)
    exact.load_state_dict({k: v.float() for k, v in theirs.state_dict().items() if k not in SIZES})
    return exact, folder / "ViT.pt"


def same(encoder, model: torch.nn.Module, tolerance: float = 1e-5) -> bool:
    """Whether the features are the model's own."""
    with torch.no_grad():
        pictures = model.encode_image(encoder.preprocess(PICTURES), normalize=True)
        texts = model.encode_text(open_clip.SimpleTokenizer(context_length=77)(TEXTS), normalize=True)
    seen, read = encoder.encode_image(PICTURES), encoder.encode_text(TEXTS)[:, 0]
    return max((seen - pictures).abs().max(), (read - texts).abs().max()) < tolerance


class TestOpenAI:
    def test_their_archive_chooses_the_quick_gelu(self, released):
        model, path = released
        encoder = load_clip("narrow", path)
        assert same(encoder, model)
        assert not same(encoder, build(quick=False), 1e-3), (
            "the activations must differ enough to be told apart"
        )
        assert encoder.encode_image(PICTURES).dtype == torch.float32

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_their_state_dict_chooses_it_too(self, released, tmp_path, wrapped):
        state = torch.jit.load(released[1]).state_dict()
        assert SIZES.keys() < state.keys()
        torch.save({"state_dict": state} if wrapped else state, tmp_path / "a.pt")
        assert same(load_clip("narrow", tmp_path / "a.pt"), released[0])

    def test_sizes_beside_the_state_dict(self, released, tmp_path):
        state = {k: v for k, v in torch.jit.load(released[1]).state_dict().items() if v.dim()}
        state["logit_scale"] = torch.tensor(1.0)
        torch.save({"model": state, "input_resolution": 32, "context_length": 77}, tmp_path / "a.pt")
        assert same(load_clip("narrow", tmp_path / "a.pt"), released[0])

    def test_no_code_of_theirs_is_loaded(self, released, monkeypatch):
        for name in ("load", "script", "trace"):
            monkeypatch.setattr(torch.jit, name, lambda *_, **__: pytest.fail("TorchScript was loaded"))
        load_clip("narrow", released[1])


class TestActivation:
    """Who says with which activation weights were trained, who must not contradict, and who is warned."""

    @pytest.fixture
    def bare(self, released, tmp_path):
        """OpenAI's weights as openai/CLIP's own model saves them: without the sizes."""
        state = {k: v for k, v in torch.jit.load(released[1]).state_dict().items() if k not in SIZES}
        torch.save(state, tmp_path / "tuned.pt")
        return tmp_path / "tuned.pt"

    def test_what_a_model_is_called_says_it(self, released, plain):
        assert load_clip("narrow", released[1]).name == "narrow-quickgelu"
        assert load_clip("narrow/openai", released[1]).name == "narrow/openai"
        assert load_clip("narrow", plain[1]).name == "narrow"

    def test_weights_that_say_nothing_are_warned_of(self, released, bare):
        wanted = (
            r"tuned.pt does not say whether it was trained with the quick GELU, and is taken as narrow is: "
            r"without; for weights of OpenAI name must be narrow-quickgelu, for others .* narrow/TAG"
        )
        with pytest.warns(UserWarning, match=wanted):
            encoder = load_clip("narrow", bare)
        assert not same(encoder, released[0], 1e-3)

    @pytest.mark.filterwarnings("error:.*quick GELU")
    @pytest.mark.parametrize("name", ["narrow-quickgelu", "narrow/openai"])
    def test_the_remedies_are_silent(self, released, bare, name):
        assert same(load_clip(name, bare), released[0])

    @pytest.mark.filterwarnings("error:.*quick GELU")
    def test_open_clip_s_configuration_beside_the_file_says_it(self, released, bare, plain, tmp_path):
        beside = {"model_cfg": {**ARCHITECTURE, "quick_gelu": True}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(beside))
        assert same(load_clip("narrow", bare), released[0])
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": ARCHITECTURE}))
        file = shutil.copy(plain[1], tmp_path / "a.safetensors")
        assert same(load_clip("narrow", file), plain[0])
        wanted = (
            r"name must name an architecture without the quick GELU for a.safetensors, as open_clip_config"
            r".json beside it says, got 'narrow-quickgelu'; name narrow$"
        )
        with pytest.raises(ValueError, match=wanted):
            load_clip("narrow-quickgelu", file)

    def test_a_configuration_of_another_model_says_nothing(self, bare, tmp_path):
        other = {"model_cfg": {**ARCHITECTURE, "embed_dim": 32, "quick_gelu": True}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(other))
        with pytest.warns(UserWarning, match="does not say"):
            load_clip("narrow", bare)

    @pytest.mark.filterwarnings("error:.*quick GELU")
    def test_digests_that_open_clip_knows(self, released, bare, plain, monkeypatch):
        def known(path, quick, long):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            url = f"https://x.org/{digest}/a.pt" if long else f"https://x.org/a-{digest[:8]}.pt"
            monkeypatch.setitem(
                open_clip.pretrained._PRETRAINED["narrow"],
                "known",
                {**HALF, "hf_hub": "", "url": url, "quick_gelu": quick},
            )

        for long in (True, False):
            known(bare, True, long)
            assert same(load_clip("narrow", bare), released[0])
            known(plain[1], False, long)
            with pytest.raises(ValueError, match=r"as its digest, that of narrow/known, says, got 'narrow-q"):
                load_clip("narrow-quickgelu", plain[1])

    def test_a_tag_that_the_file_contradicts(self, released):
        wanted = (
            r"name must name weights trained with the quick GELU for ViT.pt, as the sizes that OpenAI keeps "
            r"beside its weights say, got 'narrow/other_s1', whose tag says the other; name narrow-quickgelu$"
        )
        with pytest.raises(ValueError, match=wanted):
            load_clip("narrow/other_s1", released[1])

    def test_every_architecture_of_openai_s_has_its_name(self):
        known = _digests()
        tags = [name for name in open_clip.list_models() if open_clip.get_pretrained_cfg(name, "openai")]
        assert len(tags) >= 18
        for name in tags:
            about = open_clip.get_pretrained_cfg(name, "openai")
            if name.startswith("narrow"):
                continue
            assert known[about["url"].split("/")[-2]] == (f"{name.removesuffix('-quickgelu')}/openai", True)
            assert f"{name.removesuffix('-quickgelu')}-quickgelu" in open_clip.list_models()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {"model": {f"_orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {"params_ema": {f"module._orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {k: v.bfloat16() for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if k != "logit_scale"},
    ],
    ids=["open_clip's training", "compiled", "averaged", "bfloat16", "no scale"],
)
def test_what_trainings_leave(plain, tmp_path, wrap):
    model, _ = plain
    torch.save(wrap(model.state_dict()), tmp_path / "epoch_3.pt")
    assert same(load_clip("narrow", tmp_path / "epoch_3.pt"), model, 3e-2)


class TestTransformers:
    def save(self, folder, act: str):
        torch.manual_seed(2)
        sizes = {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
        }
        sizes |= {"hidden_act": act, "projection_dim": 16}
        # the old token ids, at which their text tower looks for the largest, as open_clip does
        text = transformers.CLIPTextConfig(vocab_size=49408, bos_token_id=0, eos_token_id=2, **sizes)
        seen = transformers.CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
        config = transformers.CLIPConfig(
            text_config=text.to_dict(), vision_config=seen.to_dict(), projection_dim=16
        )
        model = transformers.CLIPModel(config).eval()
        for name, weights in model.named_parameters():
            if "fc1.weight" in name or "fc2.weight" in name or "projection" in name:
                torch.nn.init.normal_(weights, std=0.15 if "fc1" in name else 1.0)
        model.save_pretrained(folder)
        return model

    @pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
    def test_their_features(self, tmp_path, act):
        model = self.save(tmp_path, act)
        encoder = load_clip("narrow", tmp_path / "model.safetensors")
        ids = open_clip.SimpleTokenizer(context_length=77)(TEXTS)
        with torch.no_grad():
            seen = model.visual_projection(
                model.vision_model(pixel_values=encoder.preprocess(PICTURES)).pooler_output
            )
            read = model.text_projection(model.text_model(input_ids=ids).pooler_output)
        normal = torch.nn.functional.normalize
        torch.testing.assert_close(encoder.encode_image(PICTURES), normal(seen, dim=-1), rtol=0, atol=1e-4)
        torch.testing.assert_close(encoder.encode_text(TEXTS)[:, 0], normal(read, dim=-1), rtol=0, atol=1e-4)

    def test_without_their_configuration_the_remedies_work(self, tmp_path):
        self.save(tmp_path / "theirs", "quick_gelu")
        file = shutil.copy(tmp_path / "theirs" / "model.safetensors", tmp_path / "a.safetensors")
        with pytest.raises(
            ValueError, match=r"a.safetensors holds transformers' CLIP weights.* put the config.json"
        ):
            load_clip("narrow", file)
        by_tag = load_clip("narrow/openai", file).encode_image(PICTURES)
        shutil.copy(tmp_path / "theirs" / "config.json", tmp_path)
        assert torch.equal(load_clip("narrow", file).encode_image(PICTURES), by_tag)

    def test_siglip_of_transformers_is_named(self, tmp_path):
        save_file({"vision_model.head.probe": torch.zeros(1)}, tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=r"transformers' SigLIP weights: give open_clip's file"):
            load_clip("narrow", tmp_path / "a.safetensors")


class TestNames:
    def test_a_tag_is_fetched(self, plain, monkeypatch):
        asked = []
        monkeypatch.setattr(
            open_clip, "download_pretrained", lambda about: asked.append(about) or str(plain[1])
        )
        encoder = load_clip("narrow/other_s1")
        assert asked[0]["hf_hub"] == "org/narrow/"
        assert same(encoder, plain[0])
        assert encoder._mean.flatten().tolist() == [0.5] * 3
        assert encoder._squash
        for name in ("narrow:other_s1", "narrow/OTHER-S1", "open_clip:narrow/other_s1"):
            assert torch.equal(load_clip(name).encode_image(PICTURES), encoder.encode_image(PICTURES))

    def test_a_tag_says_how_its_weights_were_trained(self, released, tmp_path):
        state = {k: v for k, v in torch.jit.load(released[1]).state_dict().items() if k not in SIZES}
        save_file(state, tmp_path / "a.safetensors")
        assert same(load_clip("narrow/openai", tmp_path / "a.safetensors"), released[0])
        assert not same(load_clip("narrow", tmp_path / "a.safetensors"), released[0], 1e-3)

    def test_what_cannot_be_fetched_can_be_given(self, plain, monkeypatch):
        def offline(about):
            raise OSError("the network is unreachable")

        monkeypatch.setattr(open_clip, "download_pretrained", offline)
        with pytest.raises(
            OSError, match=r"'narrow/other_s1' needs weights .* from org/narrow of the hub .*unreach"
        ):
            load_clip("narrow/other_s1")
        with pytest.raises(
            OSError,
            match=r"from https://x.org/a.pt .* give their file as weights, with narrow/openai as name",
        ):
            load_clip("narrow/openai")
        assert same(load_clip("narrow/other_s1", plain[1]), plain[0])

    def test_an_unknown_tag_lists_the_known(self):
        with pytest.raises(
            ValueError, match=r"name must name a tag of narrow \(openai, other_s1\), got 'laion'"
        ):
            load_clip("narrow/laion")
        with pytest.raises(
            ValueError, match=r"tag of ViT-B-32 \(openai, .*laion2b_s34b_b79k.*\), got 'laion2b'"
        ):
            load_clip("ViT-B-32/laion2b")

    @pytest.mark.parametrize("name", ["ViT-B/32", "ViT-L/14@336px", "RN50/openai", "ViT-B-32:openai"])
    def test_openai_s_names_are_openai_s_weights(self, name, monkeypatch):
        asked = []

        def offline(about):
            asked.append(about["url"])
            raise OSError("no network")

        monkeypatch.setattr(open_clip, "download_pretrained", offline)
        with pytest.raises(OSError, match="no network"):
            load_clip(name)
        assert "openaipublic" in asked[0]

    def test_an_unknown_architecture_names_what_is_near(self, plain):
        with pytest.raises(ValueError, match=r"got 'ViT-B-33'; near it are .*ViT-B-32"):
            load_clip("ViT-B-33")
        with pytest.raises(ValueError, match=r"type local-dir:"):
            load_clip(str(plain[1].parent))
        with pytest.raises(ValueError, match=r"give the file as weights, and its architecture as name"):
            load_clip(str(plain[1]))

    def test_no_weights_and_no_tag(self):
        with pytest.raises(
            ValueError, match=r"must name a file for 'narrow', .* tag .* such as narrow/other_s1"
        ):
            load_clip("narrow")

    def test_hub_and_folder(self, plain, tmp_path, monkeypatch):
        config = {"model_cfg": ARCHITECTURE, "preprocess_cfg": HALF}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        shutil.copy(plain[1], tmp_path)
        encoder = load_clip(f"local-dir:{tmp_path}")
        assert same(encoder, plain[0])
        assert encoder._mean.flatten().tolist() == [0.5] * 3

        def fetch(model, filename="open_clip_model.safetensors"):
            assert model == "org/narrow"
            return str(tmp_path / filename)

        monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", fetch)
        assert torch.equal(
            load_clip("hf-hub:org/narrow").encode_image(PICTURES), encoder.encode_image(PICTURES)
        )

    def test_a_hub_that_is_not_there(self, monkeypatch):
        def offline(model, filename=""):
            raise FileNotFoundError("no network")

        monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", offline)
        with pytest.raises(
            OSError, match=r"needs open_clip_config.json .* from org/narrow .* as local-dir:FOLDER"
        ):
            load_clip("hf-hub:org/narrow")

    def test_folders_that_lack_something(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"local-dir: and a folder, found none"):
            load_clip(f"local-dir:{tmp_path / 'none'}")
        with pytest.raises(
            FileNotFoundError, match=r"holds open_clip_config.json, .* does not; give the file"
        ):
            load_clip(f"local-dir:{tmp_path}")
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": ARCHITECTURE}))
        with pytest.raises(FileNotFoundError, match=r"holds weights, such as open_clip_model.safetensors"):
            load_clip(f"local-dir:{tmp_path}")
        (tmp_path / "open_clip_config.json").write_text("[]")
        (tmp_path / "open_clip_model.safetensors").touch()
        with pytest.raises(ValueError, match=r"must have model_cfg with embed_dim"):
            load_clip(f"local-dir:{tmp_path}")


class TestTokenizers:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    @pytest.fixture
    def folder(self, tmp_path):
        clip_tokenizer().save_pretrained(tmp_path / "tokenizer")
        return tmp_path / "tokenizer"

    def siglip(self, path):
        torch.manual_seed(3)
        config = {**SIGLIP, "vision_cfg": {**SIGLIP["vision_cfg"], "timm_model_pretrained": False}}
        config.pop("custom_text")
        model = open_clip.CustomTextCLIP(**config).eval()
        save_file(model.state_dict(), path)
        return model

    def test_siglip_with_its_tokenizer(self, tmp_path, folder):
        model = self.siglip(tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=r"by 'timm/ViT-B-16-SigLIP', .* give a folder .* as tokenizer"):
            load_clip("siglip-narrow", tmp_path / "a.safetensors")
        encoder = load_clip("siglip-narrow", tmp_path / "a.safetensors", tokenizer=folder)
        ids = open_clip.tokenizer.HFTokenizer(str(folder), context_length=16, clean="canonicalize")(TEXTS)
        with torch.no_grad():
            read = model.encode_text(ids, normalize=True)
        torch.testing.assert_close(encoder.encode_text(TEXTS)[:, 0], read)
        assert encoder._mean.flatten().tolist() == [0.5] * 3, (
            "as all weights of the architecture are normalised"
        )
        with pytest.raises(ValueError, match=r"at most 16 tokens, got"):
            encoder.encode_text(["a cat " * 10])

    def test_roberta_with_its_tokenizer_and_configuration(self, tmp_path, folder):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = transformers.RobertaConfig(
            vocab_size=54, max_position_embeddings=40, pad_token_id=1, **sizes
        )
        # the configurations of the tower and the tokenizer are in one folder, as on the hub
        config.save_pretrained(folder)
        torch.manual_seed(4)
        text = {**ROBERTA["text_cfg"], "hf_model_name": str(folder), "hf_model_pretrained": False}
        model = open_clip.CustomTextCLIP(**{**ROBERTA, "text_cfg": text}).eval()
        path = tmp_path / "b.safetensors"
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
        with pytest.raises(ValueError, match=r"by 'roberta-base', .* with its config.json and the tokenizer"):
            load_clip("roberta-narrow", path)
        encoder = load_clip("roberta-narrow", path, tokenizer=folder)
        with torch.no_grad():
            read = model.encode_text(encoder.tokenizer(TEXTS), normalize=True)
        torch.testing.assert_close(encoder.encode_text(TEXTS)[:, 0], read)

    def test_a_tokenizer_that_nobody_needs(self, plain, folder, tmp_path):
        with pytest.raises(
            ValueError, match=r"tokenizer must be left out for 'narrow', .* comes with open_clip"
        ):
            load_clip("narrow", plain[1], tokenizer=folder)
        with pytest.raises(FileNotFoundError, match=r"tokenizer must be an existing folder"):
            load_clip("siglip-narrow", plain[1], tokenizer=tmp_path / "none")


def test_weights_that_are_not_finite(plain, tmp_path):
    state = plain[0].state_dict() | {"visual.proj": torch.full((64, 16), float("nan"))}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(
        ValueError, match=r"weights must be finite, got NaN or infinity in 'visual.proj' of a.safe"
    ):
        load_clip("narrow", tmp_path / "a.safetensors")


def test_another_kind_of_file_is_named(tmp_path):
    save_file(
        {"cond_stage_model.x": torch.zeros(1), "model.diffusion_model.x": torch.zeros(1)}, tmp_path / "a"
    )
    with pytest.raises(ValueError, match=r"it is a whole diffusion model: give it as --model"):
        load_clip("narrow", tmp_path / "a")


def test_weights_of_another_architecture_say_of_which(plain):
    with pytest.raises(
        ValueError, match=r"must fit 'RN50', .*safetensors .*; its sizes are those of narrow or narrow-quick"
    ):
        load_clip("RN50", plain[1])
