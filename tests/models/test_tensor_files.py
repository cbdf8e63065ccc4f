"""One reader of tensors: formats by their content, wrappers, bounds, and nothing in a file is ever run."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from geokernels.models.checkpoint_kinds import KINDS, kind_of
from geokernels.models.inert_pickle import Inert, read_inert
from geokernels.models.tensor_files import fill, read_state, read_tensors
from geokernels.models.torch_archives import LIFTED, tensors_of

# torch would rather have TorchScript given up, but there are files of it
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HOW = {"name": "weights", "file": "a.pt", "what": "'linear'"}
STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([1.0, 2.0])}


class Scripted(nn.Module):
    """Parts in parts, a scalar, a buffer, a shared weight and attributes that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.logit_scale = nn.Parameter(torch.ones([]))
        self.register_buffer("input_resolution", torch.tensor(64))
        self.names, self.sizes, self.about = ["a", "b"], [1, 2], {"side": 3}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.visual(x).mean((2, 3)))) * self.logit_scale


class Executes:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def rewrite(whole: Path, changed: Path, change, packed: int = zipfile.ZIP_STORED) -> None:
    """Copy an archive, with another pickle in it."""
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(changed, "w", packed) as target:
        for entry in source.namelist():
            data = source.read(entry)
            target.writestr(entry, change(data) if entry.endswith("data.pkl") else data)


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.bin", "no_ending"])
@pytest.mark.parametrize("way", ["safetensors", "zip", "legacy"])
def test_formats_are_told_by_content(tmp_path, name, way):
    if way == "safetensors":
        save_file(STATE, tmp_path / name)
    else:
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=way == "zip")
    if name == "a.safetensors" and way != "safetensors":
        (tmp_path / name).rename(tmp_path / "a.pt")
        name = "a.pt"
    assert same(read_state("weights", tmp_path / name), STATE)


@pytest.mark.parametrize("way", ["script", "trace"])
@pytest.mark.parametrize("half", [False, True])
def test_torchscript_is_read_as_torch_reads_it(tmp_path, way, half):
    module = Scripted().eval()
    module = module.half() if half else module
    x = torch.rand(1, 3, 8, 8, dtype=torch.float16 if half else torch.float32)
    made = torch.jit.script(module) if way == "script" else torch.jit.trace(module, x)
    torch.jit.save(made, tmp_path / "model.pt")
    found = read_state("weights", tmp_path / "model.pt")
    assert same(found, torch.jit.load(tmp_path / "model.pt").state_dict())
    assert found["first.weight"].dtype == x.dtype


