"""Render results: ``python -m benchmarks.page [RESULTS ...] [--table]``.

Writes ``docs/benchmarks.html``, which opens offline and needs no script, and the README's picture,
``docs/pictures/benchmarks.png``, which is of the first results. With ``--table`` it fills the table of
``docs/bench.md``, between two marks: the first results whole, and of the others, which are of other SIMD
levels, the time and the ratio.
"""

import argparse
import base64
import html
import io
import os
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from .harness import figures
from .harness import rows as results
from .harness.case import BATCH, ERROR, FEATURES, MEMORY, POINTS, TABLE
from .harness.machine import ROOT
from .harness.rows import seconds

RESULTS = ROOT / "benchmarks/results/cpu.json", ROOT / "benchmarks/results/cpu-avx2.json"
PAGE, PICTURE, CHAPTER = (
    ROOT / name for name in ("docs/benchmarks.html", "docs/pictures/benchmarks.png", "docs/bench.md")
)
MOST_NAMED = 3  # cases of another commit than the rest
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2129; max-width: 1000px; margin: 2em auto }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em } h3 { font-size: 1em; margin: 1.6em 0 .2em }
table { border-collapse: collapse; width: 100%; font-size: 13px }
th, td { text-align: right; padding: .25em .6em; border-bottom: 1px solid #e3e5e8 }
th:first-child, td:first-child { text-align: left } th { font-weight: 600; color: #555c66 }
tr.ours td { font-weight: 600 } tr.none td { color: #8a8f98 }
img { max-width: 100% } .reason { color: #555c66; margin: 0 0 .4em }
.reached { color: #1b7f5c } .missed { color: #c2452d } .note { color: #555c66; font-size: 13px }
"""

SECTIONS = {
    "ratio": (
        "Speed against rivals",
        "The time of the fastest rival over ours, in one run; below 1 we lose.",
    ),
    "floor": (
        "How far from the floor",
        "The floor is the larger of two times: that of the least arithmetic (products at the rate of a "
        "large matrix product, exponentials at that of torch.exp or torch.exp2) and that of reading the "
        "inputs and writing the outputs once at the rate of a copy. All rates are measured in the same "
        "run. Iterations are counted as ours makes them.",
    ),
    ERROR: (
        "Error against time",
        "Every library asked for more and more. What counts is the error it reached, as measured here.",
    ),
    POINTS: ("Scaling in n", "Medians, with quarters."),
    FEATURES: ("Scaling in d", "Medians, with quarters."),
    BATCH: ("Scaling in the batch", "Medians, with quarters."),
    "threads": ("Scaling in threads", "Ours alone; the dotted line is what there is to gain."),
}

HOW = (
    "A contender is timed only if its error is at most what the case allows; transport is compared at "
    "equal marginal error (L1 distance of both marginals from what they should be, of the worst "
    "problem, in float64), never at equal iterations: of each library's settings the loosest that "
    "reaches it is timed. Contenders take turns, round after round; times are medians with quarters. A "
    "fixed product is timed between the rounds, and a case during which it slowed down is marked as "
    "disturbed."
)


def embedded(figure: Figure) -> str:
    """A figure as an image inside the page."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def verdict_text(verdict: results.Verdict) -> str:
    return f"{verdict.text}: {verdict.state}"


def _row(row: dict) -> str:
    kind = "none" if "why" in row else row["side"]
    name = figures.label(row["name"])
    setting = f"{row['setting']:g}" if row.get("setting") else ""
    error = f"{row['error']:.1e}" if "error" in row else ""
    if "why" in row:
        cells = [row["why"], "", setting, error, "", ""]
    elif "megabytes" in row:
        cells = [f"{row['megabytes']:.0f} MB", "", "", "", "", ""]
    else:
        above = f"{row['over_floor']:.3g}" if "over_floor" in row else ""
        rate = f"{row['gflops']:.3g}" if row.get("gflops") else ""
        quarters = f"{seconds(row['q1_s'])} to {seconds(row['q3_s'])}"
        cells = [seconds(row["median_s"]), quarters, setting, error, above, rate]
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in (name, *cells))
    return f'<tr class="{kind}">{cells}</tr>'


def case_section(rows: list[dict]) -> str:
    """One case in full: who, how long, how exact, what was asked."""
    first = rows[0]
    heads = "".join(
        f"<th>{h}</th>" for h in ("", "median", "quarters", "setting", "error", "over floor", "GFLOP/s")
    )
    lines = [f"<h3>{html.escape(first['case'])}</h3><p class=reason>{html.escape(first['reason'])}"]
    lines.append(f"; threads: {first['on_threads']}" if "on_threads" in first else "")
    lines.append("; <span class=missed>the machine was disturbed</span>" if not first["quiet"] else "")
    lines.append(f"</p><table><tr>{heads}</tr>{''.join(map(_row, rows))}</table>")
    for verdict in results.verdicts(rows):
        mark = "reached" if verdict.reached else "missed"
        lines.append(f"<span class={mark}>{html.escape(verdict_text(verdict))}</span>. ")
    return "".join(lines)


def peaks_text(peaks: list[dict]) -> str:
    """The rates the floors were formed with."""
    lines = []
    for rates in peaks:
        copies = ", ".join(
            f"{rate / 1e9:.1f} at {int(size) / 2**20:g} MiB" for size, rate in rates["copies"].items()
        )
        lines.append(
            f"Threads {rates['threads']}: {rates['flops'] / 1e9:.0f} GFLOP/s of a product, "
            f"{rates['exps'] / 1e9:.2f} G exponentials/s, copies of {copies} GB/s."
        )
    return " ".join(lines)


def origin(contents: dict) -> str:
    """Where figures come from, in one sentence; which cases are of another commit than the rest."""
    machine = contents["machine"]
    parts = [
        f"{machine['processor']}, {machine['threads']} threads, {machine['simd']}, torch {machine['torch']}, "
        f"commit {_short(machine['commit'])}"
    ]
    others: dict[str, list[str]] = {}
    for row in contents["rows"]:
        if row["commit"] != machine["commit"] and row["case"] not in others.setdefault(row["commit"], []):
            others[row["commit"]].append(row["case"])
    for commit, names in others.items():
        more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
        parts.append(f"of commit {_short(commit)}: {'; '.join(names[:MOST_NAMED] + more)}")
    return "; ".join(parts)


def libraries(contents: dict) -> str:
    """Whose versions were timed."""
    return ", ".join(f"{name} {version}" for name, version in contents["versions"].items() if version)


def _short(commit: str) -> str:
    return commit[:12] + (" with changes" if "with changes" in commit else "")


Runs = dict[str, dict]  # contents of results files, by the name of the file


def page(runs: Runs) -> str:
    """The whole page: the results of one file after the other."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>geokernels, measured</title><style>{STYLE}"
        f"</style><h1>geokernels beside others</h1><p>{HOW}</p>"
    ]
    return "".join([*parts, *(run_section(contents, name) for name, contents in runs.items())]) + "</html>\n"


def run_section(contents: dict, name: str) -> str:
    """One results file in full: where it comes from, its pictures, every row."""
    rows = contents["rows"]
    parts = [f"<h1>{html.escape(contents['machine']['simd'])}</h1><p>{html.escape(origin(contents))}.</p>"]
    facts = f"{libraries(contents)}. {peaks_text(contents['peaks'])} From {name}."
    parts.append(f"<p class=note>{html.escape(facts)}</p>")
    drawn = figures.pictures(rows)
    for key, (title, text) in SECTIONS.items():
        if key in drawn:
            parts.append(f"<h2>{title}</h2><p>{text}</p>{embedded(drawn[key])}")
    for title, wanted in (("Every row", (TABLE, MEMORY)), ("Every row beside the table", None)):
        parts.append(f"<h2>{title}</h2>")
        for case in results.by_case(rows).values():
            if (case[0]["series"] in (TABLE, MEMORY)) == (wanted is not None):
                parts.append(case_section(case))
    return "".join(parts)


def _asked(rows: list[dict]) -> str:
    return "; ".join(verdict_text(verdict) for verdict in results.verdicts(rows))


def table(runs: Runs) -> str:
    """The chapter's table, in Markdown: cases of the table and of memory, lost ones too."""
    (_, first), *others = runs.items()
    lines = ["![Speed against the fastest rival, and error against time](pictures/benchmarks.png)", ""]
    for name, contents in runs.items():
        lines += [f"From [{name}](../{name}): {origin(contents)}.", ""]
    heads = ["work", "ours", "over floor", "fastest rival as exact", "ratio", "asked"]
    for _, other in others:
        heads += [f"{other['machine']['simd']}: ours", "ratio", "asked"]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    beside = [results.by_case(other["rows"]) for _, other in others]
    for case, rows in results.by_case(first["rows"]).items():
        if rows[0]["series"] not in (TABLE, MEMORY):
            continue
        own, rival = results.ours(rows), results.best_rival(rows)
        cells = [case, f"{_cost(own)}{_disturbed(rows)}"]
        cells.append(f"{own['over_floor']:.3g}" if "over_floor" in own else "")
        cells.append(f"{figures.label(rival['name'])}, {_cost(rival)}" if rival else "none")
        cells += [_ratio(rows), _asked(rows)]
        for cases in beside:
            again = cases.get(case)
            cells += (
                [f"{_cost(results.ours(again))}{_disturbed(again)}", _ratio(again), _states(again)]
                if again
                else ["not measured", "", ""]
            )
        lines.append(f"| {' | '.join(cells)} |")
    for contents in runs.values():
        gains = [
            f"{curve} {gain:.2f}" for curve, count, gain in figures.speedups(contents["rows"]) if count == 2
        ]
        if gains:
            lines += ["", f"Two threads over one, {contents['machine']['simd']}: {', '.join(gains)}."]
    return "\n".join(lines)


def _ratio(rows: list[dict]) -> str:
    against = results.ratio(rows)
    return f"{against:.3g}" if against else ""


def _states(rows: list[dict]) -> str:
    return "; ".join(verdict.state for verdict in results.verdicts(rows))


def _disturbed(rows: list[dict]) -> str:
    return "" if rows[0]["quiet"] else " (machine disturbed)"


def _cost(row: dict) -> str:
    if "why" in row:
        return row["why"]
    return f"{row['megabytes']:.0f} MB" if "megabytes" in row else seconds(row["median_s"])


def fill(text: str, part: str) -> str:
    """``text`` with what stands between the marks replaced.

    Raises:
        ValueError: If the marks are not there, once each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the text must hold {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{part}\n{END}{rest.split(END)[1]}"


def read_all(files: Iterable[Path]) -> Runs:
    """Results files, by their names within the repository where they lie there."""
    return {os.path.relpath(file.resolve(), ROOT): results.read(file) for file in files}


def main() -> None:
    """Write the page and the picture, and the chapter's table if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="*", default=RESULTS)
    parser.add_argument("--table", action="store_true", help="fill the table of docs/bench.md too")
    arguments = parser.parse_args()
    runs = read_all(arguments.results)
    PAGE.write_text(page(runs), encoding="utf-8")
    figures.front(next(iter(runs.values()))["rows"]).savefig(PICTURE, dpi=120)
    if arguments.table:
        CHAPTER.write_text(fill(CHAPTER.read_text(encoding="utf-8"), table(runs)), encoding="utf-8")


if __name__ == "__main__":
    main()
