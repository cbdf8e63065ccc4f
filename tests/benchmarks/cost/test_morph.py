"""The cost of a layered edit is counted as stated; the yardstick does the same work in another pattern."""

from dataclasses import replace

import pytest
import torch

from benchmarks.cost.counting import CountingEncoder
from benchmarks.cost.morph import PATTERN, RELEASED, begin, count, final_loss, variants
from geokernels.models.clip import load_clip

TEXTS = "a red object", "a blue object", "a blue object on a green background"


@pytest.fixture(scope="module")
def encoder():
    return CountingEncoder.of(load_clip("world"))


@pytest.fixture
def picture():
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_every_variant_is_counted_and_ours_is_lighter(encoder, picture):
    rows = {
        name: count(begin(name, picture, encoder, TEXTS, config, 0), encoder)
        for name, config in variants(crops=1, views=8, screen_views=8).items()
    }
    assert [row["encodes"] for row in rows.values()] == [32, 16, 12, 10]
    first, *ours = rows.values()
    for row in ours:
        assert row["flops"] < 0.7 * first["flops"]
        assert row["peak_mib"] < 0.7 * first["peak_mib"]


def test_both_patterns_lower_one_loss_that_does_not_know_them_apart(encoder, picture):
    config = replace(variants()[PATTERN], views=2, screen_views=2, steps=12, crops=2)
    names = list(variants())[:2]
    runs = {name: begin(name, picture, encoder, TEXTS, config, 0) for name in names}
    for run in runs.values():
        before = final_loss(run, encoder, TEXTS)
        for _ in range(config.steps):
            run.step()
        assert final_loss(run, encoder, TEXTS) < before
    ours, pattern = runs[names[1]], runs[names[0]]
    ours.network.load_state_dict(pattern.network.state_dict())
    assert final_loss(ours, encoder, TEXTS) == final_loss(pattern, encoder, TEXTS)


def test_the_published_recipe_is_counted_beside_the_release(encoder, picture):
    small = {"widths": (8, 8), "short_side": 32, "views": 4, "screen_views": 4}
    rows = [
        count(begin(name, picture, encoder, TEXTS, replace(RELEASED, **small), 0), encoder)
        for name in list(variants())[:2]
    ]
    # the tokens of source and composite, and the views of source, composite (twice there) and screen
    assert [row["encodes"] for row in rows] == [2 + 4 * 4, 2 + 3 * 4]
    assert rows[1]["flops"] < 0.9 * rows[0]["flops"]
    assert rows[1]["peak_mib"] < 0.9 * rows[0]["peak_mib"]
