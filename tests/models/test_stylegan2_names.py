"""load_generator reads what trainings other than rosinality's leave, and NVIDIA's names and pickles."""

import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from geokernels.models import Generator, GeneratorConfig, load_generator
from geokernels.models.stylegan2_names import REBUILT

SMALL = GeneratorConfig(channels=(6, 5, 4), style_dim=7, mapping_layers=2)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    generator = Generator(SMALL)
    for name, value in generator.named_parameters():
        if name.endswith("noise.weight"):
            nn.init.normal_(value)
    generator.latent_avg.normal_()
    return generator.eval()


def save(content: dict, folder: Path) -> Path:
    torch.save(content, folder / "g.pt")
    return folder / "g.pt"


@torch.no_grad()
def draws_alike(found: Generator, small: Generator) -> bool:
    z = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    return torch.equal(found(z, truncation=0.7), small(z, truncation=0.7))


def nvidia(generator: Generator) -> dict[str, torch.Tensor]:
    """The generator by NVIDIA's names and shapes, written down from their networks."""
    state, found = generator.state_dict(), {"mapping.w_avg": generator.latent_avg}
    for i in range(SMALL.mapping_layers):
        for part in ("weight", "bias"):
            found[f"mapping.fc{i}.{part}"] = state[f"style.{i + 1}.{part}"]
    found["synthesis.b4.const"] = state["input.input"][0]
    layers = {"b4.conv1": ("conv1", 0), "b4.torgb": ("to_rgb1", None)}
    for i, side in enumerate((8, 16)):
        layers |= {f"b{side}.conv{j}": (f"convs.{2 * i + j}", 2 * i + j + 1) for j in (0, 1)}
        layers[f"b{side}.torgb"] = (f"to_rgbs.{i}", None)
    for theirs, (ours, noise) in layers.items():
        theirs = f"synthesis.{theirs}"
        found[f"{theirs}.weight"] = state[f"{ours}.conv.weight"][0]
        found[f"{theirs}.affine.weight"] = state[f"{ours}.conv.modulation.weight"]
        found[f"{theirs}.affine.bias"] = state[f"{ours}.conv.modulation.bias"]
        if noise is None:
            found[f"{theirs}.bias"] = state[f"{ours}.bias"].flatten()
        else:
            found[f"{theirs}.bias"] = state[f"{ours}.activate.bias"]
            found[f"{theirs}.noise_strength"] = state[f"{ours}.noise.weight"][0]
            found[f"{theirs}.noise_const"] = state[f"noises.noise_{noise}"][0, 0]
            found[f"{theirs}.resample_filter"] = torch.ones(4, 4) / 16
    for side in (4, 8, 16):
        found[f"synthesis.b{side}.resample_filter"] = torch.ones(4, 4) / 16
    return found


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s, mean: {"g": s, "d": {"convs.1.conv1.0.weight": torch.zeros(1)}, "latent_avg": mean},
        lambda s, mean: {"G_ema": s, "latent_avg": mean},
        lambda s, mean: {"g": {k: v + 1 for k, v in s.items()}, "g_ema": s, "latent_avg": mean},
        lambda s, mean: {"params_ema": s | {"latent_avg": mean}},
        lambda s, mean: {"g_ema": s, "latent_avg": mean.tolist()},
        lambda s, mean: {"g_ema": s, "latent_avg": [mean]},
        lambda s, mean: {"g_ema": s, "latent_avg": mean.expand(6, -1)},
        lambda s, mean: {"g_ema": {f"module.{k}": v for k, v in s.items()}, "latent_avg": mean},
        lambda s, mean: {
            "state_dict": {f"decoder.{k}": v for k, v in s.items()} | {"encoder.input.0.weight": mean},
            "latent_avg": mean,
            "opts": {"size": 16},
        },
        lambda s, mean: {f"generator.{k}": v for k, v in s.items()} | {"latent_avg": mean},
    ],
    ids=["g", "G_ema", "g_ema first", "params_ema", "numbers", "a list", "W+", "module", "pSp", "part"],
)
def test_what_trainings_leave(small, tmp_path, wrap):
    found = load_generator(save(wrap(small.state_dict(), small.latent_avg), tmp_path))
    assert torch.equal(found.latent_avg, small.latent_avg)
    assert draws_alike(found, small)


def test_noise_and_filters_are_rebuilt(small, tmp_path):
    import re

    state = {key: value for key, value in small.state_dict().items() if not re.fullmatch(REBUILT, key)}
    assert len(small.state_dict()) - len(state) == 5 + 2 + 2
    content = {"g_ema": state, "latent_avg": small.latent_avg}
    first, second = (load_generator(save(content, tmp_path)) for _ in range(2))
    assert draws_alike(first, second), "the noise is the same each time"
    with torch.no_grad():
        z = torch.ones(1, 7)
        assert torch.equal(first(z, noise="none"), small(z, noise="none")), "the filters are the usual ones"


