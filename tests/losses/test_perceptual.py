"""feature_distance, pyramid_distance and total_variation: values known by hand, gradients, refusals."""

import pytest
import torch

from geokernels.losses import feature_distance, pyramid_distance, total_variation
from geokernels.testing import cloud


def test_distance_of_opposite_features_is_four_and_of_scaled_ones_zero():
    f = cloud(2, 3, 4, 5, seed=0)
    assert torch.allclose(feature_distance([f], [-f]), torch.full((2,), 4.0, dtype=f.dtype), atol=1e-7)
    assert torch.allclose(feature_distance([f], [3 * f]), torch.zeros(2, dtype=f.dtype), atol=1e-7)


def test_layers_count_alike_whatever_their_size():
    small, large = cloud(1, 3, 2, 2, seed=0), cloud(1, 5, 8, 8, seed=1)
    both = feature_distance([small, large], [-small, large])
    assert torch.allclose(both, torch.full((1,), 2.0, dtype=both.dtype), atol=1e-7)


def test_distance_gradient_by_finite_differences_and_at_zero():
    f, g = cloud(1, 3, 2, 2, seed=0).requires_grad_(), cloud(1, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda f: feature_distance([f], [g]), f)
    nothing = torch.zeros_like(f, requires_grad=True)
    (grad,) = torch.autograd.grad(feature_distance([nothing], [torch.zeros_like(g)]).sum(), nothing)
    assert not grad.any()


def test_distance_refuses_what_does_not_match():
    f = cloud(1, 3, 2, 2, seed=0)
    with pytest.raises(ValueError, match="others must have one map for each of features"):
        feature_distance([f], [])
    with pytest.raises(ValueError, match=r"layer 0 must have one shape \(B, C, H, W\) in both"):
        feature_distance([f], [f[..., :1]])


def test_total_variation_of_a_ramp():
    ramp = torch.arange(4.0).expand(1, 3, 5, 4)
    assert total_variation(ramp) == 1
    assert total_variation(ramp.mT) == 1
    assert total_variation(torch.ones(1, 3, 1, 1)) == 0


class TestPyramidDistance:
    def test_it_is_a_distance_of_each_pair(self):
        a, b = torch.rand(2, 2, 3, 17, 12)
        found = pyramid_distance(a, b)
        assert torch.allclose(found, pyramid_distance(b, a))
        assert torch.allclose(found[:1], pyramid_distance(a[:1], b[:1]))
        assert (found > 0).all()
        assert (pyramid_distance(a, a) == 0).all()

    def test_a_nearer_edge_is_nearer(self):
        def edge(at):
            picture = torch.zeros(1, 3, 32, 32)
            picture[..., at:] = 1
            return picture

        near, far = pyramid_distance(edge(16), edge(18)), pyramid_distance(edge(16), edge(26))
        assert near < far

    def test_pictures_of_one_pixel_and_other_shapes(self):
        assert pyramid_distance(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)) == 1
        with pytest.raises(ValueError, match="others must have shape"):
            pyramid_distance(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
