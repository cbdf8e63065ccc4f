"""A run writes after each case, goes on where it stopped, and says what is wrong."""

import io
import json

import pytest
from rich.console import Console

from benchmarks import run
from benchmarks.harness import rows as results
from benchmarks.harness.timing import Canary, measure
from benchmarks.operators import clouds, memory


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=150)


@pytest.fixture
def two_cases(doubling, monkeypatch):
    """Two cases that count how often they are measured."""
    measured, canary = [], Canary()

    def job(name):
        def go():
            measured.append(name)
            return measure(doubling(name=name, seconds=0.05), canary=canary)

        return go

    monkeypatch.setattr(run, "jobs", lambda *_, **__: {name: job(name) for name in ("first", "second")})
    monkeypatch.setattr(
        run.Peaks, "measure", classmethod(lambda cls, count, device: cls(count, 1.0, 1.0, {1: 1.0}))
    )
    monkeypatch.setattr(Canary, "heard", lambda self: {"canary_best_s": 1.0, "canary_upper_s": 1.0})
    return measured


def go(console, **more):
    return run.command(
        **{"only": "", "rivals": True, "json": None, "resume": False, "threads": None} | more, console=console
    )


def test_rows_say_machine_and_commit(two_cases, console, tmp_path):
    assert go(console, json=tmp_path / "deep/found.json") == 0
    found = results.read(tmp_path / "deep/found.json")
    assert list(results.by_case(found["rows"])) == ["first", "second"]
    for row in found["rows"]:
        assert {"processor", "commit", "torch", "threads"} <= row.keys()
    assert not list(tmp_path.glob("**/*.partial"))


def test_resume_keeps_what_is_finished(two_cases, console, tmp_path):
    file = tmp_path / "found.json"
    go(console, json=file)
    before = results.read(file)["rows"]
    go(console, json=file, resume=True)
    assert two_cases == ["first", "second"]
    assert results.read(file)["rows"] == before


@pytest.mark.parametrize(
    "change",
    [{"quiet": False, "canary_upper_s": 2.0}, {"commit": "another"}, {"rivals": False}],
    ids=["disturbed", "commit", "no rivals"],
)
def test_resume_measures_again_what_is_not(two_cases, console, tmp_path, change):
    file = tmp_path / "found.json"
    go(console, json=file)
    found = results.read(file)
    found["rows"] = [row | change if row["case"] == "second" else row for row in found["rows"]]
    results.write(file, found)
    go(console, json=file, resume=True)
    assert two_cases == ["first", "second", "second"]


def test_an_interruption_leaves_what_was_measured(two_cases, console, tmp_path, monkeypatch):
    file, jobs = tmp_path / "found.json", run.jobs()

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "jobs", lambda *_, **__: {"first": jobs["first"], "second": interrupt})
    assert go(console, json=file) == run.INTERRUPTED
    assert list(results.by_case(results.read(file)["rows"])) == ["first"]
    assert "--resume" in console.file.getvalue()


def test_ours_being_wrong_is_an_error(doubling, console, monkeypatch):
    broken = doubling(name="broken", ours={"native": lambda x: x})
    monkeypatch.setattr(run, "jobs", lambda *_, **__: {"broken": lambda: measure(broken, canary=Canary())})
    assert go(console) == 1
    assert "Ours is wrong" in console.file.getvalue()


def test_a_file_of_another_kind_is_not_replaced(two_cases, console, tmp_path):
    file = tmp_path / "notes.json"
    file.write_text('{"my": "notes"}')
    with pytest.raises(ValueError, match="must be a results file of this harness"):
        go(console, json=file)
    assert file.read_text() == '{"my": "notes"}'


def test_resume_needs_a_file(console):
    with pytest.raises(ValueError, match="--resume needs --json FILE"):
        go(console, resume=True)


def test_a_file_of_something_else_is_refused(console, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"cases": []}))
    with pytest.raises(ValueError, match="it lacks machine, peaks, rows, versions"):
        go(console, json=file, resume=True)


def test_a_word_in_no_name_is_refused(console):
    with pytest.raises(ValueError, match="--only must occur in the name of a case, got 'nothing like it'"):
        go(console, only="nothing like it")


def test_every_case_has_its_own_name_and_a_reason():
    cases = run.all_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.reason for case in cases)


def test_damaged_results_are_refused(tmp_path):
    file = tmp_path / "found.json"
    results.write(
        file, {"machine": {}, "versions": {}, "peaks": {}, "rows": [{"case": "a", "median_s": 0.25}]}
    )
    whole = file.read_text()
    for damaged, said in (
        (whole.replace("0.25", "0.75"), "is damaged .* measure again without it"),
        (whole[:-20], "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ("{}", "must be a results file of this harness"),
    ):
        file.write_text(damaged)
        with pytest.raises(ValueError, match=said):
            results.read(file)


@pytest.mark.parametrize("features", clouds.FEATURES)
def test_memory_is_measured_of_the_clouds_of_that_many_features(features):
    assert set(memory.contenders(features)) >= {("ours", "native"), ("rival", "eager in blocks")}
