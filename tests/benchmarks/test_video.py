"""The cost of an edit of a clip is counted as stated, and ours does not grow with the clip."""

import json

import pytest
import torch

from benchmarks import video_cost, video_edit
from geokernels.models.clip import load_clip

SIZE = (24, 32)
OURS = list(video_cost.VIEWS)[-1]


@pytest.fixture(scope="module")
def encoder():
    return load_clip("world")


@pytest.fixture(autouse=True)
def few_views(monkeypatch):
    few = video_cost.VideoEditConfig(
        loss="directional", guess=2.0, views=4, screen_views=2, crops=2, working_size=32, steps=20
    )
    monkeypatch.setattr(video_cost, "config", lambda name, size: few)


def test_a_step_of_ours_encodes_less_and_counts_less(encoder):
    clip = video_cost.Clip(3, SIZE, "cpu")
    rows = {
        name: video_cost.count(video_cost.begin(name, clip, encoder), name, SIZE)
        for name in (video_cost.PATTERN, OURS)
    }
    assert [row["encodes"] for row in rows.values()] == [16, 6]
    assert rows[OURS]["flops"] < 0.6 * rows[video_cost.PATTERN]["flops"]


def test_memory_grows_with_the_clip_in_the_pattern_alone(encoder):
    peaks = {
        name: [video_cost.peak_mib(name, video_cost.Clip(T, SIZE, "cpu"), encoder) for T in (2, 40)]
        for name in (video_cost.PATTERN, OURS)
    }
    one_frame = 9 * 4 * SIZE[0] * SIZE[1] / video_cost.MIB
    short, long = peaks[video_cost.PATTERN]
    assert long - short > 30 * one_frame
    short, long = peaks[OURS]
    # times and motions of frames are a few numbers each
    assert long - short < one_frame


def test_the_table_says_what_was_found(tmp_path):
    rows = {
        name: {"encodes": 64 / k, "flops": 8e9 / k, "peak_mib": dict.fromkeys(video_cost.LENGTHS, 90 / k)}
        for name, k in ((video_cost.PATTERN, 1), (OURS, 2))
    }
    table = video_cost.as_markdown({"what": "a test", "patterns": rows})
    assert f"| {OURS} | 32 (2.00 x less) | 4 (2.00 x less) | 45 (2.00 x less) |" in table
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
    json.dumps(clip, allow_nan=False)


def test_psnr_over_frames_is_that_of_their_mean_square():
    noise = 0.1 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise[1] *= 3
    each = [video_edit.psnr(part, torch.zeros_like(part)) for part in noise]
    assert video_edit.psnr_of(each) == pytest.approx(
        video_edit.psnr(noise, torch.zeros_like(noise)), abs=1e-4
    )
    assert video_edit.psnr_of([float("inf")]) == 100
