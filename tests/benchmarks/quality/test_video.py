"""The cost of an edit of a clip is counted as stated, and ours does not grow with the clip."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.cost import video as video_cost
from benchmarks.cost.counting import CountingEncoder
from benchmarks.quality import video as video_edit
from geokernels.models import AtlasShape
from geokernels.models.clip import load_clip

SIZE = (24, 32)
OURS = list(video_cost.VIEWS)[-1]


@pytest.fixture(scope="module")
def encoder():
    return CountingEncoder.of(load_clip("world"))


@pytest.fixture(autouse=True)
def few_views(monkeypatch):
    few = video_cost.VideoEditConfig(
        recipe="world",
        loss="directional",
        guess=2.0,
        views=4,
        screen_views=2,
        crops=2,
        working_size=32,
        steps=20,
    )
    monkeypatch.setattr(video_cost, "config", lambda name, size, **how: replace(few, **how))


def test_a_step_of_ours_encodes_less_and_counts_less(encoder):
    clip = video_cost.noise_clip(3, SIZE, "cpu")
    rows = {
        name: video_cost.count(video_cost.begin(name, clip, encoder), name, SIZE)
        for name in (video_cost.PATTERN, OURS)
    }
    assert [row["encodes"] for row in rows.values()] == [16, 6]
    assert rows[OURS]["flops"] < 0.6 * rows[video_cost.PATTERN]["flops"]


def test_memory_grows_with_the_clip_in_the_pattern_alone(encoder):
    peaks = {
        name: [video_cost.peak_mib(name, video_cost.noise_clip(T, SIZE, "cpu"), encoder) for T in (2, 40)]
        for name in (video_cost.PATTERN, OURS)
    }
    one_frame = 9 * 4 * SIZE[0] * SIZE[1] / video_cost.MIB
    short, long = peaks[video_cost.PATTERN]
    assert long - short > 30 * one_frame
    short, long = peaks[OURS]
    # times and motions of frames are a few numbers each
    assert long - short < one_frame


@pytest.fixture
def rendered(encoder, monkeypatch):
    monkeypatch.setattr(video_edit, "FRAMES", 3)
    monkeypatch.setattr(video_edit, "SIZE", 32)
    shape = AtlasShape(width=16, layers=2, map_layers=1, octaves=3)
    how = {"steps": 60, "samples": 128, "learning_rate": 0.02, "bootstrap": 1.0, "bootstrapped": 2.0}
    return video_cost.rendered_clip(1, encoder, video_cost.AtlasFitConfig(**how, shape=shape))


def test_edits_of_a_clip_are_judged_by_one_loss_that_does_not_know_them_apart(rendered, encoder, monkeypatch):
    monkeypatch.setattr(video_cost, "HELD_OUT", 2)
    first, other = (video_cost.begin(name, rendered, encoder) for name in (OURS, video_cost.PATTERN))
    before = video_cost.final_loss(first, rendered, encoder)
    other.network.load_state_dict(first.network.state_dict())
    assert video_cost.final_loss(other, rendered, encoder) == before
    for name, (after,) in video_cost.measure_losses(rendered, encoder, 6, 1).items():
        assert after < before, name


def test_losses_are_compared_clip_by_clip_and_seed_by_seed():
    found = {video_cost.PATTERN: [1.0, 3.0], OURS: [2.0, 5.0]}
    lower = {name: [loss - 1 for loss in losses] for name, losses in found.items()}
    rows = video_cost.compare_losses([found, lower])
    pattern, ours = rows[video_cost.PATTERN], rows[OURS]
    assert (pattern["loss"], pattern["beyond"], pattern["beyond_spread"]) == (1.5, 0, 0)
    assert (ours["loss"], ours["beyond"], ours["beyond_spread"]) == (3.0, 1.5, 0.5)
    assert ours["final"] == [[2.0, 5.0], [1.0, 4.0]]
    # between the seeds of one clip, whatever lies between clips
    assert ours["noise"] == pytest.approx(3 / 2**0.5)
    assert ours["spread"] == pytest.approx(2.5**0.5)


def test_the_table_says_what_was_found(tmp_path):
    lengths = [str(length) for length in video_cost.LENGTHS]  # as JSON has them
    rows = {
        name: {"encodes": 64 / k, "flops": 8e9 / k, "peak_mib": dict.fromkeys(lengths, 90 / k)}
        for name, k in ((video_cost.PATTERN, 1), (OURS, 2))
    }
    table = video_cost.as_markdown({"what": "a test", "patterns": rows})
    assert f"| {OURS} | 32 (2.00 x less) | 4 (2.00 x less) | 45 (2.00 x less) |" in table
    for row in rows.values():
        row |= {"loss": 1.3, "spread": 0.2, "beyond": -0.1, "beyond_spread": 0.05, "noise": 0.04}
    table = video_cost.as_markdown({"what": "a test", "patterns": rows})
    assert "| 1.300 ± 0.200 | -0.100 ± 0.050 | 0.040 |" in table
    edit = {
        "to": "x",
        "asked": 0.75,
        "kept": 1.0,
        "psnr": 40.0,
        "worst": 39.0,
        "warping": 2.0,
        "seconds": 9.0,
    }
    clip = {"seed": 7, "clip": "a star", "atlas": {"psnr": 36.0, "worst": 35.0}, "warping": 1.0}
    clip |= {"seconds": {"atlas": 60.0}, "edits": {"colour": edit, "background": {**edit, "asked": 1.0}}}
    table = video_edit.as_markdown({"what": "a test", "clips": [clip]})
    assert "| 7: a star | 36.0 (35.0) | colour | 75% | 100% | 40.0 (39.0) | 2.00 (1.00) | 9 |" in table
    assert (
        "Colour: the asked value in 18 of 24 frames; in at least 90% of the frames of 0 of 1 clips" in table
    )
    assert "frame by frame" not in table
    clip["frame by frame"] = {**edit, "warping": 3.0}
    table = video_edit.as_markdown({"what": "a test", "clips": [clip, {**clip, "warping": 2.0}]})
    assert table.count("| colour, frame by frame |") == 2
    assert "over 2 clips: 2.00 by the atlas, 3.00 frame by frame, 1.50 in the clips themselves." in table
    json.dumps(clip, allow_nan=False)


def test_psnr_over_frames_is_that_of_their_mean_square():
    noise = 0.1 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise[1] *= 3
    each = [video_edit.psnr(part, torch.zeros_like(part)) for part in noise]
    assert video_edit.psnr_of(each) == pytest.approx(
        video_edit.psnr(noise, torch.zeros_like(noise)), abs=1e-4
    )
    assert video_edit.psnr_of([float("inf")]) == 100
