"""The losses of atlases are 0 where they should be, known elsewhere, and finite where maps fold."""

import math

import pytest
import torch

from geokernels.losses import colour_gradient_loss, flow_loss, hidden_colour_loss, rigidity_loss


def chance(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_turns_are_free_and_stretching_costs_what_it_should():
    angle = torch.linspace(0, 6, 7, dtype=torch.float64)
    across, down = torch.stack([angle.cos(), angle.sin()], 1), torch.stack([-angle.sin(), angle.cos()], 1)
    assert rigidity_loss(across, down) == pytest.approx(0, abs=1e-12)
    # G = diag(4, 1): |G| = sqrt(17), |G^-1| = sqrt(17) / 4
    assert rigidity_loss(2 * across, down).item() == pytest.approx(17**0.5 * 1.25 - 8**0.5)
    assert rigidity_loss(2 * across, down) == pytest.approx(rigidity_loss(across, down / 2).item())


def test_a_map_that_folds_costs_much_and_has_a_finite_gradient():
    flat = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    loss = rigidity_loss(flat, flat.detach() + torch.tensor([1.0, 0.0]))
    loss.backward()
    assert loss > 1e3
    assert torch.isfinite(flat.grad).all()
    assert math.isfinite(rigidity_loss(torch.zeros(2, 2), torch.zeros(2, 2)).item())


def test_what_stays_in_the_atlas_costs_nothing_and_pulls_nowhere():
    here = chance(5, 2).requires_grad_()
    weight = torch.tensor([1.0, 0.5, 0, 1, 1], dtype=torch.float64)
    loss = flow_loss(here, here.detach().clone(), weight)
    loss.backward()
    assert loss == 0
    assert not here.grad.any()
    there = here.detach() + torch.tensor([3.0, 4.0])
    assert flow_loss(here, there, weight).item() == pytest.approx(5 * 3.5 / 5)


def test_hidden_colours_and_steps_of_colours_are_mean_squares():
    colour, opacity = chance(4, 3), torch.tensor([[0.0], [1.0], [0.5], [1.0]], dtype=torch.float64)
    expected = (colour[0].square().sum() + colour[2].square().sum() / 4) / 4
    assert hidden_colour_loss(colour, opacity).item() == pytest.approx(expected.item())
    assert colour_gradient_loss(colour, colour) == 0
    assert colour_gradient_loss(colour, colour + 1).item() == pytest.approx(3)


@pytest.mark.parametrize("loss", [rigidity_loss, colour_gradient_loss])
def test_gradients_by_finite_differences(loss):
    width = 2 if loss is rigidity_loss else 3
    given = [chance(4, width, seed=s).requires_grad_() for s in (1, 2)]
    assert torch.autograd.gradcheck(loss, given)


@pytest.mark.parametrize("loss", [rigidity_loss, colour_gradient_loss, hidden_colour_loss])
def test_shapes_that_disagree_are_named(loss):
    with pytest.raises(ValueError, match="must have shape"):
        loss(torch.rand(4, 3), torch.rand(5, 3))
