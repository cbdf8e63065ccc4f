"""The modules agree with the functions, in the call shapes of other projects' loops."""

import pytest
import torch
import torch.nn.functional as F

from geokernels.losses import (
    DirectionalLoss,
    GeodesicConsistencyLoss,
    GeodesicRegularisationLoss,
    PatchLoss,
    directional_loss,
    geodesic_consistency_loss,
    geodesic_regularisation_loss,
    spherical_loss,
)


class Encoder:
    """A random linear CLIP of 6 numbers that remembers the pictures it saw."""

    def __init__(self):
        self.matrix, self.seen = torch.randn(3 * 16, 6), []

    def encode_image(self, pictures):
        self.seen.append(pictures)
        return F.normalize(F.adaptive_avg_pool2d(pictures, 4).flatten(1) @ self.matrix, dim=-1)

    def encode_text(self, prompts, templates):
        rows = [
            torch.randn(6, generator=torch.Generator().manual_seed(len(t.format(p))))
            for p in prompts
            for t in templates
        ]
        return F.normalize(torch.stack(rows), dim=-1).view(len(prompts), len(templates), 6)


TEMPLATES = ("{}", "a photo of {}")
TEXTS = ("a cat", "a tiger")


@pytest.fixture
def encoder():
    return Encoder()


@pytest.fixture
def pictures():
    return torch.rand(2, 3, 3, 20, 20)


@pytest.mark.parametrize("name", ["directional", "geodesic"])
def test_called_as_nada_calls_its_loss(encoder, pictures, name):
    source, current = pictures[0], pictures[1].requires_grad_()
    kind = DirectionalLoss if name == "directional" else GeodesicConsistencyLoss
    loss = kind(encoder, templates=TEMPLATES)(source, TEXTS[0], current, TEXTS[1])
    rows = encoder.encode_image(current), encoder.encode_image(source), *encoder.encode_text(TEXTS, TEMPLATES)
    expected = (
        directional_loss(*rows)
        if name == "directional"
        else geodesic_consistency_loss(*rows, rank=1, text_rank=1)
    )
    assert torch.equal(loss, expected)
    loss.backward()
    assert current.grad.any()


def test_ranges_of_values_are_brought_to_the_encoder_s(encoder, pictures):
    loss = DirectionalLoss(encoder, value_range=(-1.0, 1.0))
    loss(2 * pictures[0] - 1, TEXTS[0], 2 * pictures[1] - 1, TEXTS[1])
    assert torch.allclose(encoder.seen[0], pictures[0], atol=1e-6)
    with pytest.raises(ValueError, match="value_range must be two numbers, the smaller first"):
        DirectionalLoss(encoder, value_range=(1.0, 0.0))


def test_features_are_taken_for_what_they_are(encoder, pictures):
    loss = GeodesicConsistencyLoss(encoder)
    source = encoder.encode_image(pictures[0])
    encoder.seen.clear()
    again = loss(source, TEXTS[0], pictures[1], TEXTS[1])
    assert len(encoder.seen) == 1
    assert torch.equal(again, loss(pictures[0], TEXTS[0], pictures[1], TEXTS[1]))


def test_no_gradient_reaches_the_source(encoder, pictures):
    source, current = pictures[0].requires_grad_(), pictures[1].requires_grad_()
    (first,) = torch.autograd.grad(DirectionalLoss(encoder)(source, TEXTS[0], current, TEXTS[1]), current)
    assert first.any()
    loss = GeodesicRegularisationLoss(encoder)(source, current)
    assert torch.autograd.grad(loss, source, allow_unused=True) == (None,)
    rows = encoder.encode_image(current), encoder.encode_image(source)
    assert torch.equal(
        GeodesicRegularisationLoss(encoder)(source, current), geodesic_regularisation_loss(*rows)
    )


class TestPatches:
    def patches(self, encoder, **kw):
        return PatchLoss(DirectionalLoss(encoder), **{"patches": 5, "size": 8, **kw})

    def test_each_patch_is_judged_alone(self, encoder, pictures):
        source, current = pictures[0, :1], pictures[1, :1]
        loss = self.patches(encoder, threshold=0.0)
        found = loss(source, TEXTS[0], current, TEXTS[1], generator=torch.Generator().manual_seed(1))
        seen = encoder.seen[-1] if len(encoder.seen[-1]) == 5 else encoder.seen[-2]
        before, after = encoder.encode_text(TEXTS, ("{}",))
        origin = encoder.encode_image(source)
        alone = [directional_loss(encoder.encode_image(p[None]), origin, before, after) for p in seen]
        assert torch.allclose(found, torch.stack(alone).mean(), atol=1e-6)

    def test_patches_below_the_threshold_are_left_alone(self, encoder, pictures):
        current = pictures[1, :1].requires_grad_()
        loss = self.patches(encoder, threshold=2.5)(pictures[0, :1], TEXTS[0], current, TEXTS[1])
        loss.backward()
        assert loss == 0
        assert not current.grad.any()

    def test_they_lie_inside_and_are_augmented(self, encoder, pictures):
        shown = []

        def augment(seen):
            shown.append(seen)
            return seen.flip(-1)

        loss = self.patches(encoder, patches=40, augment=augment)
        loss(pictures[0, :1], TEXTS[0], pictures[1, :1], TEXTS[1], generator=torch.Generator().manual_seed(0))
        assert shown[0].shape == (40, 3, 8, 8)
        assert any(torch.equal(encoder_saw, shown[0].flip(-1)) for encoder_saw in encoder.seen)

    def test_a_picture_smaller_than_a_patch_is_refused(self, encoder, pictures):
        with pytest.raises(ValueError, match=r"at least 24 pixels a side, got \(1, 3, 20, 20\)"):
            self.patches(encoder, size=24)(pictures[0, :1], TEXTS[0], pictures[1, :1], TEXTS[1])


def test_the_spherical_loss_is_half_the_squared_angle():
    angle = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    rows = torch.stack([angle.cos(), angle.sin()], 1)[:, None]
    goal = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(3, 1, 2)
    assert torch.allclose(spherical_loss(rows, goal), angle.square() / 2)


def test_the_spherical_loss_has_finite_gradients_at_both_ends():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    spherical_loss(rows, torch.tensor([[1.0, 0.0]])).backward()
    assert torch.isfinite(rows.grad).all()
