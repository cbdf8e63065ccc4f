"""The errors of Triton's precisions are those of their roundings, and what is published has all of them."""

import pytest

from benchmarks import tables
from benchmarks.operators import precision
from geokernels.kernels import triton


@pytest.mark.skipif(triton.missing is not None or not triton.interpreted, reason="Triton is not interpreted")
def test_errors_by_precision(monkeypatch):
    for name, value in {"N": 24, "M": 20, "D": 16, "STEPS": 3}.items():
        monkeypatch.setattr(precision, name, value)
    found = {row["name"]: row for row in precision.measure()}
    published = tables.load("triton-precision")["rows"]
    assert [row["name"] for row in published] == list(found)
    _, single, three, tf32, half = found.values()
    for quantity in ("potential", "gradient"):
        assert single[quantity] < 1e-5 < tf32[quantity] < half[quantity] < 0.2, quantity
        assert three[quantity] < tf32[quantity] / 4, quantity


def test_errors_are_written_to_one_digit():
    rows = [{"name": "`a`", "value": 1.26e-8, "potential": 0.0243, "gradient": 4.6e-4}]
    assert precision.as_markdown(rows).splitlines()[-1] == "| `a` | 1e-8 | 2e-2 | 5e-4 |"
