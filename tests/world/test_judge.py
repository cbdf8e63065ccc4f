"""The judge reads clean renders without fault, and says none of these where there is nothing to read."""

import pytest
import torch
import torch.nn.functional as F

from geokernels.world import ATTRIBUTES, edit, judge, object_mask, render, sample_scenes

N = 300
NAMES = tuple(ATTRIBUTES)


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(N, generator=torch.Generator().manual_seed(123))


def truth(scenes):
    return torch.stack([getattr(scenes, name) for name in NAMES], 1)


@pytest.mark.parametrize("size", [64, 48, 128])
def test_clean_renders(scenes, size):
    right = (judge(render(scenes, size)).values == truth(scenes)).float().mean(0)
    assert (right >= 0.99).all(), dict(zip(NAMES, right.tolist()))


@pytest.mark.parametrize("disturb", ["noise", "blur"])
def test_mild_disturbance(scenes, disturb):
    pictures = render(scenes)
    if disturb == "noise":
        noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
        pictures = (pictures + 0.05 * noise).clamp(0, 1)
    else:
        pictures = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    right = (judge(pictures).values == truth(scenes)).float().mean(0)
    assert (right >= 0.97).all(), dict(zip(NAMES, right.tolist()))


def test_the_mask_it_finds(scenes):
    found, exact = judge(render(scenes)).mask, object_mask(scenes)
    overlap = torch.minimum(found, exact).sum((1, 2, 3)) / torch.maximum(found, exact).sum((1, 2, 3))
    # grain and edges alone: no object is missed, none is a pixel too large
    assert overlap.min() > 0.8
    assert overlap.mean() > 0.93


def test_it_sees_an_edit_and_nothing_else(scenes):
    before = scenes[:100]
    seen_before = judge(render(before)).values
    for i, attribute in enumerate(NAMES):
        after = edit(before, attribute, generator=torch.Generator().manual_seed(i))
        changed = (judge(render(after)).values != seen_before).float().mean(0)
        expected = torch.eye(len(NAMES))[i]
        assert (changed - expected).abs().max() <= 0.01, attribute


def test_names_are_words(scenes):
    assert judge(render(scenes[:5])).names() == scenes[:5].names()


def test_it_is_deterministic_and_independent_of_the_batch(scenes):
    pictures = render(scenes[:70])
    assert torch.equal(judge(pictures).values, judge(pictures).values)
    assert torch.equal(judge(pictures).values[66:67], judge(pictures[66:67]).values)


class TestConfidence:
    def test_clean_renders_are_read_with_confidence(self, scenes):
        verdict = judge(render(scenes))
        assert verdict.confidence.shape == (N, len(NAMES))
        assert verdict.confidence.max() <= 1
        assert verdict.confidence.mean(0).min() > 0.95
        assert (verdict.sure(0.9).values == verdict.values).float().mean() > 0.97

    def test_it_falls_where_the_picture_is_blurred(self, scenes):
        """Answers that are sure are right far more often than all of them are."""
        pictures = render(scenes)
        for _ in range(4):  # four 3 x 3 means: a deviation of 1.6 pixels
            pictures = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
        verdict, texture = judge(pictures), NAMES.index("texture")
        wanted = truth(scenes)[:, texture]

        def right(some):
            answers = some.values[:, texture]
            given = answers >= 0
            return (answers == wanted)[given].float().mean(), given.float().mean()

        (every, _), (sure, given) = right(verdict), right(verdict.sure(0.9))
        assert every < 0.8
        assert sure > 0.95
        assert given > 0.3

    def test_none_has_none(self):
        verdict = judge(torch.full((1, 3, 64, 64), 0.96))
        assert (verdict.confidence > 0).tolist() == [[False, False, True, False, False]]

    def test_sure_keeps_or_says_none(self, scenes):
        verdict = judge(render(scenes[:20]))
        assert torch.equal(verdict.sure(0.0).values, verdict.values)
        assert (verdict.sure(1.1).values == -1).all()
        half = verdict.sure(0.99)
        assert torch.equal(half.values >= 0, verdict.confidence >= 0.99)
        assert torch.equal(half.mask, verdict.mask)


class TestNoneOfThese:
    def test_noise(self):
        pictures = torch.rand(50, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert (judge(pictures).values == -1).all()

    def test_blank(self):
        seen = judge(torch.full((1, 3, 64, 64), 0.96)).names()[0]
        assert seen == dict.fromkeys(NAMES) | {"background": "white"}

    def test_grey_is_no_colour_of_the_world(self):
        assert judge(torch.full((1, 3, 64, 64), 0.45)).names()[0] == dict.fromkeys(NAMES)

    def test_clouds_like_a_photograph(self):
        coarse = torch.rand(100, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        pictures = F.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)
        assert (judge(pictures).values >= 0).float().mean() < 0.02

    @pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
    def test_photographs(self, name):
        data = pytest.importorskip("skimage.data")
        photo = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None] / 255
        side = min(photo.shape[2:])
        assert judge(photo[:, :, :side, :side]).names()[0]["shape"] is None

    def test_an_outline_the_world_does_not_have(self):
        # a bar, five times as long as wide
        picture = torch.full((1, 3, 64, 64), 0.96)
        picture[:, :, 26:36, 8:56] = torch.tensor([0.14, 0.26, 0.86])[:, None, None]
        seen = judge(picture).names()[0]
        assert seen["shape"] is None
        assert (seen["colour"], seen["background"], seen["texture"]) == ("blue", "white", "plain")

    def test_a_colour_the_world_does_not_have(self, scenes):
        plain = scenes[scenes.texture == 0][:20]
        mask = object_mask(plain)
        grey = render(plain) * (1 - mask) + 0.4 * mask
        seen = judge(grey)
        assert (seen.values[:, NAMES.index("colour")] == -1).all()


def test_refusals():
    with pytest.raises(
        ValueError, match=r"pictures must have shape \(n, 3, side, side\), got \(1, 3, 64, 32\)"
    ):
        judge(torch.zeros(1, 3, 64, 32))
    with pytest.raises(TypeError, match=r"pictures must be floating point in \[0, 1\], got torch.uint8"):
        judge(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert len(judge(torch.zeros(0, 3, 64, 64))) == 0
