"""The benchmark of drawn blends makes every way of the same pair, and says how far they are apart."""

from itertools import pairwise

import pytest
import torch

from benchmarks.quality import blend_model as bench
from benchmarks.quality.blend_path import MEASURES, rendered
from geokernels.models import load_diffusion
from geokernels.pipelines import BlendConfig, MatchingConfig

pytest.importorskip("cv2"), pytest.importorskip("diffusers")


def test_every_way_ends_in_the_given_pictures_and_one_of_them_is_drawn(pipeline_folder):
    small = MatchingConfig(points=16, first=16)
    config = BlendConfig(frames=3, palette=32, steps=2, matching=small, recipe="world")
    _, first, second = next(rendered(1, 7))
    made = bench.films(first, second, load_diffusion(pipeline_folder), config)
    assert tuple(made) == bench.WAYS
    for frames in made.values():
        assert torch.equal(frames[0], (first * 255).round() / 255)
        assert torch.equal(frames[-1], (second * 255).round() / 255)
    middles = [frames[1] for frames in made.values()]
    assert min((a - b).abs().max() for a, b in pairwise(middles)) > 0.01


def test_the_table_has_every_kind_and_way():
    values = dict(zip(bench.WAYS, (0.9, 0.6, 0.5)))
    rows = [("dissimilar", {way: dict.fromkeys(MEASURES, value) for way, value in values.items()})] * 3
    kinds = bench.summary_of(rows)
    assert kinds["dissimilar"]["measures"]["object"]["gain"]["mean"] == pytest.approx(0.3)
    lines = bench.as_markdown(kinds).splitlines()
    assert len(lines) == 2 + len(bench.WAYS)
    assert lines[2].startswith("| dissimilar, 3 | model | 0.90 ± 0.00 |")
