"""The harness times only what is right, hears a disturbed machine, and knows the floor."""

import itertools
import json
import time

import pytest
import torch

from benchmarks.harness import rows as results
from benchmarks.harness import timing as harness
from benchmarks.harness.case import Rival, Work
from benchmarks.harness.machine import Peaks, threads


@pytest.fixture
def canary():
    return harness.Canary()


@pytest.fixture
def peaks():
    return Peaks(1, flops=1e9, exps=1e8, copies={1000: 1e9, 100_000: 1e8})


def measure(case, canary, **more):
    return {row["name"]: row for row in harness.measure(case, canary=canary, **more)}


def test_everybody_right_is_timed_against_the_floor(doubling, canary, peaks):
    rows = measure(doubling(), canary, peaks=peaks)
    for row in rows.values():
        assert 0 < row["min_s"] <= row["q1_s"] <= row["median_s"] <= row["q3_s"] <= row["max_s"]
        assert row["floor_s"] == pytest.approx(64 / 1e9)
        assert row["over_floor"] == pytest.approx(row["median_s"] / row["floor_s"])
        assert row["rounds"] >= harness.FEWEST


def test_a_wrong_contender_gets_no_time(doubling, canary):
    rows = measure(doubling(rivals={"hasty": lambda x: x}), canary)
    assert rows["hasty"]["why"] == "error above 1.0e-06"
    assert rows["hasty"]["error"] == 7
    assert "median_s" not in rows["hasty"]
    assert "median_s" in rows["native"]


def test_nan_is_wrong(doubling, canary):
    assert "why" in measure(doubling(rivals={"lost": lambda x: x * torch.nan}), canary)["lost"]


def test_the_loosest_setting_that_is_exact_enough_is_timed(doubling, canary):
    rival = Rival(lambda x, miss: 2 * x + miss, settings=(1.0, 1e-2, 5e-7, 0.0))
    row = measure(doubling(rivals={"loose": rival}, allowed=1e-6), canary)["loose"]
    assert row["setting"] == 5e-7
    assert row["error"] <= 1e-6


def test_what_is_not_installed_says_so(doubling, canary):
    rival = Rival(lambda x: x, needs=("torch", "no_such_library"))
    assert (
        measure(doubling(rivals={"absent": rival}), canary)["absent"]["why"]
        == "not installed: no_such_library"
    )


def test_a_rival_that_fails_is_a_row(doubling, canary):
    def fail(x):
        raise RuntimeError("no\nthank you")

    assert measure(doubling(rivals={"broken": fail}), canary)["broken"]["why"] == "RuntimeError: no"


def test_a_call_that_takes_too_long_is_ended(doubling, canary):
    calls = itertools.count()

    def slow(x):
        time.sleep(0 if next(calls) == 0 else 5)  # the first call may take long: it compiles
        return 2 * x

    start = time.perf_counter()
    row = measure(doubling(rivals={"slow": slow}, patience=0.1), canary)["slow"]
    assert row["why"] == "over 0.1 s a call"
    assert time.perf_counter() - start < 4


def test_rivals_stay_away_unless_asked(doubling, canary):
    assert list(measure(doubling(), canary, rivals=False)) == ["native"]


def test_the_canary_gives_its_best_and_its_upper_quarter(canary, monkeypatch):
    for seconds in (4.0, 1.0, 2.0, 3.0):
        monkeypatch.setattr(harness, "sample", lambda run, repeats, device, seconds=seconds: seconds)
        canary.sing()
    assert canary.heard() == {"canary_best_s": 1.0, "canary_upper_s": 4.0}
    canary.sing()
    assert canary.heard() == {"canary_best_s": 3.0, "canary_upper_s": 3.0}


def test_a_machine_busy_at_first_is_found_out_later():
    busy = {"canary_best_s": 2.0, "canary_upper_s": 2.2}
    assert results.judged([busy])[0]["quiet"]
    calm, mixed = {"canary_best_s": 1.0, "canary_upper_s": 1.4}, {"canary_best_s": 1.0, "canary_upper_s": 1.6}
    judged = results.judged([busy, calm, mixed, {"megabytes": 5.0}])
    assert [row["quiet"] for row in judged] == [False, True, False, True]


def test_every_row_has_its_canaries(doubling, canary):
    for row in measure(doubling(), canary).values():
        assert 0 < row["canary_best_s"] <= row["canary_upper_s"]


def test_threads_of_a_case_end_with_it(doubling, canary):
    before, seen = torch.get_num_threads(), []

    def watched(x):
        seen.append(torch.get_num_threads())
        return 2 * x

    measure(doubling(ours={"native": watched}, rivals={}, threads=before + 1), canary)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "work, floor",
    [
        (Work(flops=1e9), 1.0),
        (Work(flops=1e9, exps=1e8), 2.0),  # both need the same units
        (Work(flops=10, bytes=1000), 1e-6),  # from the cache
        (Work(flops=10, bytes=10_000), 1e-4),  # from the next one
        (Work(bytes=1e8), 1.0),  # beyond all
    ],
    ids=["products", "exponentials", "cache", "larger", "memory"],
)
def test_floor_is_the_larger_of_arithmetic_and_memory(peaks, work, floor):
    assert peaks.floor(work) == pytest.approx(floor)


def test_peaks_are_measured_and_can_be_written(monkeypatch):
    monkeypatch.setattr("benchmarks.harness.machine.COPIES", {"cpu": (2**12, 2**14)})
    with threads(1):
        found = Peaks.measure(1, seconds=0.01)
    assert found.flops > 1e8
    assert found.exps > 1e6
    assert json.loads(json.dumps(found.facts()))["threads"] == 1
