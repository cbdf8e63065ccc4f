"""A table of costs is what its rows say."""

import json

from benchmarks.cost.table import LOSS, Column, cost_table, publish


def test_a_table_by_hand(tmp_path, capsys):
    columns = (Column("GiB", "bytes", ".1f", 2**-30), Column("s", "seconds", ".2f"), LOSS)
    rows = {
        "ours": {"bytes": 2**30, "loss": 0.5, "spread": 0.125},
        "theirs": {"bytes": 2**31, "loss": 1.0, "spread": 0.0},
    }
    publish(tmp_path / "cost.json", "A test", rows, columns, "theirs")
    # without a figure there is no column, and without a pattern nothing to compare with
    assert capsys.readouterr().out == (
        "A test\n\n| variant | GiB | final loss |\n|---|---|---|\n"
        "| ours | 1.0 (2.00 x less) | 0.500 ± 0.125 |\n| theirs | 2.0 (1.00 x less) | 1.000 ± 0.000 |\n\n"
    )
    assert json.loads((tmp_path / "cost.json").read_text())["variants"] == rows
    assert "x less" not in cost_table({"what": "A test", "variants": rows}, columns, "another")
