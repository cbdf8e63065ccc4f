"""The evaluation CLIP speaks beside the judge, never in its place, and never guides."""

import json

import pytest
import torch

from geokernels import world

pytest.importorskip("open_clip")
# torch's fused attention warns once about its own internals on some builds
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def plasticity():
    from benchmarks.quality import morph as stability_plasticity

    stability_plasticity.start_worker(None, torch.get_num_threads())
    return stability_plasticity


@pytest.mark.parametrize("attribute", ["colour", "background", "texture"])
def test_true_edits_are_named_and_point_the_way(plasticity, attribute):
    named, kept, cosines = 0, 0, []
    for index in range(8):
        scene, target = plasticity.draw(7, index, attribute)
        before, after = world.render(scene)[0], world.render(target)[0]
        texts = world.caption(scene)[0], world.caption(target)[0]
        opinion = plasticity._witness(before, after, after, texts, attribute)
        assert opinion.direction == opinion.direction_of_truth
        assert opinion.named == opinion.named_of_truth
        named += opinion.named == target.names()[0][attribute]
        cosines.append(opinion.direction)
        unchanged = plasticity._witness(before, before, after, texts, attribute)
        assert unchanged.direction == 0
        kept += unchanged.named == scene.names()[0][attribute]
    assert min(named, kept) >= 7
    assert sum(cosines) / 8 > 0.5


def test_an_edit_is_one_line_with_both_verdicts(plasticity):
    config = plasticity.ClipInversionConfig(steps=1, views=1, guess=2.0)
    row = json.loads(json.dumps(plasticity.run_edit((0, "colour", 3, config))))
    assert row["witness"].keys() == {"named", "named_of_truth", "direction", "direction_of_truth"}
    assert row["reached"] == (row["seen"]["colour"] == row["wanted"]["colour"])


def test_what_the_witness_says_changes_no_verdict_of_the_judge(plasticity):
    wanted = {"shape": "star", "colour": "blue", "background": "red", "size": "large", "texture": "plain"}
    rows = [
        {
            "attribute": "colour",
            "wanted": wanted,
            "seen": wanted,
            "reached": True,
            "kept": 1.0,
            "right": True,
            "psnr": 30.0,
            "seconds": 1.0,
            "witness": {
                "named": named,
                "named_of_truth": "blue",
                "direction": 0.2,
                "direction_of_truth": 0.9,
            },
        }
        for named in ("blue", "green", "green", "blue")
    ]
    found = plasticity.summarise(rows)
    assert [found[key]["share"] for key in ("reached", "kept", "right")] == [1, 1, 1]
    assert found["witness"]["named"]["share"] == found["witness"]["as the judge"]["share"] == 0.5
    assert found["witness"]["named of truth"]["share"] == 1
    assert found["witness"]["direction"]["mean"] == pytest.approx(0.2)
