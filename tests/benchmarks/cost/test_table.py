"""The published tables of costs are those of their results, and stand in the documents as they are."""

import json
from pathlib import Path

import pytest

from benchmarks.cost import adapt as adaptation_cost
from benchmarks.cost import edit as editing_cost
from benchmarks.cost import edit_time as editing_time
from benchmarks.cost import morph as layer_edit_cost
from benchmarks.cost.table import LOSS, Column, cost_table, publish

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks/results"
PUBLISHED = {
    "adaptation-cost": (adaptation_cost.COLUMNS, adaptation_cost.PATTERN, "docs/adapt.md"),
    "adaptation-cost-real": (adaptation_cost.COLUMNS, adaptation_cost.PATTERN, "docs/adapt.md"),
    "editing-cost": (editing_cost.COLUMNS, editing_cost.PUBLISHED, None),
    "editing-time": (editing_time.COLUMNS, editing_cost.PUBLISHED, None),
    "layer-edit-cost": (layer_edit_cost.COLUMNS, layer_edit_cost.PATTERN, None),
    "layer-edit-cost-real": (layer_edit_cost.COLUMNS, layer_edit_cost.PATTERN, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tables(name):
    columns, pattern, document = PUBLISHED[name]
    table = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    summary = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert cost_table(summary, columns, pattern) == table
    if document is not None:
        assert table in (ROOT / document).read_text(encoding="utf-8")


def test_a_table_by_hand(tmp_path):
    columns = (Column("GiB", "bytes", ".1f", 2**-30), Column("s", "seconds", ".2f"), LOSS)
    rows = {
        "ours": {"bytes": 2**30, "loss": 0.5, "spread": 0.125},
        "theirs": {"bytes": 2**31, "loss": 1.0, "spread": 0.0},
    }
    publish(tmp_path / "cost.json", "A test", rows, columns, "theirs")
    # without a figure there is no column, and without a pattern nothing to compare with
    assert (tmp_path / "cost.md").read_text() == (
        "A test\n\n| variant | GiB | final loss |\n|---|---|---|\n"
        "| ours | 1.0 (2.00 x less) | 0.500 ± 0.125 |\n| theirs | 2.0 (1.00 x less) | 1.000 ± 0.000 |\n"
    )
    assert json.loads((tmp_path / "cost.json").read_text())["variants"] == rows
    assert "x less" not in cost_table({"what": "A test", "variants": rows}, columns, "another")
