"""What is published is what the data say: every table of the documents, every summary of lines, the page."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.quality.edits import percent
from benchmarks.quality.fronts import front_page, summarise
from benchmarks.quality.lines import finished

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
FRONTS = RESULTS / "plasticity-fronts"
# its page and its table have tests of their own, in test_page.py
OPERATORS = "cpu.json"


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
    read, read_text = {OPERATORS}, Path.read_text

    def noting(path, *args, **how):
        if path.is_relative_to(RESULTS):
            read.add(path.relative_to(RESULTS).as_posix())
        return read_text(path, *args, **how)

    monkeypatch.setattr(Path, "read_text", noting)
    for table in tables.TABLES.values():
        table()
    # the lines are what the summary beside them is made of
    assert files - read == {"plasticity-fronts/edits.jsonl", "plasticity-fronts/adaptations.jsonl"}


@pytest.mark.parametrize(
    "text", ["<!-- table: none -->\n<!-- end of table -->", "<!-- table: cost of edit -->"]
)
def test_a_place_that_cannot_be_filled_is_refused(text):
    with pytest.raises(ValueError, match="must"):
        tables.fill(text)


def lines_of(name: str) -> tuple[dict, list[dict]]:
    """Header and trials of a file of lines, whose seals are checked."""
    path = FRONTS / f"{name}.jsonl"
    header = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    header = {key: value for key, value in header.items() if key != "seal"}
    rows = finished(path, header)
    return header, [rows[index] for index in sorted(rows)]


@pytest.mark.parametrize(
    "name, pipeline", [("edits", "clip-inversion"), ("adaptations", "adapt")], ids=["edits", "adaptations"]
)
def test_the_summary_of_the_fronts_is_that_of_their_lines(name, pipeline):
    header, rows = lines_of(name)
    part = tables.load("plasticity-fronts/summary")["pipelines"][pipeline]
    assert {key: part[key] for key in header} == header
    assert part["trials"] == len(rows)
    assert json.loads(json.dumps(summarise(rows))) == part["losses"]


def figures_of(html: str) -> list[str]:
    """What the tables of a page say, however they are drawn."""
    tables = re.findall(r"<table.*?</table>", html, re.DOTALL)
    return [text for table in tables for text in re.split(r"(?:<[^>]*>\s*)+", table) if text.strip()]


def test_the_page_of_the_fronts_is_that_of_their_summary():
    drawing = ROOT / "docs/plasticity/fronts.png"
    made = front_page(tables.load("plasticity-fronts/summary"), drawing)
    shown = (drawing.parent / "fronts.html").read_text(encoding="utf-8")
    assert len(figures_of(made)) > 100
    assert figures_of(shown) == figures_of(made)


def test_the_shares_of_the_front_page_are_those_of_the_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    groups = {
        name: tables.load(f"stability-plasticity-{name}")["groups"]["colour and background"]
        for name in ("geodesic", "text2live-geodesic")
    }
    adapted = tables.load("plasticity-fronts/summary")["pipelines"]["adapt"]["losses"]["geodesic"]["points"][
        "1"
    ]
    said = [percent(group[key]) for group in groups.values() for key in ("reached", "right")]
    said += [f"{100 * group['kept']['share']:.1f}%" for group in groups.values()]
    said += [percent(adapted["reached"]), f"{100 * adapted['kept']['share']:.1f}%"]
    assert [share for share in said if share not in text] == []
