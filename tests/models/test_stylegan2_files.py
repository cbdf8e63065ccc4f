"""load_generator reads the formats in circulation, strictly, and refuses what would execute code."""

import argparse
import json
import pickle
import shutil
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from geokernels.models import Generator, GeneratorConfig, load_generator, save_generator

SMALL = GeneratorConfig(channels=(6, 5, 4), style_dim=7, mapping_layers=2)


@pytest.fixture
def small():
    generator = Generator(SMALL)
    generator.latent_avg.normal_()
    return generator


def same(a: Generator, b: Generator) -> bool:
    first, second = a.state_dict(), b.state_dict()
    equal = first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    return equal and torch.equal(a.latent_avg, b.latent_avg)


def names_in_circulation(size: int) -> set[str]:
    """Every key of a g_ema state dict of this size, written down from the format alone."""
    count = size.bit_length() - 3  # of resolutions after the first
    styled = (
        "conv.weight",
        "conv.modulation.weight",
        "conv.modulation.bias",
        "noise.weight",
        "activate.bias",
    )
    rgb = ("bias", "conv.weight", "conv.modulation.weight", "conv.modulation.bias")
    keys = {f"style.{i}.{kind}" for i in range(1, 9) for kind in ("weight", "bias")} | {"input.input"}
    keys |= {f"conv1.{part}" for part in styled} | {f"to_rgb1.{part}" for part in rgb}
    keys |= {f"convs.{i}.{part}" for i in range(2 * count) for part in styled}
    keys |= {f"convs.{2 * i}.conv.blur.kernel" for i in range(count)}
    keys |= {f"to_rgbs.{i}.{part}" for i in range(count) for part in (*rgb, "upsample.kernel")}
    return keys | {f"noises.noise_{i}" for i in range(2 * count + 1)}


@pytest.mark.parametrize("size", [64, 128, 512, 1024])
def test_keys_of_every_size_are_those_in_circulation(size):
    with torch.device("meta"):
        state = Generator(GeneratorConfig.standard(size)).state_dict()
    assert set(state) == names_in_circulation(size)
    assert GeneratorConfig.of(state) == GeneratorConfig.standard(size)


def test_full_size_checkpoint_in_the_common_format(tmp_path):
    """256 pixels, channel multiplier 2, as training scripts leave it: arguments and optimiser included."""
    config = GeneratorConfig.standard(256)
    generator = Generator(config)
    state = generator.state_dict()
    assert set(state) == names_in_circulation(256)
    assert state["convs.10.conv.weight"].shape == (1, 128, 256, 3, 3)
    assert state["noises.noise_12"].shape == (1, 1, 256, 256)
    content = {"g_ema": state, "latent_avg": torch.randn(512), "args": argparse.Namespace(size=256)}
    torch.save(content, tmp_path / "550000.pt")
    found = load_generator(tmp_path / "550000.pt")
    assert found.config == config
    assert all(torch.equal(value, state[key]) for key, value in found.state_dict().items())
    z = torch.randn(1, 512)
    with torch.no_grad():
        drawn = found(z, truncation=0.7)
        generator.latent_avg.copy_(content["latent_avg"])
        assert drawn.shape == (1, 3, 256, 256)
        assert torch.equal(drawn, generator(z, truncation=0.7))


@pytest.mark.parametrize("name", ["g.pt", "g.pth", "g.ckpt", "g.safetensors"])
def test_what_is_saved_is_loaded(small, tmp_path, name):
    save_generator(small, tmp_path / name)
    assert same(load_generator(tmp_path / name), small)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_bare_state_dict(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "g.pt")
    found = load_generator(tmp_path / "g.pt")
    small.latent_avg.zero_()
    assert same(found, small)
    assert not found.training


def test_half_precision_is_widened(small, tmp_path):
    save_file({k: v.half() for k, v in small.state_dict().items()}, tmp_path / "g.safetensors")
    found = load_generator(tmp_path / "g.safetensors")
    assert all(p.dtype == torch.float32 for p in found.parameters())


