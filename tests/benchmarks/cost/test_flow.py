"""What an edit on a rectified flow costs: one and two steps are counted, and continued."""

import pytest

from benchmarks import tables
from benchmarks.cost import flow
from geokernels.models import load_diffusion


@pytest.fixture
def small(random_pipeline, monkeypatch):
    """A pipeline of a kind, without values."""
    monkeypatch.setattr(flow, "SIDE", 16)

    def pipeline(kind: str):
        loaded = load_diffusion(random_pipeline(kind)).to("meta")
        loaded.transformer.requires_grad_(False)
        return loaded

    return pipeline


def test_steps_are_those_published(small):
    sd3, flux = (flow.published_steps(small(kind)) for kind in ("StableDiffusion3Pipeline", "distilled"))
    assert sd3 == {"flow_edit": 33, "rf_inversion": 28, "flow_swap": 28, "flow_sdedit": 30}
    assert flux == {"flow_edit": 24, "rf_inversion": 28, "flow_swap": 28, "flow_sdedit": 17}


def test_a_count_that_is_continued_is_that_of_the_whole_edit(small, tiny_vit):
    pipeline = small("StableDiffusion3Pipeline")

    def edit(steps):
        return flow.edit_by_oig(pipeline, tiny_vit.to("meta"), steps)

    whole = flow.count(edit(5), pipeline.transformer)
    assert flow.continued(edit, 5, pipeline.transformer) == pytest.approx(whole, rel=1e-6)
    assert whole["passes"] == 5 * 5


@pytest.mark.parametrize("shapes, copies", [("sd3", 2), ("flux", 1)])
def test_published_counts_are_of_these_passes(shapes, copies):
    """Guided in pairs, but where guidance is an input; inversions are not guided."""
    rows = tables.load(f"editing-cost-{shapes}")["variants"]
    steps = {"sd3": (33, 28, 28, 30), "flux": (24, 28, 28, 17)}[shapes]
    flow_edit, rf_inversion, swap, sdedit = steps
    expected = {
        "FlowEdit": 2 * copies * flow_edit,
        "RF-Inversion": (1 + copies) * rf_inversion,
        "swap": (1 + copies) * swap,
        "SDEdit": copies * sdedit,
        **dict.fromkeys(flow.OIG, (1 + 2 * copies) * flow.STEPS),
    }
    assert {name: row["passes"] for name, row in rows.items()} == expected
    plain, spare, small = (rows[name] for name in flow.OIG)
    assert spare["tmac"] > plain["tmac"]
    assert spare["peak_gib"] < plain["peak_gib"]
    assert small["tmac"] < spare["tmac"]
