"""The page of an evaluation: the table, the failures, and pictures side by side."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from .page import badge, figure, page, row, run_section, section, table, text

SHOWN, THUMB = 24, 128  # edits whose pictures are on the page, and their longest side
FAILURES = 100  # that the page lists: it has to open, whatever failed


class ShownEdit(NamedTuple):
    """One edit that was asked for; a picture is a PNG, or None where there is none that can be read."""

    key: str
    source: str  # what the picture shows
    target: str  # what it shall show
    kind: str  # of edit
    drawn: Mapping[str, bytes | None]  # "source", and "truth", the true result, where it is known
    results: Mapping[str, bytes | None]  # by method


def evaluation_page(
    record: dict,
    summary: tuple[Sequence[str], Sequence[Sequence[str]]],
    rows: Collection[dict],
    examples: Sequence[ShownEdit],
) -> str:
    """The page of an evaluation.

    Args:
        record: As in ``run.json``.
        summary: Head and lines of the table of methods, as text: method, edits, failures, measures.
        rows: The results, as in ``results.jsonl``; gone through once.
        examples: Some of the edits, with their pictures.
    """
    methods = list(record["methods"])
    said = _Said(rows, [example.key for example in examples])
    lead = (
        f"<p>{len(methods)} methods made {len(record['edits'])} edits each with the model "
        f"“{text(record['model'])}”, in {text(record['config']['edits']['steps'])} DDIM steps from one "
        f"inversion of each picture. {said.failures} of {len(rows)} results failed.</p>"
    )
    note = _measures(record["measures"], record["conventions"])
    sections = [section("Methods", table(*_methods(*summary)), note=note)]
    if said.judged:
        sections.append(section("Reached, by what was asked", table(*_by_attribute(said, methods))))
    shown = table(("edit", "method", "why"), said.failed) if said.failed else "<p>None.</p>"
    if said.failures > len(said.failed):
        rest = said.failures - len(said.failed)
        shown += f'<p>And {rest:,} more, all of them in <a href="results.csv">results.csv</a>.</p>'
    kept = ("decoder", "dtype", "measures", "methods")
    settings = {**record["config"]["edits"], **{name: record[name] for name in kept}}
    sections += [
        section("Failures", shown),
        section("The first edits", *(_example(example, said.of[example.key]) for example in examples)),
        run_section(record, settings=settings),
    ]
    return page("Edits, evaluated", lead, sections)


class _Said:
    """What the page says of results, however many there are.

    Attributes:
        failures: How many results failed.
        failed: Lines of the table of failures, which has the first.
        judged: Whether the judge has said anything.
        asked: How many results there are, by method and attribute.
        reached: How many of these did what was asked.
        of: The results of the edits that are shown.
    """

    def __init__(self, rows: Collection[dict], shown: Sequence[str]):
        self.failures, self.failed = 0, []
        self.judged = False
        self.asked: Counter = Counter()
        self.reached: Counter = Counter()
        self.of: dict[str, list[dict]] = {key: [] for key in shown}
        for result in rows:
            self.failures += result["failure"] is not None
            if result["failure"] is not None and len(self.failed) < FAILURES:
                self.failed.append(tuple(text(result[name]) for name in ("key", "method", "failure")))
            self.judged |= result["reached"] is not None
            if result["attribute"] is not None:
                of = result["method"], result["attribute"]
                self.asked[of] += 1
                self.reached[of] += result["reached"] or 0.0
            if result["key"] in self.of:
                self.of[result["key"]].append(result)


def _measures(names: Mapping[str, str], conventions: Mapping) -> str:
    departures = ", ".join(conventions["departures"])
    but = f", but for {departures}" if departures else ""
    return (
        "Shares and means with 95% intervals; ↑ more is better, ↓ less is better. CLIP scores are by "
        f"{names['clip']}; structure compares {names['structure']}; perceptual is the {names['perceptual']}. "
        "An edit that failed counts as neither reached nor right; all other columns are means of the edits "
        f"that did not fail. Conventions {conventions['fingerprint']}: those of PIE-Bench{but}."
    )


def _methods(head: Sequence[str], lines: Sequence[Sequence[str]]) -> tuple[Sequence[str], list[list[str]]]:
    """The table of methods as HTML; failures are marked, and no number breaks from its bounds."""
    marked = [
        [
            text(method),
            edits,
            badge(failed, False) if failed != "0" else failed,
            *(cell.replace(" ", "\u00a0") for cell in cells),
        ]
        for method, edits, failed, *cells in lines
    ]
    return head, marked


def _by_attribute(said: _Said, methods: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Share of edits of each attribute that reached it; those that failed did not."""
    attributes = list(dict.fromkeys(attribute for _, attribute in said.asked))
    lines = []
    for method in methods:
        cells = []
        for attribute in attributes:
            asked, reached = said.asked[method, attribute], said.reached[method, attribute]
            cells.append(f"{100 * reached / asked:.0f}%\u00a0of\u00a0{asked}")
        lines.append([text(method), *cells])
    return ["method", *attributes], lines


def _example(shown: ShownEdit, results: Sequence[dict]) -> str:
    """Source, truth where there is one, and every method's result, side by side."""
    figures = [
        _figure(data, shown.source if name == "source" else shown.target, name)
        for name, data in shown.drawn.items()
    ]
    for result in results:
        method, right = result["method"], result["right"]
        mark = "" if right is None else badge("right" if right else "wrong", bool(right))
        figures.append(_figure(shown.results[method], f"{method}: {shown.target}", f"{text(method)} {mark}"))
    kind = text(shown.kind.replace("_", " "))
    return f"<p>{text(shown.source)} → <strong>{text(shown.target)}</strong> ({kind})</p>{row(*figures)}"


def _figure(data: bytes | None, alt: str, label: str) -> str:
    """A picture, or its label alone where there is none."""
    if data is None:
        return f"<figure><figcaption>{label}: no picture</figcaption></figure>"
    return figure(data, alt, label)
