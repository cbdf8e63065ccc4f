"""A vision transformer reads pictures of any proportions as its formula says; others see them squeezed."""

import pytest
import torch
import torch.nn.functional as F

from geokernels.models import load_clip
from geokernels.models.clip_proportions import encode_whole, encode_words, tokens_of_whole

pytest.importorskip("open_clip")
pytestmark = pytest.mark.filterwarnings("default")


def pictures(*sides, count=2):
    return torch.rand(count, 3, *sides, generator=torch.Generator().manual_seed(0))


def by_hand(encoder, x, blocks):
    """The tower's first ``blocks`` blocks, written out in float64: patches, positions, attention, MLP."""
    visual = encoder.model.visual
    weights = {name: value.double() for name, value in visual.state_dict().items()}
    mean, std = (torch.tensor(visual.preprocess_cfg[key], dtype=torch.float64) for key in ("mean", "std"))
    x = (x.double() - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    patches = F.unfold(x, 8, stride=8).mT @ weights["conv1.weight"].flatten(1).T
    rows, columns = x.shape[-2] // 8, x.shape[-1] // 8
    grid = weights["positional_embedding"][1:].view(4, 4, -1).permute(2, 0, 1)[None]
    if (rows, columns) != (4, 4):
        scale = ((rows + 0.1) / 4, (columns + 0.1) / 4)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    assert grid.shape[-2:] == (rows, columns)
    first = (weights["class_embedding"] + weights["positional_embedding"][0]).expand(len(x), 1, -1)
    tokens = torch.cat([first, patches + grid[0].flatten(1).T], 1)
    tokens = normed(tokens, weights, "ln_pre")
    for i in range(blocks):
        at = f"transformer.resblocks.{i}."
        joint = normed(tokens, weights, f"{at}ln_1") @ weights[f"{at}attn.in_proj_weight"].T
        q, k, v = (joint + weights[f"{at}attn.in_proj_bias"]).unflatten(-1, (3, 2, 16)).unbind(2)
        shares = torch.einsum("bihd,bjhd->bhij", q, k).div(4).softmax(-1)
        heads = torch.einsum("bhij,bjhd->bihd", shares, v).flatten(2)
        tokens = tokens + heads @ weights[f"{at}attn.out_proj.weight"].T + weights[f"{at}attn.out_proj.bias"]
        wide = normed(tokens, weights, f"{at}ln_2") @ weights[f"{at}mlp.c_fc.weight"].T
        wide = F.gelu(wide + weights[f"{at}mlp.c_fc.bias"])
        tokens = tokens + wide @ weights[f"{at}mlp.c_proj.weight"].T + weights[f"{at}mlp.c_proj.bias"]
    return tokens, weights


def normed(x, weights, name):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


# square as trained, wide, and high with a rest that no patch covers
@pytest.mark.parametrize("sides", [(32, 32), (32, 48), (53, 32)], ids=str)
def test_tokens_are_those_before_the_last_block_with_the_class_token_first(tiny_vit, sides):
    x = pictures(*sides)
    whole = x[..., : sides[0] // 8 * 8, : sides[1] // 8 * 8]
    expected, _ = by_hand(tiny_vit, whole, 2)
    found = tokens_of_whole(tiny_vit, x)
    assert found.shape == (2, 1 + (sides[0] // 8) * (sides[1] // 8), 32)
    assert torch.allclose(found.double(), expected, atol=1e-5)


@pytest.mark.parametrize("sides", [(32, 32), (32, 48)], ids=str)
def test_features_are_not_normalised(tiny_vit, sides):
    x = pictures(*sides)
    tokens, weights = by_hand(tiny_vit, x, 3)
    expected = normed(tokens[:, 0], weights, "ln_post") @ weights["proj"]
    assert torch.allclose(encode_whole(tiny_vit, x).double(), expected, atol=1e-5)
    if sides == (32, 32):
        unit = F.normalize(encode_whole(tiny_vit, x), dim=-1)
        assert torch.allclose(unit, tiny_vit.encode_image(x), atol=1e-6)


def test_gradients_reach_the_picture_and_the_model_is_as_before(tiny_vit):
    before = {name: value.clone() for name, value in tiny_vit.state_dict().items()}
    x = pictures(40, 32, count=1).requires_grad_()
    (encode_whole(tiny_vit, x).sum() + tokens_of_whole(tiny_vit, x).sum()).backward()
    assert x.grad.abs().sum() > 0
    assert all(torch.equal(before[name], value) for name, value in tiny_vit.state_dict().items())


def test_a_tower_without_a_table_of_positions_sees_the_picture_squeezed():
    world, x = load_clip("world"), pictures(48, 96)
    squeezed = F.interpolate(x, (64, 64), mode="bilinear", align_corners=False)
    unit, tokens = world.encode_image_and_tokens(squeezed)
    assert torch.allclose(F.normalize(encode_whole(world, x), dim=-1), unit, atol=1e-6)
    assert torch.equal(tokens_of_whole(world, x), tokens)


def test_words_are_not_normalised(tiny_vit):
    prompts, templates = ["a cat", "a dog"], ["{}", "a photo of {}."]
    raw = encode_words(tiny_vit, prompts, templates)
    assert raw.shape == (2, 2, 12)
    assert torch.allclose(F.normalize(raw, dim=-1), tiny_vit.encode_text(prompts, templates), atol=1e-6)
    assert (raw.norm(dim=-1) - 1).abs().max() > 0.01
    with pytest.raises(ValueError, match="at most 77 tokens"):
        encode_words(tiny_vit, ["a cat " * 80], templates)
