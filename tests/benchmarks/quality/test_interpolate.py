"""The benchmark of prompts: its pairs are what it says, and so are its means."""

import pytest
import torch

from benchmarks.quality.interpolate import (
    MEASURES,
    Settings,
    as_markdown,
    draw_pair,
    kinds_of,
    run_pair,
    swap_padding,
)
from geokernels import world
from geokernels.pipelines.interpolate.couplings import COUPLINGS


def words(prompt: str) -> set[str]:
    return set(prompt.split())


def test_similar_pairs_differ_in_one_attribute_and_dissimilar_ones_share_none():
    values = {str(value) for known in world.ATTRIBUTES.values() for value in known}
    # a colour may be the object's in one and the background's in the other
    own = {str(value) for name in ("shape", "texture", "size") for value in world.ATTRIBUTES[name]}
    for index in range(24):
        kind, prompts = draw_pair(index, seed=3)
        assert draw_pair(index, seed=3) == (kind, prompts)
        first, last = (words(prompt) & values for prompt in prompts)
        if kind == "similar":
            assert len(first ^ last) <= 2  # one word for another, or for none
            assert prompts[0] != prompts[1]
        else:
            assert kind == "dissimilar"
            assert not first & last & own


def test_means_and_intervals_are_those_of_the_pairs():
    def row(index, length):
        paths = {c: dict.fromkeys(MEASURES, 1.0) | {"length": 1.0} for c in COUPLINGS}
        paths["ot"]["length"] = length
        facts = {"words": 10, "words_moved": 5, "moved": 20, "saved": 0.01, "padding": 0.9}
        return {"index": index, "kind": "similar", "paths": paths, **facts}

    kinds = kinds_of({i: row(i, length) for i, length in enumerate((1.0, 2.0, 3.0, 4.0))})
    assert list(kinds) == ["similar"]
    found = kinds["similar"]["couplings"]["ot"]["length"]
    assert found["mean"] == pytest.approx(2.5)
    assert found["half"] == pytest.approx(1.96 * (5 / 3) ** 0.5 / 2)
    assert kinds["similar"]["less row by row"]["ot"]["length"]["mean"] == pytest.approx(1.5)
    page = as_markdown({"kinds": kinds})
    assert "| ot | 2.500 ± 1.265 |" in page
    assert "5.0 of 10.0 that are not padding" in page


@pytest.fixture(scope="module")
def drawn():
    """The smallest run there is of one dissimilar pair: it loads both models of the world."""
    pytest.importorskip("diffusers")
    from geokernels.models import load_clip, load_diffusion
    from geokernels.models.text_to_image import TextToImage
    from geokernels.pipelines import feature_metric

    model = TextToImage(load_diffusion("world"))
    how = Settings(seed=3, frames=3, steps=1, guidance=1.0, rows="all")
    given = 1, model, None, feature_metric(load_clip("world")), how
    return run_pair(*given), swap_padding(*given)


def test_every_coupling_is_scored_on_the_same_ends(drawn):
    paths = drawn[0]["paths"]
    assert set(paths) == set(COUPLINGS)
    assert paths["row"]["fidelity"] == 1.0
    assert all(paths[c]["fidelity"] > 0.99 for c in ("ot", "slerp", "random"))
    assert all(0 <= path["object"] <= 1 and path["length"] > 0 for path in paths.values())


def test_a_picture_of_mixed_rows_lies_between_the_two(drawn):
    swapped = drawn[1]
    assert 0 < swapped["way"] < 1
    assert torch.tensor(swapped["read"]).sum() <= swapped["of"]
