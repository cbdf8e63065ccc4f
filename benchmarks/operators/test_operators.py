"""The same cases under pytest-benchmark, for its storage and comparisons of our own commits.

    pytest benchmarks --benchmark-only -k "64 costs" [--benchmark-autosave]

``geokernels bench`` times contenders in turn and watches the machine, which this plugin does not; the table
of the README is its work. Here every contender is a test: right first, then timed.
"""

import pytest

pytest.importorskip("pytest_benchmark")

from ..harness.case import TABLE
from ..harness.machine import threads
from ..harness.timing import admit
from ..run import all_cases

CONTENDERS = [
    pytest.param(case, *key, id=f"{case.name}, {key[0]}: {key[1]}")
    for case in all_cases()
    if case.series == TABLE
    for key in case.contenders(rivals=True)
]


@pytest.mark.filterwarnings("default")  # rivals warn of what they do not reach
@pytest.mark.parametrize("case, side, name", CONTENDERS)
def test_time(benchmark, case, side, name):
    with threads(case.threads):
        run, facts, _ = admit(case, case.contenders(rivals=True)[side, name], case.make())
        if run is None and side == "rival":
            pytest.skip(facts["why"])
        assert run is not None, facts["why"]
        benchmark.group = case.name
        benchmark.extra_info.update(facts)
        benchmark.pedantic(run, rounds=5, warmup_rounds=1)
