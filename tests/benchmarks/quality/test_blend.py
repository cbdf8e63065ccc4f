"""The benchmark of maps measures against the truth, on pixels that have a partner."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.quality import blend as bench
from benchmarks.quality.known_warps import KINDS, SIDE, warped_pair

pytest.importorskip("skimage"), pytest.importorskip("cv2")


def shown_at(picture, places):
    H, W = picture.shape[1:]
    grid = (2 * places + 1) / torch.tensor([W, H]) - 1
    return F.grid_sample(picture[None], grid[None], padding_mode="border", align_corners=False)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_partnered_is_seen_where_the_truth_says(kind):
    pair = warped_pair("chelsea", kind, 3)
    off = (pair.first - shown_at(pair.second, pair.truth)).abs().mean(0)
    assert 0.3 < pair.partnered.float().mean() <= 1
    # light changes colours; else what is left is how photographs are read between pixels
    assert off[pair.partnered].mean() < (0.3 if kind == "light" else 0.02)
    moved = (pair.truth - bench.still(SIDE, SIDE)).square().sum(2).sqrt().mean()
    assert (moved < 5) if kind == "small" else (moved > 5)
    assert torch.equal(pair.truth, warped_pair("chelsea", kind, 3).truth)


def test_a_clip_is_seen_where_its_flow_says():
    pair = bench.rendered_pair(5000)
    off = (pair.first - shown_at(pair.second, pair.truth)).abs().mean(0)
    assert off[pair.partnered].median() < 0.01


def test_the_truth_has_no_error_and_every_method_is_scored(monkeypatch):
    pair = warped_pair("chelsea", "shift", 1)
    monkeypatch.setattr(bench, "MAPS", {"transport": lambda p: p.truth, "off": lambda p: p.truth + 3})
    row = bench.score(pair, ("transport", "off"))
    assert row["transport"]["epe"] == 0
    assert row["off"]["epe"] == pytest.approx(3 * 2**0.5, rel=1e-4)
    assert (row["transport"]["within"], row["off"]["within"]) == (1, 0)
    assert row["transport"]["unfolded"] == 1


def test_still_pictures_stay_where_they_are():
    pair = warped_pair("chelsea", "shift", 1)
    pair = pair._replace(second=pair.first, truth=bench.still(SIDE, SIDE))
    for name in ("nearest neighbours", "DIS", "Farneback"):
        assert (bench.MAPS[name](pair) - pair.truth).abs().mean() < 0.1


def test_pairs_take_every_kind_and_photograph():
    found = bench.pairs(60, 2)
    assert len(found) == len(set(found)) == 62
    assert len({(kind, name) for kind, name, _ in found}) == 31
    assert [kind for kind, _, _ in found[:6]] == ["small", "homography", "clip", "spline", "shift", "clip"]
    each = {name: {"epe": 1.0, "within": 0.5} for name in bench.METHODS}
    rows = [{"kind": kind, "of": each} for kind, _, _ in found]
    assert "| shift | 10 | 1.00 px, 50% |" in bench.as_markdown({"rows": rows})
