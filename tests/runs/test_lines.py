"""Lines are written as they come, read as they were written, and continued behind the last whole one."""

import json
import tracemalloc

import pytest

from geokernels.runs.lines import Lines
from geokernels.runs.results import Results


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path / "rows.jsonl", "rows", "begin again")


def said(lines):
    return [content for _, content in lines]


def test_what_was_written_is_read(lines):
    assert said(lines) == []
    begins = [lines.append({"i": i, "text": "ä\n"}) for i in range(3)]
    assert said(lines) == [{"i": i, "text": "ä\n"} for i in range(3)]
    assert [at for at, _ in lines] == begins
    assert lines.at(begins[1]) == {"i": 1, "text": "ä\n"}
    assert lines.path.stat().st_mode & 0o777 == 0o644
    lines.replace([{"i": 7}])
    assert said(lines) == [{"i": 7}]


def test_a_line_cut_short_is_left_out_and_removed(lines):
    lines.append({"i": 0})
    whole = lines.path.read_bytes()
    lines.append({"i": 1})
    for length in range(len(whole), len(whole) + 20):
        lines.path.write_bytes((whole + whole)[:length])
        assert said(lines) == [{"i": 0}]
        lines.mend()
        assert lines.path.read_bytes() == whole
    lines.append({"i": 2})
    assert said(lines) == [{"i": 0}, {"i": 2}]


def test_damage_is_said_by_its_line(lines):
    for i in range(3):
        lines.append({"i": i})
    text = lines.path.read_text()
    for found, wrong in (('"i": 1', '"i": 5'), ('{"i": 1', '{i": 1'), ('"i": 1', '"j": 1')):
        lines.path.write_text(text.replace(found, wrong))
        with pytest.raises(ValueError, match=r"line 2 of .*rows\.jsonl is damaged.*; begin again"):
            said(lines)
        assert {0, 2} <= {line.get("i") for line in lines.salvaged()}
    lines.path.write_text(text)
    with pytest.raises(ValueError, match=r"line 1 of .* must be of others, it is of rows"):
        said(Lines(lines.path, "others", "begin again"))


def test_no_link_is_written_through(lines, tmp_path):
    (tmp_path / "mine").write_text("mine")
    lines.path.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"rows\.jsonl could not be written"):
        lines.append({"i": 0})
    assert (tmp_path / "mine").read_text() == "mine"


def row(key, method, value=0):
    return {"key": key, "method": method, "value": value}


def test_results_come_in_the_order_of_edits_and_methods(lines):
    results = Results(lines)
    results.expect(["a", "b"], ["x", "y"])
    for key, method in (("b", "y"), ("a", "y"), ("b", "x")):
        assert not results.has(key, method)
        results.add(row(key, method))
        assert results.has(key, method)
    assert [(r["key"], r["method"]) for r in results] == [("a", "y"), ("b", "x"), ("b", "y")]
    assert len(results) == 3
    again = Results(lines)
    again.expect(["a", "b", "c"], ["x", "y", "z"])
    assert len(list(again.read())) == 3
    again.add(row("a", "x"))
    assert [(r["key"], r["method"]) for r in again] == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]


def test_a_result_is_there_once(lines):
    for _ in range(2):
        lines.append(row("a", "x"))
    results = Results(lines)
    results.expect(["a"], ["x"])
    with pytest.raises(ValueError, match="must have one line of a by x, it has two; begin again"):
        list(results.read())


def test_what_was_there_before_a_fresh_run_goes(lines):
    lines.path.write_text(json.dumps({"mine": 1}) + "\n")
    results = Results(lines)
    results.expect(["a"], ["x"])
    results.add(row("a", "x"))
    assert said(lines) == [row("a", "x")]


def test_memory_holds_where_results_begin_and_not_the_results(lines):
    results = Results(lines)
    results.expect([f"{i:012}" for i in range(1000)], ["x", "y"])
    tracemalloc.start()
    for i in range(1000):
        for method in ("x", "y"):
            results.add({**row(f"{i:012}", method), "text": f"{i} {method} " * 40})
    assert len(list(map(len, results))) == 2000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines.path.stat().st_size > 600_000
    assert peak < 150_000
