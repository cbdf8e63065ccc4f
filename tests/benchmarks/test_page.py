"""The page shows wins, losses and absences, and needs nothing beside itself."""

import copy

import pytest

from benchmarks import page
from benchmarks.harness import figures
from benchmarks.harness import rows as results


def test_ratios_and_verdicts(found):
    cases = results.by_case(found["rows"])
    assert results.ratio(cases["won"]) == pytest.approx(5)
    assert results.ratio(cases["lost"]) == pytest.approx(0.5)
    assert [v.reached for v in results.verdicts(cases["won"])] == [True]
    assert [v.reached for v in results.verdicts(cases["lost"])] == [False]
    assert [v.reached for v in results.verdicts(cases["memory"])] == [True]


def test_a_verdict_on_a_named_rival(found):
    rows = results.by_case(found["rows"])["won"]
    rows[0]["targets"] = {"ratio to eager": 4, "ratio to POT": 4, "seconds": 1e-4, "over floor": 20}
    assert [v.reached for v in results.verdicts(rows)] == [True, False, False, True]
    assert results.verdicts(rows)[1].value is None


def test_the_page_is_self_contained_and_shows_losses(found):
    text = page.page({"benchmarks/results/cpu.json": found})
    assert "<script" not in text
    assert "http" not in text
    assert text.count("data:image/png") == 7
    for word in ("lost", "hasty", "error above 1.0e-04", "not installed: ot", "50 MB", "c0ffee", "missed"):
        assert word in text, word


def test_cases_of_another_commit_are_named(found):
    assert page.origin(found).endswith(f"commit {found['machine']['commit'][:12]}")
    found["rows"][3]["commit"] = found["rows"][4]["commit"] = "f" * 40
    assert page.origin(found).endswith(f"; of commit {'f' * 12}: lost")
    for row in found["rows"][:-2]:
        row["commit"] = "f" * 40
    assert page.origin(found).endswith(f"; of commit {'f' * 12}: won; lost; memory; 8 more")


def test_the_published_figures_are_those_of_their_results():
    published = page.read_all(page.RESULTS)
    assert len({contents["machine"]["simd"] for contents in published.values()}) == 2
    text = page.CHAPTER.read_text(encoding="utf-8")
    assert page.fill(text, page.table(published)) == text
    for contents in published.values():
        assert page.origin(contents) in page.PAGE.read_text(encoding="utf-8")


def test_the_page_does_without_curves(found):
    found["rows"] = [row for row in found["rows"] if row["series"] == "table"]
    assert page.page({"a file": found}).count("data:image/png") == 2
    assert figures.front(found["rows"]).axes


def test_losses_have_another_colour(found):
    drawn = figures.pictures(found["rows"])["ratio"]
    colours = [bar.get_facecolor() for bar in drawn.axes[0].patches]
    assert len(set(colours)) == 2


def test_the_table_is_filled_between_its_marks(found):
    part = page.table({"benchmarks/results/cpu.json": found})
    text = page.fill(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", part)
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| lost | 2 ms | 20 | scipy, 1 ms | 0.5 | at least 2 x the best rival: missed |" in text
    assert page.fill(text, part) == text


def test_another_level_stands_beside_the_first(found):
    other = copy.deepcopy(found)
    other["machine"]["simd"] = "avx2"
    other["rows"] = [row for row in other["rows"] if row["case"] != "won"]
    for row in other["rows"]:
        if row["case"] == "lost" and row["side"] == "ours":
            row["median_s"] /= 8
    part = page.table({"one": found, "other": other})
    assert "| avx2: ours | ratio | asked |" in part
    assert "| 0.5 | at least 2 x the best rival: missed | 250 us | 4 | reached |" in part
    assert next(line for line in part.splitlines() if line.startswith("| won")).endswith(
        "not measured |  |  |"
    )
    text = page.page({"one": found, "other": other})
    assert text.count("data:image/png") == 14
    assert "<h1>avx2</h1>" in text


def test_a_chapter_without_marks_is_refused():
    with pytest.raises(ValueError, match="once each"):
        page.fill("nothing here", "a table")


@pytest.mark.parametrize(
    "value, text", [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (42e-6, "42 us"), (1e-8, "0.01 us"), (None, "")]
)
def test_seconds_in_the_unit_that_suits(value, text):
    assert results.seconds(value) == text