def test_noise_of_which_a_part_is_lost_is_not_rebuilt(small, tmp_path):
    state = small.state_dict()
    del state["noises.noise_2"]
    with pytest.raises(ValueError, match=r"which has 'noises.noise_2' .*, but g.pt lacks it"):
        load_generator(save(state, tmp_path))


def test_means_that_differ_between_layers_are_refused(small, tmp_path):
    content = {"g_ema": small.state_dict(), "latent_avg": torch.randn(6, 7)}
    with pytest.raises(ValueError, match=r"one mean of 7 numbers for all layers, got 6 that differ in g.pt"):
        load_generator(save(content, tmp_path))
    content["latent_avg"] = torch.full((7,), float("nan"))
    with pytest.raises(ValueError, match=r"latent_avg must be finite, got NaN or infinity in g.pt"):
        load_generator(save(content, tmp_path))


def test_weights_that_are_not_finite(small, tmp_path):
    state = small.state_dict() | {"to_rgbs.1.bias": torch.full((1, 3, 1, 1), float("inf"))}
    with pytest.raises(
        ValueError, match=r"checkpoint must be finite, got NaN or infinity in 'to_rgbs.1.bias' of"
    ):
        load_generator(save({"g_ema": state}, tmp_path))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("convs.1.conv1.0.weight", "it is a discriminator: give the generator, g_ema, of the same training"),
        ("synthesis.input.freqs", "it is a StyleGAN3, and only StyleGAN2 is read"),
        ("visual.conv1.weight", "these are CLIP weights: give them as --clip-weights"),
        ("model.diffusion_model.x", "it is a whole diffusion model: give it as --model"),
    ],
)
def test_other_kinds_are_named(tmp_path, key, said):
    with pytest.raises(ValueError, match=f"must be a StyleGAN2 generator, but it lacks .*; {said}"):
        load_generator(save({key: torch.zeros(1)}, tmp_path))


class TestNvidia:
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_names(self, small, tmp_path, wrapped):
        state = {key: value.contiguous() for key, value in nvidia(small).items()}
        if wrapped:
            path = save({"G_ema": state}, tmp_path)
        else:
            path = tmp_path / "g.safetensors"
            save_file(state, path)
        found = load_generator(path)
        assert torch.equal(found.latent_avg, small.latent_avg)
        assert draws_alike(found, small)

    def test_their_pickle_is_read_and_not_run(self, small, tmp_path, monkeypatch):
        """As their persistence module writes it: a function of theirs rebuilds each module."""
        (tmp_path / "ffhq.pkl").write_bytes(self.pickle(small, monkeypatch))
        monkeypatch.delitem(sys.modules, "torch_utils.persistence")
        found = load_generator(tmp_path / "ffhq.pkl")
        assert torch.equal(found.latent_avg, small.latent_avg)
        assert draws_alike(found, small)

    def pickle(self, small, monkeypatch) -> bytes:
        module = types.ModuleType("torch_utils.persistence")

        def rebuild(meta):
            pytest.fail("a function of the pickle was run")

        rebuild.__module__, rebuild.__qualname__ = module.__name__, "_reconstruct_persistent_obj"
        module._reconstruct_persistent_obj = rebuild
        monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
        monkeypatch.setitem(sys.modules, module.__name__, module)

        class Persistent(nn.Module):
            def __reduce__(self):
                meta = {"type": "class", "version": 6, "module_src": "raise", "class_name": "Layer"}
                return rebuild, ({**meta, "state": dict(self.__dict__)},)

        root = Persistent()
        for name, value in nvidia(small).items():
            at = root
            for part in name.split(".")[:-1]:
                if not hasattr(at, part):
                    at.add_module(part, Persistent())
                at = getattr(at, part)
            leaf = name.rsplit(".", 1)[-1]
            if leaf in ("w_avg", "noise_const", "resample_filter"):
                at.register_buffer(leaf, value)
            else:
                at.register_parameter(leaf, nn.Parameter(value.clone()))
        return pickle.dumps({"G": Persistent(), "D": Persistent(), "G_ema": root, "training_set_kwargs": {}})

    def test_a_network_with_classes_is_refused(self, small, tmp_path):
        state = nvidia(small) | {"mapping.embed.weight": torch.zeros(7, 3)}
        with pytest.raises(ValueError, match=r"which has no 'mapping.embed.weight', as g.pt has"):
            load_generator(save(state, tmp_path))
