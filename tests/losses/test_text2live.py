"""The losses of layered editing are their formulas, written out; half precision and bad shapes included."""

import math

import pytest
import torch

from geokernels.losses import (
    bootstrap_loss,
    composition_loss,
    directional_loss,
    geodesic_consistency_loss,
    lay_over,
    lay_over_screen,
    self_similarity,
    sparsity_loss,
    spherical_loss,
    structure_loss,
)
from geokernels.testing import cloud, directions


def unit(B, D, seed):
    return directions(B, D, seed=seed).double()


def shares(*shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_spherical_loss_is_half_the_squared_angle():
    z, texts = unit(5, 7, 0), unit(3, 7, 1)
    asked = texts.mean(0) / texts.mean(0).norm()
    angles = [math.acos(float(row @ asked)) for row in z]
    expected = sum(angle**2 for angle in angles) / 2 / len(angles)
    assert spherical_loss(z, texts).item() == pytest.approx(expected, abs=1e-12)
    literal = sum(2 * math.asin(float((row - asked).norm()) / 2) ** 2 for row in z) / len(z)
    assert spherical_loss(z, texts).item() == pytest.approx(literal, abs=1e-12)


@pytest.mark.parametrize("direction", [directional_loss, geodesic_consistency_loss])
def test_composition_is_angle_and_direction(direction):
    given = unit(4, 7, 0), unit(4, 7, 1), unit(3, 7, 2), unit(3, 7, 3)
    expected = spherical_loss(given[0], given[3]) + direction(*given)
    assert torch.equal(composition_loss(*given, direction=direction), expected)


def test_composition_follows_the_straight_line_unless_told_otherwise():
    given = unit(4, 7, 0), unit(4, 7, 1), unit(3, 7, 2), unit(3, 7, 3)
    assert torch.equal(composition_loss(*given), composition_loss(*given, direction=directional_loss))
    geodesic = composition_loss(*given, direction=geodesic_consistency_loss)
    assert not torch.allclose(composition_loss(*given), geodesic, atol=1e-3)


def test_self_similarity_is_every_cosine():
    tokens = cloud(2 * 4, 3, seed=0).double().view(2, 4, 3)
    found = self_similarity(tokens)
    for b in range(2):
        for i in range(4):
            for j in range(4):
                cosine = torch.cosine_similarity(tokens[b, i], tokens[b, j], dim=0)
                assert found[b, i, j].item() == pytest.approx(cosine.item(), abs=1e-12)


def test_structure_is_the_mean_squared_difference_and_blind_to_what_leaves_cosines_alone():
    tokens, source = (cloud(2 * 4, 3, seed=i).double().view(2, 4, 3) for i in (0, 1))
    kept = self_similarity(source)
    total = 0.0
    for b in range(2):
        for i in range(4):
            for j in range(4):
                ours = torch.cosine_similarity(tokens[b, i], tokens[b, j], dim=0)
                total += float(ours - kept[b, i, j]) ** 2
    assert structure_loss(tokens, kept).item() == pytest.approx(total / 32, abs=1e-12)
    turn = torch.linalg.qr(cloud(3, 3, seed=2).double()).Q
    assert structure_loss(3 * source @ turn, kept).item() == pytest.approx(0, abs=1e-20)


def test_sparsity_is_its_formula_and_zero_where_nothing_is_painted():
    opacity = shares(1, 1, 3, 5, seed=0)
    values = opacity.flatten().tolist()
    count = sum(2 / (1 + math.exp(-5 * a)) - 1 for a in values) / len(values)
    amount = sum(values) / len(values)
    expected = 0.01 * count + 0.01 * amount
    assert sparsity_loss(opacity).item() == pytest.approx(expected, abs=1e-12)
    assert sparsity_loss(opacity, count=2, amount=3).item() == pytest.approx(2 * count + 3 * amount)
    assert sparsity_loss(torch.zeros(2, 3)) == 0


def test_bootstrap_is_the_mean_squared_difference():
    a, b = shares(1, 4, 5, seed=0), shares(1, 4, 5, seed=1)
    expected = sum((x - y) ** 2 for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    assert bootstrap_loss(a, b).item() == pytest.approx(expected / 20, abs=1e-12)


def test_an_edit_is_laid_over_a_picture_and_over_green():
    colour, opacity, ground = shares(3, 4, 5, seed=0), shares(1, 4, 5, seed=1), shares(3, 4, 5, seed=2)
    opacity[0, 0] = 0
    laid, screened = lay_over(colour, opacity, ground), lay_over_screen(colour, opacity)
    a, c, g = (float(x[0, 2, 3]) for x in (opacity, colour, ground))
    assert laid[0, 2, 3].item() == pytest.approx(a * c + (1 - a) * g)
    assert torch.equal(laid[:, 0], ground[:, 0])
    assert (255 * screened[:, 0]).round().unique(dim=1).flatten().tolist() == [0, 177, 64]
    assert torch.equal(lay_over(colour, torch.ones_like(opacity), ground), colour)


class TestGradients:
    def check(self, loss, *leaves):
        leaves = [leaf.requires_grad_() for leaf in leaves]
        assert torch.autograd.gradcheck(loss, leaves)

    def test_by_finite_differences(self):
        self.check(spherical_loss, unit(3, 4, 0), unit(2, 4, 1))
        self.check(composition_loss, unit(3, 4, 0), unit(3, 4, 1), unit(2, 4, 2), unit(2, 4, 3))
        tokens, source = (cloud(2 * 3, 4, seed=i).double().view(2, 3, 4) for i in (0, 1))
        self.check(structure_loss, tokens, self_similarity(source))
        self.check(sparsity_loss, 0.1 + shares(3, 4, seed=0))
        self.check(bootstrap_loss, shares(3, 4, seed=0), shares(3, 4, seed=1))
        self.check(lay_over, shares(3, 2, 2, seed=0), shares(1, 2, 2, seed=1), shares(3, 2, 2, seed=2))

    def test_are_finite_for_tokens_without_direction(self):
        tokens = torch.zeros(1, 3, 4, requires_grad=True)
        (grad,) = torch.autograd.grad(structure_loss(tokens, torch.eye(3)[None]), tokens)
        assert not grad.any()


def test_half_precision_and_autocast_change_nothing_but_the_inputs_rounding():
    tokens, kept = (
        cloud(2 * 9, 8, seed=0).view(2, 9, 8),
        self_similarity(cloud(2 * 9, 8, seed=1).view(2, 9, 8)),
    )
    opacity = shares(4, 4, seed=4).float()
    losses = [(structure_loss, tokens, kept), (sparsity_loss, opacity)]
    for loss, *given in losses:
        plain = loss(*given)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(loss(*given), plain)
    for loss, *given in [*losses, (bootstrap_loss, opacity, opacity.flip(0))]:
        halves = [x.bfloat16() for x in given]
        found = loss(*halves)
        assert found.dtype == torch.float32
        assert torch.equal(found, loss(*(x.float() for x in halves)))


def test_refusals_are_sentences():
    with pytest.raises(
        ValueError, match=r"source_similarity must have shape \(\.\.\., N, N\) = \(2, 3, 3\), got \(3, 3\)"
    ):
        structure_loss(torch.rand(2, 3, 4), torch.eye(3))
    with pytest.raises(TypeError, match=r"opacity must be float16, .*, got torch.uint8"):
        sparsity_loss(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"relevancy must have shape like opacity = \(2, 3\), got \(3, 2\)"):
        bootstrap_loss(torch.rand(2, 3), torch.rand(3, 2))