class TestErrors:
    def test_no_such_file(self):
        with pytest.raises(FileNotFoundError, match="checkpoint must be 'world' or an existing file"):
            load_generator("nowhere.pt")

    def test_another_pickle(self, small, tmp_path):
        (tmp_path / "ffhq.pkl").write_bytes(pickle.dumps({}))
        with pytest.raises(ValueError, match=r"ffhq.pkl could not be read \(it is a pickle without modules"):
            load_generator(tmp_path / "ffhq.pkl")
        with pytest.raises(ValueError, match="path must end in"):
            save_generator(small, tmp_path / "g.pkl")

    def test_a_file_that_would_execute_code(self, small, tmp_path):
        marker = tmp_path / "executed"
        torch.save({"g_ema": small.state_dict(), "args": _Executes(marker)}, tmp_path / "g.pt")
        with pytest.raises(
            ValueError, match=r"g.pt could not be read \(it would run [\w.]+\); .* where it is trusted"
        ):
            load_generator(tmp_path / "g.pt")
        assert not marker.exists()

    @pytest.mark.parametrize("ending", ["pt", "safetensors"])
    def test_a_truncated_file(self, small, tmp_path, ending):
        save_generator(small, tmp_path / f"whole.{ending}")
        cut = tmp_path / f"cut.{ending}"
        cut.write_bytes((tmp_path / f"whole.{ending}").read_bytes()[:2000])
        with pytest.raises(ValueError, match=rf"cut.{ending} could not be read .*; fetch it again"):
            load_generator(cut)

    def test_another_architecture(self, tmp_path):
        save_file({"layer1.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
        with pytest.raises(ValueError, match=r"must be a StyleGAN2 generator, but it lacks 'style.1.weight'"):
            load_generator(tmp_path / "resnet.safetensors")

    @pytest.mark.parametrize(
        "key, change, finding",
        [
            ("to_rgbs.1.bias", None, r"lacks it"),
            ("convs.3.conv.weight", torch.zeros(1, 4, 4, 5, 5), r"has \(1, 4, 4, 5, 5\) for it"),
            ("noises.noise_4", torch.zeros(1, 1, 8, 8), r"has \(1, 1, 8, 8\) for it"),
        ],
    )
    def test_the_first_key_that_disagrees_is_named(self, small, tmp_path, key, change, finding):
        state = small.state_dict() | {key: change}
        torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "g.pt")
        with pytest.raises(
            ValueError, match=rf"StyleGAN2 generator, which has '{key}' of shape .*, but g.pt {finding}"
        ):
            load_generator(tmp_path / "g.pt")

    def test_a_surplus_key(self, small, tmp_path):
        torch.save(small.state_dict() | {"const.weight": torch.zeros(1)}, tmp_path / "g.pt")
        with pytest.raises(ValueError, match=r"which has no 'const.weight', as g.pt has"):
            load_generator(tmp_path / "g.pt")

    def test_a_mean_of_another_length(self, small, tmp_path):
        torch.save({"g_ema": small.state_dict(), "latent_avg": torch.zeros(8)}, tmp_path / "g.pt")
        with pytest.raises(ValueError, match=r"latent_avg must have 7 numbers, got 8 in g.pt"):
            load_generator(tmp_path / "g.pt")

    def test_a_list(self, tmp_path):
        torch.save([torch.zeros(3)], tmp_path / "g.pt")
        with pytest.raises(ValueError, match=r"checkpoint must hold a state dict, got list in g.pt"):
            load_generator(tmp_path / "g.pt")


def test_an_embedded_file_that_was_altered(monkeypatch, tmp_path):
    original = Path(str(resources.files("geokernels"))) / "world" / "weights"
    folder = tmp_path / "world" / "weights"
    folder.mkdir(parents=True)
    for ending in ("safetensors", "record.json"):
        shutil.copy(original / f"world-generator.{ending}", folder)
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    assert load_generator("world").config.size == 64
    altered = load_file(folder / "world-generator.safetensors")
    altered["conv1.noise.weight"] += 1
    save_file(altered, folder / "world-generator.safetensors")
    digest = json.loads((folder / "world-generator.record.json").read_text())["sha256"]
    with pytest.raises(ValueError, match=f"world-generator.safetensors must have sha256 {digest}, got "):
        load_generator("world")


class _Executes:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)
