"""DINO's keys are those of the last block, and damaged weights are refused."""

import pytest
import torch
from safetensors.torch import save_file

from geokernels.models.dino import MEAN, STD, load_dino

timm = pytest.importorskip("timm")

TINY = "test_vit"  # timm's own, for tests


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = timm.create_model(TINY, pretrained=False, num_classes=0).eval()
    path = tmp_path_factory.mktemp("dino") / "tiny.safetensors"
    save_file(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_keys_by_hand(saved, suffix, tmp_path):
    model, path = saved
    if suffix == ".pth":
        path = tmp_path / "tiny.pth"
        torch.save(model.state_dict(), path)
    dino = load_dino(path, architecture=TINY)
    pictures = torch.rand(2, 3, dino.side, dino.side)
    found = dino(pictures)
    normal = (pictures - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        x = model.norm_pre(model._pos_embed(model.patch_embed(normal)))
        for block in model.blocks[:-1]:
            x = block(x)
        last = model.blocks[-1]
        C = x.shape[-1]
        keys = torch.nn.functional.linear(
            last.norm1(x), last.attn.qkv.weight[C : 2 * C], last.attn.qkv.bias[C : 2 * C]
        )
    torch.testing.assert_close(found, keys)
    assert dino(torch.rand(1, 3, 48, 80)).shape[1:] == found.shape[1:]


def test_refusals(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="weights must be an existing file"):
        load_dino(tmp_path / "none.pth", architecture=TINY)
    with pytest.raises(ValueError, match="weights must fit vit_tiny_patch16_224"):
        load_dino(saved[1], architecture="vit_tiny_patch16_224")
    (tmp_path / "torn.safetensors").write_bytes(saved[1].read_bytes()[:200])
    with pytest.raises(ValueError, match=r"torn.safetensors could not be read"):
        load_dino(tmp_path / "torn.safetensors", architecture=TINY)


def test_what_dino_s_own_training_leaves(saved, tmp_path):
    model, path = saved
    teacher = {f"backbone.{k}": v for k, v in model.state_dict().items()} | {
        "head.mlp.0.weight": torch.zeros(2)
    }
    student = {f"module.{k}": v + 1 for k, v in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 3}, tmp_path / "full_checkpoint.pth")
    x = torch.rand(1, 3, 32, 32)
    found = load_dino(tmp_path / "full_checkpoint.pth", architecture=TINY)(x)
    assert torch.equal(found, load_dino(path, architecture=TINY)(x))


def test_other_files_are_named(saved, tmp_path):
    model, _ = saved
    for key, said in [
        ("encoder.layer.0.attention.attention.key.weight", "these are transformers' weights: give .*timm's"),
        ("visual.proj", "these are CLIP weights"),
    ]:
        save_file({key: torch.zeros(1)}, tmp_path / "a.safetensors")
        with pytest.raises(
            ValueError, match=f"--dino-weights must fit {TINY}, .* a.safetensors lacks it; {said}"
        ):
            load_dino(tmp_path / "a.safetensors", architecture=TINY, called="--dino-weights")
    save_file(model.state_dict() | {"norm.bias": torch.full((64,), float("nan"))}, tmp_path / "b.safetensors")
    with pytest.raises(
        ValueError, match=r"weights must be finite, got NaN or infinity in 'norm.bias' of b.saf"
    ):
        load_dino(tmp_path / "b.safetensors", architecture=TINY)


def test_how_pictures_are_seen(saved):
    model, path = saved
    given = torch.rand(1, 3, 48, 80)
    plain = load_dino(path, architecture=TINY)
    side, resize = plain.side, torch.nn.functional.interpolate

    def resized(antialias):
        size = (side, side)
        return resize(given, size, mode="bilinear", antialias=antialias, align_corners=False)

    rough = load_dino(path, architecture=TINY, antialias=False)
    assert torch.equal(rough(given), plain(resized(False)))
    assert not torch.equal(rough(given), plain(given))
    # what the published code shows it: bytes, as if they were not
    bytes_of = load_dino(path, architecture=TINY, scale=255.0)(resized(True))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(bytes_of, plain((255 * resized(True) - mean) / std * std + mean))
    tokens = load_dino(path, architecture=TINY, class_token=False)(given)
    assert torch.equal(tokens, plain(given)[:, 1:])
    first = load_dino(path, architecture=TINY, layer=0)
    assert torch.equal(first(given), load_dino(path, architecture=TINY, layer=-len(model.blocks))(given))
    assert not torch.equal(first(given), plain(given))


def test_a_side_that_is_not_the_network_s_own(saved):
    _, path = saved
    plain = load_dino(path, architecture=TINY)
    given = torch.rand(1, 3, plain.side, plain.side)
    torch.testing.assert_close(load_dino(path, architecture=TINY, side=plain.side)(given), plain(given))
    large = load_dino(path, architecture=TINY, side=2 * plain.side)(given)
    assert large.shape[1] - 1 == 4 * (plain(given).shape[1] - 1)
