"""Metrics of edits are what their definitions say."""

import math

import pytest
import torch

from geokernels.metrics import (
    Conventions,
    blank,
    clip_score,
    directional_similarity,
    outside_psnr,
    outside_score,
)
from geokernels.metrics.editing import _torchmetrics


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def test_clip_score():
    found = clip_score(unit([1.0, 0.0], [1.0, 0.0], [0.6, 0.8]), unit([1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]))
    torch.testing.assert_close(found, torch.tensor([100.0, 0.0, 80.0]))


def test_directional_similarity():
    before, after = unit([1.0, 0.0]), unit([0.0, 1.0])
    along = directional_similarity(before, after, before, after)
    torch.testing.assert_close(along, torch.ones(1))
    torch.testing.assert_close(directional_similarity(before, after, after, before), -torch.ones(1))
    # a picture that has not changed has no direction
    assert directional_similarity(before, before, before, after).item() == 0


class TestOutside:
    @pytest.fixture
    def given(self):
        pytest.importorskip("torchmetrics")
        chance = torch.Generator().manual_seed(0)
        source = torch.rand(3, 32, 32, generator=chance)
        inside = torch.zeros(1, 32, 32, dtype=torch.bool)
        inside[:, 8:24, 8:24] = True
        return source, (source + 0.1 * torch.randn(3, 32, 32, generator=chance)).clamp(0, 1), inside

    def test_by_hand(self, given):
        source, picture, inside = given
        found = outside_score(picture, source, inside)
        mse = ((picture - source).square() * ~inside).mean()
        assert found.mse == pytest.approx(float(mse), rel=1e-5)
        assert found.psnr == pytest.approx(float(-10 * mse.log10()), rel=1e-5)
        # the published protocol counts what was made black; a quarter of these pixels
        own = outside_psnr(picture, source, inside)
        assert found.psnr - own == pytest.approx(10 * math.log10(4 / 3), abs=1e-4)
        assert 0 < found.ssim < 1

    def test_what_is_inside_does_not_count(self, given):
        source, picture, inside = given
        other = torch.where(inside, torch.rand(3, 32, 32), picture)
        assert outside_score(other, source, inside) == outside_score(picture, source, inside)
        assert blank(picture, inside)[:, 16, 16].tolist() == [0, 0, 0]

    def test_alike_and_nothing_outside(self, given):
        source, _, inside = given
        found = outside_score(torch.where(inside, 0.5, source), source, inside)
        assert found == (math.inf, pytest.approx(1.0), 0.0)
        assert outside_score(source, source, torch.ones_like(inside)) is None


def test_without_torchmetrics_the_remedy_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(ImportError, match=r'pip install "geokernels\[diffusion\]"'):
        _torchmetrics()


class TestConventions:
    """Against SSIM, PSNR and MSE written down for what is filled in and counted."""

    @pytest.fixture
    def given(self):
        pytest.importorskip("torchmetrics")
        chance = torch.Generator().manual_seed(1)
        source, picture = torch.rand(2, 3, 24, 32, generator=chance)
        inside = torch.zeros(1, 24, 32, dtype=torch.bool)
        inside[:, 4:20, 6:22] = True
        return picture, source, inside

    @staticmethod
    def ssim_map(a, b, window):
        """Of every pixel, over windows that are mirrored at the rim."""
        k = window.shape[-1]

        def mean(x):
            rows = torch.nn.functional.pad(x[None], (k // 2,) * 4, mode="reflect")[0, :, None]
            return torch.nn.functional.conv2d(rows, window[None, None])[:, 0]

        a, b = a.double(), b.double()
        ma, mb = mean(a), mean(b)
        va, vb, ab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        c, d = 0.01**2, 0.03**2
        return (2 * ma * mb + c) * (2 * ab + d) / ((ma**2 + mb**2 + c) * (va + vb + d))

    @pytest.mark.parametrize("ssim", ["gaussian", "uniform"])
    @pytest.mark.parametrize("counted", ["all", "outside"])
    @pytest.mark.parametrize("fill", ["black", "grey", "source"])
    def test_by_hand(self, given, fill, counted, ssim):
        picture, source, inside = given
        found = outside_score(picture, source, inside, Conventions(fill=fill, counted=counted, ssim=ssim))
        shown = {"black": torch.zeros(()), "grey": torch.full((), 0.5), "source": source}[fill]
        a, b = (torch.where(inside, shown, x) for x in (picture, source))
        counts = (~inside if counted == "outside" else torch.ones_like(inside)).expand_as(a)
        mse = float((a - b).double().square()[counts].mean())
        assert found.mse == pytest.approx(mse, rel=1e-5)
        assert found.psnr == pytest.approx(-10 * math.log10(mse), rel=1e-5)
        bell = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
        window = torch.outer(bell, bell) if ssim == "gaussian" else torch.ones(7, 7, dtype=torch.float64)
        likeness = self.ssim_map(a, b, window / window.sum())
        assert found.ssim == pytest.approx(float(likeness[counts].mean()), rel=1e-4)
