"""What the cost of an adaptation is counted by, and that both patterns of work do the same thing."""

from dataclasses import replace

import pytest
import torch

from benchmarks.cost import adapt as cost
from benchmarks.cost.counting import CountingEncoder
from geokernels.models import Generator, GeneratorConfig, load_clip


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(channels=(8, 6, 4), style_dim=7, mapping_layers=2))
    return generator.eval(), CountingEncoder.of(load_clip())


def test_ours_encodes_what_it_says_and_needs_less(models):
    generator, encoder = models
    small = replace(cost.POOLED, pool=4, steps=4)
    runs = {
        "original": cost.original(generator, [encoder], 4, 0),
        "ours": cost.ours(generator, [encoder], small, 0),
        "rarely": cost.ours(generator, [encoder], replace(small, choose_every=4), 0),
    }
    found = {name: cost.count(run, 2) for name, run in runs.items()}
    # the original: 8 to choose, 2 frozen, 2 trained, each step
    assert {name: row["encodes"] for name, row in found.items()} == {"original": 12, "ours": 10, "rarely": 6}
    assert found["ours"]["flops"] < found["original"]["flops"]
    assert found["ours"]["peak_mib"] < found["original"]["peak_mib"]
    assert found["rarely"]["flops"] < found["ours"]["flops"]


def test_both_patterns_choose_the_layers_alike(models):
    generator, encoder = models
    theirs = cost.original(generator, [encoder], 4, 0)
    ours = cost.ours(generator, [encoder], replace(cost.POOLED, pool=8, templates=cost.POOLED.templates), 0)
    codes = ours.pool.w[ours.pool.visit(0, 8, key=ours._seed + 2**32)]
    theirs.codes = lambda count: codes
    assert sorted(theirs.choose()) == ours._choose()


def test_the_original_s_first_step_moves(models):
    generator, encoder = models
    run = cost.original(generator, [encoder], 4, 0)
    losses = [run.step().item() for _ in range(4)]
    # nothing has moved at first: the loss is 1 there, and has a gradient nevertheless
    assert losses[0] == pytest.approx(1.0, abs=1e-3)
    assert min(losses[1:]) < 0.99
