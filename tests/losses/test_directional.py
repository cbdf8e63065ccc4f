"""directional_loss is one minus a cosine, and what has no direction neither scores nor pulls."""

import pytest
import torch

from geokernels.losses import directional_loss, reach_loss, unit_rows
from geokernels.testing import cloud, directions


def embeddings(B=5, T=3, D=7, dtype=torch.float64):
    pictures = [directions(B, D, seed=i).to(dtype) for i in (0, 1)]
    texts = [directions(T, D, seed=i).to(dtype) for i in (2, 3)]
    return *pictures, *texts


def test_equals_its_formula():
    z, z0, before, after = embeddings()
    expected = 1 - torch.cosine_similarity(z - z0, (after - before).mean(0, keepdim=True)).mean()
    assert torch.allclose(directional_loss(z, z0, before, after), expected, atol=1e-12)


@pytest.mark.parametrize(("sign", "value"), [(1, 0.0), (-1, 2.0)])
def test_is_zero_along_the_text_and_two_against_it(sign, value):
    _, z0, before, after = embeddings()
    z = z0 + sign * 0.3 * (after - before).mean(0)
    assert directional_loss(z, z0, before, after).item() == pytest.approx(value, abs=1e-12)


def test_does_not_see_how_far_the_picture_went():
    z, z0, before, after = embeddings()
    near = directional_loss(z0 + 0.1 * (z - z0), z0, before, after)
    assert torch.allclose(near, directional_loss(z, z0, before, after), atol=1e-12)


def test_gradients_by_finite_differences():
    leaves = [x.requires_grad_() for x in embeddings(3, 2, 4)]
    assert torch.autograd.gradcheck(directional_loss, leaves)
    assert torch.autograd.gradgradcheck(directional_loss, leaves)


def test_a_row_that_has_not_moved_scores_zero_and_gets_no_gradient():
    z, z0, before, after = embeddings()
    z[1] = z0[1]
    z.requires_grad_()
    loss = directional_loss(z, z0, before, after)
    others = torch.tensor([0, 2, 3, 4])
    moved = directional_loss(z[others], z0[others], before, after)
    assert torch.allclose(1 - loss, (1 - moved) * 4 / 5, atol=1e-12)
    (grad,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(grad).all()
    assert not grad[1].any()
    assert grad[others].any(-1).all()


def test_batches_are_independent():
    batch = [torch.stack([x, x.flip(0)]) for x in embeddings()]
    together = directional_loss(*batch)
    assert together.shape == (2,)
    assert torch.allclose(together[1], directional_loss(*(x[1] for x in batch)), atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-9])
def test_unit_rows_of_nothing_are_zero(scale):
    x = (scale * cloud(2, 3, seed=0)).requires_grad_()
    rows = unit_rows(x)
    assert not rows.any()
    (grad,) = torch.autograd.grad(rows.sum(), x)
    assert not grad.any()


def test_refusals_are_sentences():
    z, z0, before, after = embeddings()
    with pytest.raises(ValueError, match=r"source must have shape \(\.\.\., B, D\) = \(5, 7\), got \(4, 7\)"):
        directional_loss(z, z0[:4], before, after)
    with pytest.raises(ValueError, match="text_source must have the width of current, 7, got 6"):
        directional_loss(z, z0, before[:, :6], after[:, :6])
    with pytest.raises(TypeError, match="text_target must have the dtype of current"):
        directional_loss(z, z0, before, after.float())


def test_reach_asks_for_the_mirror_image_and_no_further():
    _, z0, before, after = embeddings()
    towards = unit_rows((after - before).mean(0))
    along = z0 @ towards
    z0 = z0 - (along + along.abs())[:, None] * towards  # every view on the side of the source's prompt
    mirror = z0 - 2 * (z0 @ towards)[:, None] * towards
    assert reach_loss(mirror, z0, before, after).item() == pytest.approx(0, abs=1e-12)
    assert reach_loss(mirror + towards, z0, before, after) == 0
    halfway = reach_loss((z0 + mirror) / 2, z0, before, after)
    assert torch.allclose(halfway, reach_loss(z0, z0, before, after) / 2, atol=1e-12)
    assert torch.allclose(halfway, along.abs().mean(), atol=1e-12)
    assert reach_loss((z0 + mirror) / 2, z0, before, after, share=0).abs() < 1e-12


def test_reach_gradient_by_finite_differences_and_at_the_source():
    leaves = [x.requires_grad_() for x in embeddings(3, 2, 4)]
    assert torch.autograd.gradcheck(reach_loss, leaves)
    _, z0, before, after = leaves
    (grad,) = torch.autograd.grad(reach_loss(z0 - 5 * (after - before).mean(0), z0, before, after), z0)
    assert grad.any()
