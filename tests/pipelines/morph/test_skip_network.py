"""The published network is the released one: its size, its formula in float64, its colours, its start."""

import pytest
import torch
import torch.nn.functional as F

from geokernels.pipelines.morph.edit_network import FAINTEST
from geokernels.pipelines.morph.skip_network import SkipNetwork, decorrelated_colours


def network(widths=(128,) * 7, seed=0, **how):
    return SkipNetwork(widths, generator=torch.Generator().manual_seed(seed), **how)


def test_it_has_the_published_number_of_parameters():
    # a level: 3x3 down, 3x3, 3x3 of 132, 1x1, a skip; less where the picture has 3 channels for 128
    level = 128 * (9 * 128 + 1) * 2 + 128 * (9 * 132 + 1) + 128 * 129 + 4 * 129
    norms = 2 * (4 + 128 + 128 + 132 + 128 + 128)
    first = 125 * (9 * 128 + 4) + 2 * 128  # its 3x3 and its skip see 3, and nothing follows its 1x1
    count = sum(p.numel() for p in network().parameters())
    assert count == 7 * (level + norms) - first + 4 * 129 == 3_115_548


def norm(x, weights, name):
    mean = x.mean((0, 2, 3), keepdim=True)
    spread = (x - mean).square().mean((0, 2, 3), keepdim=True)
    scale, shift = (weights[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
    return scale * (x - mean) / (spread + 1e-5).sqrt() + shift


def block(x, weights, name, stride=1, normed=True):
    kernel = weights[f"{name}.0.weight"]
    pad = kernel.shape[-1] // 2
    x = F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), kernel, weights[f"{name}.0.bias"], stride)
    x = norm(x, weights, f"{name}.1") if normed else x
    return torch.where(x < 0, 0.2 * x, x)


def level(x, weights, name, depth, first=True):
    thin = block(x, weights, f"{name}.beside")
    deep = block(block(x, weights, f"{name}.down.0", 2), weights, f"{name}.down.1")
    deep = level(deep, weights, f"{name}.deeper", depth - 1, first=False) if depth > 1 else deep
    deep = F.interpolate(deep, scale_factor=2, mode="bilinear")[..., : x.shape[-2], : x.shape[-1]]
    both = norm(torch.cat([thin, deep], 1), weights, f"{name}.norm")
    return block(block(both, weights, f"{name}.up.0"), weights, f"{name}.up.1", normed=not first)


# even all the way down, odd at every level, as small as it may be
@pytest.mark.parametrize("sides", [(16, 32), (23, 13), (9, 9)], ids=str)
def test_it_computes_the_released_formula(sides):
    net = network((8, 16, 8), beside=3).double()
    x = torch.rand(1, 3, *sides, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = net.state_dict()
    painted = level(x, weights, "levels", 3)
    painted = F.conv2d(painted, weights["head.weight"], weights["head.bias"])
    # coordinates to colours: brightness damped by 1.6, all by the longest column, which is brightness's
    spread = [[0.26 / 1.6, 0.09, 0.02], [0.27 / 1.6, 0.0, -0.05], [0.27 / 1.6, -0.09, 0.03]]
    longest = (0.26**2 + 2 * 0.27**2) ** 0.5 / 1.6
    colours = torch.tensor(spread, dtype=torch.float64) / longest
    rgb = (colours @ painted[:, :3].flatten(2)).unflatten(-1, sides)
    found = net(x)
    assert found.shape == (1, 4, *sides)
    assert torch.allclose(found, torch.cat([rgb, painted[:, 3:]], 1), atol=1e-6)
    assert torch.allclose(net.layer(found), 1 / (1 + (-found).exp()), atol=1e-12)


def test_colours_have_unit_brightness_and_grey_stays_nearly_grey():
    colours = decorrelated_colours()
    assert torch.allclose(colours.norm(dim=0).max(), torch.tensor(1.0))
    assert colours[:, 0].std() < 0.02
    assert torch.linalg.matrix_rank(colours) == 3


def test_it_repeats_by_seed_and_showing_changes_nothing():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    net, again, other = network((8, 8)), network((8, 8)), network((8, 8), seed=1)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    first = net(x)
    assert torch.equal(first, again(x))
    assert not torch.equal(first, other(x))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(first, net(x))
    assert torch.equal(first, net.eval()(x))


def test_what_is_fainter_than_half_a_grey_level_is_written_as_nothing():
    opacity = torch.tensor([0.0, 1e-6, 0.00195, FAINTEST, 0.00197, 1.0])
    assert SkipNetwork.written(opacity).tolist() == pytest.approx([0, 0, 0, 1 / 510, 0.00197, 1])
    # it changes no byte: over black, white shines through by less than half of one
    assert round(255 * 0.00195) == 0


def test_pictures_too_small_for_its_levels_are_refused():
    assert network((8, 8)).least_side == 5
    network((8, 8))(torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match="at least 129 x 129 pixels to the published network"):
        network().require_sides((128, 200))
