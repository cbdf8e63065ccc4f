"""What is published is what the data say: every table of the documents, every summary of lines, the page."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.quality.edits import percent
from benchmarks.quality.fronts import summarise
from benchmarks.quality.lines import finished
from benchmarks.quality.plasticity import STAGES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
TRIAL = RESULTS / "plasticity"
# their page and their table have tests of their own, in test_page.py
OPERATORS = {"cpu.json", "cpu-avx2.json"}


def test_every_document_shows_the_tables_of_the_results():
    shown = tables.pages()
    assert shown
    for document in shown:
        text = document.read_text(encoding="utf-8")
        assert tables.fill(text) == text, f"{document.name}: run python -m benchmarks.tables"


def test_every_table_stands_in_a_document():
    text = "".join(document.read_text(encoding="utf-8") for document in tables.pages())
    assert sorted(re.findall("<!-- table: (.+?) -->", text)) == sorted(tables.TABLES)


def test_results_are_data_and_every_file_of_them_is_shown(monkeypatch):
    files = {path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in files} <= {".json", ".jsonl", ".csv"}
    read, read_text = set(OPERATORS), Path.read_text

    def noting(path, *args, **how):
        if path.is_relative_to(RESULTS):
            read.add(path.relative_to(RESULTS).as_posix())
        return read_text(path, *args, **how)

    monkeypatch.setattr(Path, "read_text", noting)
    for table in tables.TABLES.values():
        table()
    # the lines are what the summary beside them is made of
    assert files - read == {
        f"plasticity/{name}.jsonl" for name in tables.load("plasticity/summary")["stages"]
    }


@pytest.mark.parametrize(
    "text", ["<!-- table: none -->\n<!-- end of table -->", "<!-- table: cost of edit -->"]
)
def test_a_place_that_cannot_be_filled_is_refused(text):
    with pytest.raises(ValueError, match="must"):
        tables.fill(text)


@pytest.mark.parametrize("name", STAGES)
def test_the_summary_of_the_trial_is_that_of_its_lines(name):
    path, summary = TRIAL / f"{name}.jsonl", tables.load("plasticity/summary")
    if not path.exists():
        assert name not in summary["stages"]
        return
    part = summary["stages"][name]
    header = STAGES[name].header(part["seed"])
    rows = finished(path, header)  # refuses other settings, and checks the seals
    assert {key: part[key] for key in header} == header
    assert part["trials"] == len(rows)
    assert json.loads(json.dumps(summarise(list(rows.values())))) == part["arms"]


def test_the_shares_of_the_front_page_are_those_of_the_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    groups = {
        name: tables.load(f"stability-plasticity-{name}")["groups"]["colour and background"]
        for name in ("geodesic", "text2live-geodesic")
    }
    world = tables.load("plasticity/world")["pipelines"]["adapt"]["losses"]
    adapted = world["geodesic"]["points"]["1"]
    said = [percent(group[key]) for group in groups.values() for key in ("reached", "right")]
    said += [f"{100 * group['kept']['share']:.1f}%" for group in groups.values()]
    said += [percent(adapted["reached"]), f"{100 * adapted['kept']['share']:.1f}%"]
    assert [share for share in said if share not in text] == []
