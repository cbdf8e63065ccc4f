"""The page of an evaluation: the table, the failures, and pictures side by side."""

import math
from collections.abc import Sequence
from pathlib import Path

from ..media.pictures import read_picture
from ..metrics.summary import readable
from ..world import KINDS, EditCase
from .page import badge, details, page, picture, row, section, table, text

SHOWN, THUMB = 24, 128  # edits whose pictures are on the page, and their longest side


def evaluation_page(
    record: dict, summary: dict, rows: Sequence[dict], cases: Sequence[EditCase], folder: Path
) -> str:
    """The page; of every edit the pictures are in ``folder``, of the first ones also here."""
    failed = [row for row in rows if row["failure"] is not None]
    lead = (
        f"<p>{len(cases)} edits by {len(summary)} methods on {text(record['model'])}, "
        f"{text(record['steps'])} DDIM steps from one inversion of each picture, "
        f"{text(len(failed))} of {len(rows)} results failed.</p>"
    )
    names = record["measures"]
    note = (
        f"Means with 95% bounds; ↑ more is better, ↓ less. CLIP is {names['clip']}, structure that of "
        f"{names['structure']}, perceptual the {names['perceptual']}. An edit that failed counts as not "
        "reached and not right; other columns are means of the edits that did not fail."
    )
    sections = [section("Methods", table(*_summary_table(summary)), note=note)]
    if any(found["reached"] for found in summary.values()):
        sections.append(section("Reached, by what was asked", table(*_by_attribute(rows, list(summary)))))
    lines = [(text(r["key"]), text(r["method"]), text(r["failure"])) for r in failed]
    shown = table(("edit", "method", "why"), lines) if failed else "<p>None.</p>"
    sections.append(section("Failures", shown))
    sections.append(section("The first edits", *_pictures(rows, cases[:SHOWN], folder)))
    facts = {k: v for k, v in record.items() if k not in ("versions", "machine", "edits")}
    sections.append(
        section("The run", details("Every setting", facts), details("Versions", record["versions"]))
    )
    return page("Edits, evaluated", lead, sections)


def _summary_table(summary: dict) -> tuple[list[str], list[list[str]]]:
    """Head and lines; failures are marked, and no number breaks from its bounds."""
    head, lines = readable(summary)
    marked = [
        [
            text(label),
            edits,
            badge(failed, False) if failed != "0" else failed,
            *(cell.replace(" ", "\u00a0") for cell in cells),
        ]
        for label, edits, failed, *cells in lines
    ]
    return head, marked


def _by_attribute(rows: Sequence[dict], labels: list[str]) -> tuple[list[str], list[list[str]]]:
    """Share of edits of each attribute that reached it; those that failed did not."""
    attributes = list(dict.fromkeys(r["attribute"] for r in rows if r["attribute"] is not None))
    lines = []
    for label in labels:
        cells = []
        for attribute in attributes:
            of = [r["reached"] or 0.0 for r in rows if (r["method"], r["attribute"]) == (label, attribute)]
            cells.append(f"{100 * sum(of) / len(of):.0f}% of {len(of)}")
        lines.append([text(label), *cells])
    return ["method", *attributes], lines


def _pictures(rows: Sequence[dict], cases: Sequence[EditCase], folder: Path) -> list[str]:
    """Source, truth where there is one, and every method's result, an edit a row."""
    shown = []
    for case in cases:
        figures = [_figure(case.picture, case.source, "source")]
        if case.edited is not None:
            figures.append(_figure(case.edited, case.target, "truth"))
        for found in (r for r in rows if r["key"] == case.key):
            right = found["right"]
            mark = "" if right is None else badge("right" if right else "not", bool(right))
            made = found["picture"] and folder / found["picture"]
            figures.append(
                _figure(made, f"{found['method']}: {case.target}", f"{text(found['method'])} {mark}")
            )
        kind = KINDS[case.kind].replace("_", " ")
        heading = f"<p>{text(case.source)} → <strong>{text(case.target)}</strong> ({text(kind)})</p>"
        shown.append(heading + row(*figures))
    return shown


def _figure(path: Path | None, alt: str, label: str) -> str:
    """A picture's file, or its label alone where there is none, or none that can be read."""
    try:
        if path is not None:
            return picture(read_picture(path, most_megapixels=math.inf).rgb, alt, label, longest=THUMB)
    except ValueError:
        pass
    return f"<figure><figcaption>{label}: no picture</figcaption></figure>"