@pytest.mark.parametrize(
    "keys", [(), ("state_dict",), ("model",), ("params_ema",), ("model", "state_dict"), ("params",)]
)
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model."]
)
def test_wrappers_and_prefixes_in_any_order(tmp_path, keys, prefix):
    content: dict = {prefix + key: value for key, value in STATE.items()}
    for key in keys:
        content = {"epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}, key: content}
    torch.save(content, tmp_path / "a.pt")
    assert same(read_state("weights", tmp_path / "a.pt"), STATE)


def test_averaged_weights_come_first(tmp_path):
    other = {key: value + 1 for key, value in STATE.items()}
    torch.save({"params": other, "params_ema": STATE}, tmp_path / "a.pt")
    assert same(read_state("weights", tmp_path / "a.pt"), STATE)


def test_settings_called_model_are_no_weights(tmp_path):
    torch.save({"model": {"name": "vit"}, "state_dict": STATE}, tmp_path / "a.pt")
    assert same(read_state("weights", tmp_path / "a.pt"), STATE)


def test_no_tensors_are_named(tmp_path):
    torch.save({"epoch": 3, "args": "none"}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"weights must hold a state dict, bare or as .*, got epoch, args in a.pt"
    ):
        read_state("weights", tmp_path / "a.pt")


def test_dictionaries_that_hold_themselves_are_no_trap(tmp_path):
    content: dict = {"weight": torch.zeros(2)}
    content["model"], content["list"] = content, [content]
    torch.save(content, tmp_path / "a.pt")
    assert list(read_state("weights", tmp_path / "a.pt")) == ["weight"]


class TestBounds:
    """What unpacks to far more than its size is refused before it is unpacked."""

    def packed(self, path: Path) -> Path:
        torch.save({"x": torch.zeros(30 << 20)}, path.with_name("whole.pt"))
        rewrite(path.with_name("whole.pt"), path, lambda data: data, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 1 << 20
        return path

    def test_a_packed_file(self, tmp_path, monkeypatch):
        path = self.packed(tmp_path / "bomb.pt")
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
        with pytest.raises(ValueError, match=rf"bomb.pt of 0.1 MiB asks for 120 MiB; .* {LIFTED}=1"):
            read_tensors("weights", path)

    def test_the_bound_can_be_lifted(self, tmp_path, monkeypatch):
        path = self.packed(tmp_path / "bomb.pt")
        monkeypatch.setenv(LIFTED, "1")
        assert read_tensors("weights", path)["x"].shape == (30 << 20,)

    def test_a_tensor_that_repeats_one_number(self, tmp_path):
        torch.save({"x": torch.zeros(1).expand(1 << 30)}, tmp_path / "bomb.pt")
        with pytest.raises(ValueError, match=r"bomb.pt of 0.0 MiB asks for 4,096 MiB"):
            read_tensors("weights", tmp_path / "bomb.pt")

    @pytest.mark.parametrize("scripted", [False, True])
    def test_a_storage_that_claims_more_than_there_is(self, tmp_path, scripted):
        path = tmp_path / "claims.pt"
        if scripted:
            torch.jit.save(torch.jit.script(nn.Linear(3, 4, bias=False)), tmp_path / "whole.pt")
        else:
            torch.save({"x": torch.zeros(12)}, tmp_path / "whole.pt")
        twelve, many = b"K\x0ct", b"J\x00\x00\x00\x01t"
        rewrite(tmp_path / "whole.pt", path, lambda data: data.replace(twelve, many))
        with pytest.raises(ValueError, match=r"claims.pt could not be read"):
            read_tensors("weights", path)

    def test_a_torn_archive(self, tmp_path):
        torch.save(STATE, tmp_path / "whole.pt")
        (tmp_path / "torn.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-30])
        with pytest.raises(ValueError, match=r"torn.pt could not be read"):
            read_tensors("weights", tmp_path / "torn.pt")


class TestNothingRuns:
    @pytest.mark.parametrize("protocol", range(2, 6))
    def test_a_pickle_is_data(self, tmp_path, protocol):
        content = {"a": [1, (2.5, None)], "evil": Executes(tmp_path / "ran"), "set": {1, 2}, "b": True}
        found = read_inert(pickle.dumps(content, protocol))
        assert found["a"] == [1, (2.5, None)]
        assert isinstance(found["evil"], Inert)
        assert found["b"] is True
        assert not (tmp_path / "ran").exists()

    def test_torchscript_whose_pickle_calls(self, tmp_path):
        torch.jit.save(torch.jit.script(nn.Linear(3, 4)), tmp_path / "whole.pt")
        evil = pickle.dumps({"x": Executes(tmp_path / "ran")}, 2)
        rewrite(tmp_path / "whole.pt", tmp_path / "evil.pt", lambda data: evil)
        with pytest.raises(ValueError, match="weights must hold a state dict"):
            read_state("weights", tmp_path / "evil.pt")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "data", [b"", b"\x80\x02", b"\x80\x02t.", b"\x80\x02R.", b"\x80\x02h\x05.", b"}u."]
    )
    def test_damaged_pickles(self, data):
        with pytest.raises(ValueError, match="pickle"):
            read_inert(data)


def test_modules_that_hold_one_another_without_end(tmp_path):
    held = Inert("__torch__.Module", (), {"weight": torch.zeros(1)})
    for _ in range(40):
        held = Inert("__torch__.Module", (), {"first": held, "second": held})
    with pytest.raises(ValueError, match="more than 100000 attributes"):
        list(tensors_of(held))


def test_a_file_without_archive_that_claims_more_than_there_is(tmp_path):
    torch.save({"x": torch.zeros(12)}, tmp_path / "whole.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "whole.pt").read_bytes()
    assert data.count(b"K\x0c") > 0
    (tmp_path / "claims.pt").write_bytes(data.replace(b"K\x0c", b"\x8a\x06\x00\x00\x00\x00\x00\x01"))
    with pytest.raises(ValueError, match=r"claims.pt could not be read"):
        read_tensors("weights", tmp_path / "claims.pt")


class TestFill:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
    def test_what_is_not_finite_is_named(self, bad, dtype):
        state = {key: value.to(dtype) for key, value in STATE.items()}
        state["bias"][1] = bad
        with pytest.raises(
            ValueError, match=r"weights must be finite, got NaN or infinity in 'bias' of a.pt"
        ):
            fill(nn.Linear(3, 2), state, **HOW)

    def test_what_is_too_large_for_the_model_is_not_finite(self):
        state = {"weight": STATE["weight"], "bias": torch.full((2,), 1e300, dtype=torch.float64)}
        with pytest.raises(ValueError, match=r"in 'bias' of a.pt"):
            fill(nn.Linear(3, 2), state, **HOW)

    def test_the_first_that_disagrees_is_named(self):
        with pytest.raises(
            ValueError, match=r"must fit 'linear', which has 'bias' of shape \(2,\), but a.pt lacks"
        ):
            fill(nn.Linear(3, 2), {"weight": STATE["weight"]}, **HOW)
        with pytest.raises(ValueError, match=r"which has no 'more', as a.pt has"):
            fill(nn.Linear(3, 2), STATE | {"more": torch.zeros(1)}, **HOW)

    def test_other_kinds_are_named(self):
        state = {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(1)}
        with pytest.raises(ValueError, match=r"a.pt lacks it; it is a LoRA, .* merge it into its model"):
            fill(nn.Linear(3, 2), state, **HOW)


NAMES = {
    "lora": ["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"],
    "diffusion": [
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.encoder.conv_in.weight",
    ],
    "siglip": ["text_model.head.weight", "vision_model.head.probe"],
    "transformers": ["text_model.embeddings.position_ids", "vision_model.embeddings.class_embedding"],
    "text": ["text_model.final_layer_norm.weight"],
    "clip": ["visual.conv1.weight", "transformer.resblocks.0.ln_1.weight"],
    "stylegan3": ["synthesis.input.freqs", "mapping.fc0.weight"],
    "discriminator": ["convs.0.0.weight", "convs.1.conv1.0.weight", "final_linear.0.weight"],
    "generator": ["style.1.weight", "conv1.conv.weight", "convs.0.conv.weight"],
    "part": ["conv_in.weight", "down_blocks.0.resnets.0.norm1.weight"],
    "lin": ["lin0.model.1.weight"],
    "transformer": ["embeddings.cls_token", "encoder.layer.0.attention.attention.query.weight"],
    "vit": ["cls_token", "blocks.0.attn.qkv.weight"],
    "backbone": ["features.0.weight", "classifier.1.weight"],
    "resnet": ["conv1.weight", "layer1.0.conv1.weight"],
}


def test_kinds_are_told_by_names():
    assert NAMES.keys() == {kind.key for kind in KINDS}
    for key, names in NAMES.items():
        assert kind_of(names) == next(kind.said for kind in KINDS if kind.key == key), key
        assert kind_of(names, key) is None
    assert kind_of(["weight", "bias"]) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
            "pointer of Git LFS, .* git lfs pull",
        ),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b'{"metadata": {}, "weight_map": {}}', "is JSON: give the file of weights beside it"),
        (b"", "could not be read"),
    ],
)
@pytest.mark.parametrize("ending", ["safetensors", "pt", "bin"])
def test_what_downloads_leave_in_place_of_weights(tmp_path, content, said, ending):
    (tmp_path / f"model.{ending}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"--clip-weights must be .* model.{ending} .*{said}"):
        read_tensors("--clip-weights", tmp_path / f"model.{ending}")


def test_one_part_of_several_is_named(tmp_path):
    how = {**HOW, "file": "model-00001-of-00002.safetensors"}
    with pytest.raises(ValueError, match=r"lacks it; it is one part of several: give a file that holds all"):
        fill(nn.Linear(3, 2), {"weight": STATE["weight"]}, **how)


def test_a_training_of_another_kind_is_named(tmp_path):
    torch.save({"g": {"style.1.weight": torch.zeros(1)}, "d": {}, "args": "none"}, tmp_path / "550000.pt")
    with pytest.raises(
        ValueError, match=r"got g, d, args in 550000.pt; it is a StyleGAN2 generator: give it as"
    ):
        read_state("--model", tmp_path / "550000.pt")
