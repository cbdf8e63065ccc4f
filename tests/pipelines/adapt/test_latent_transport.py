"""The transport between Gaussians is exact, and a generator absorbs it exactly."""

import copy

import pytest
import torch

from geokernels.pipelines.adapt.latent_transport import RIDGE, CodeMap, absorb, gaussian_map, search_map
from geokernels.pipelines.adapt.layer_choice import code_movements


def codes(n, d, seed):
    chance = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=chance, dtype=torch.float64)
    return torch.randn(n, d, generator=chance, dtype=torch.float64) @ mix + torch.randn(d, generator=chance)


def moments(w):
    rows = w - w.mean(0)
    return w.mean(0), rows.T @ rows / len(w)


def test_it_carries_mean_and_covariance():
    w, chosen = codes(300, 5, 0), codes(80, 5, 1)
    mean, covariance = moments(gaussian_map(w, chosen, shrinkage=0.0)(w))
    goal, wanted = moments(chosen)
    assert torch.allclose(mean, goal, atol=1e-9)
    # the ridge is small beside the least variance here
    assert torch.allclose(covariance, wanted, atol=20 * RIDGE * wanted.diagonal().max())


def test_it_is_the_gradient_of_a_convex_function():
    # symmetric and positive: no cheaper way carries the one Gaussian to the other
    turn = gaussian_map(codes(300, 5, 0), codes(80, 5, 1), shrinkage=0.1).turn
    assert torch.allclose(turn, turn.T, atol=1e-9)
    assert (torch.linalg.eigvalsh(turn) > 0).all()


def test_few_codes_suffice_and_the_same_codes_stay():
    w = codes(300, 5, 0)
    assert torch.isfinite(gaussian_map(w, w[:2], shrinkage=0.1)(w)).all()
    stay = gaussian_map(w, w, shrinkage=0.3)
    assert torch.allclose(stay(w), w, atol=1e-6)


def test_parts_of_the_way():
    w = codes(300, 5, 0)
    whole = gaussian_map(w, codes(80, 5, 1), shrinkage=0.3)
    assert torch.allclose(whole.part(0.0)(w), w)
    assert torch.allclose(whole.part(0.5)(w), (w + whole(w)) / 2)
    assert torch.allclose(whole.part(1.5)(w), w + 1.5 * (whole(w) - w))


def test_a_generator_absorbs_a_map(tiny_generator):
    chance = torch.Generator().manual_seed(0)
    turn = torch.eye(7) + 0.2 * torch.randn(7, 7, generator=chance)
    carry = CodeMap(turn, torch.randn(7, generator=chance))
    w = torch.randn(3, 7, generator=chance)
    carried = copy.deepcopy(tiny_generator)
    absorb(carried, carry)
    with torch.no_grad():
        assert torch.allclose(carried.synthesis(w), tiny_generator.synthesis(carry(w)), atol=1e-4)
        # W+ as well, row by row
        plus = torch.randn(2, 6, 7, generator=chance)
        assert torch.allclose(carried.synthesis(plus), tiny_generator.synthesis(carry(plus)), atol=1e-4)


def test_the_best_map_is_found():
    w = codes(400, 4, 0)
    goal = w[w[:, 0].topk(40).indices].mean(0)

    def likeness(carry):
        near = -(carry(w) - goal).square().mean().item()
        return near, near

    start = search_map(w, w[:, 0], likeness, share=0.1)
    assert start.score == max(likeness(start.map)[0], start.score)
    # it goes towards the codes of the highest scores
    assert start.map(w)[:, 0].mean() > w[:, 0].mean() + w[:, 0].std() / 2


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_layers_are_those_that_a_step_of_descent_moves_most(tiny_generator, chunk):
    model = tiny_generator.requires_grad_(False)
    w = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))

    def loss(plus, part):
        return model.synthesis(plus).square().mean((1, 2, 3))

    plus = w[:, None].repeat(1, 6, 1).requires_grad_()
    descent = torch.optim.SGD([plus], lr=0.01)
    loss(plus, slice(0, 5)).sum().backward()
    descent.step()
    moved = (plus.detach() - w[:, None]).abs().mean((0, 2))
    found = code_movements(model, w, loss, chunk=chunk)
    assert torch.allclose(found / found.sum(), moved / moved.sum(), atol=1e-4)
