"""Rows of an evaluation come to a summary in which failures count."""

from geokernels.metrics.summary import COLUMNS, summarise


def test_summary_of_what_failed():
    values = dict.fromkeys(COLUMNS)
    good = {
        "method": "m",
        "attribute": "shape",
        "seconds": 2.0,
        "passes": 12.0,
        "failure": None,
        **values,
        "reached": 1.0,
        "mse_outside": 4.0,
    }
    infinite = {**good, "psnr_outside": "inf"}
    bad = {**good, **values, "failure": "no"}
    found = summarise([good, infinite, bad, bad], ["m", "nobody"])
    assert found["m"]["reached"]["value"] == 0.5
    assert found["m"]["mse_outside"] == {"value": 4.0, "low": 4.0, "high": 4.0, "n": 2}
    assert found["m"]["psnr_outside"] is None
    assert found["nobody"]["edits"] == 0
    assert found["nobody"]["reached"] is None
