"""The folder that an evaluation leaves behind: every result, every failure, every picture."""

import csv
import io
import json
import os
import re
from collections.abc import Sequence

from torch import Tensor

from .._files import read_json, sha256, write_json, write_text
from ..world import EditCase
from .eval_page import evaluation_page
from .eval_summary import COLUMNS, markdown, summarise, summary_rows
from .folder import RECORD, RunFolder
from .pictures import write_picture
from .record import checksums

RESULTS, SUMMARY, TABLE, PAGE, PICTURES = (
    "results.csv",
    "summary.csv",
    "summary.md",
    "report.html",
    "pictures",
)
ROWS = "results.json"  # everything in results.csv, and each picture with its checksum: to be continued from
HEAD = ("key", "kind", "attribute", "method", "seconds", "failure", *COLUMNS)


class EvalFolder(RunFolder):
    """Where an evaluation is written."""

    checkpoint = "results.partial.json"

    def claim(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder as others do; a finished evaluation may be resumed, with more edits or methods."""
        if resume and (self.path / RECORD).exists() and (self.path / ROWS).exists():
            os.replace(self.path / ROWS, self.path / self.checkpoint)
            (self.path / RECORD).unlink()
        super().claim(resume=resume, overwrite=overwrite)

    def clear(self) -> None:
        """Remove an earlier run with its pictures."""
        names = [RESULTS, SUMMARY, TABLE, PAGE, ROWS]
        for kept in (self.path / self.checkpoint, self.path / ROWS):
            if kept.exists():
                rows = read_json(kept)["rows"]
                names += [row["picture"] for row in rows if row["picture"]]
        for name in names:
            (self.path / name).unlink(missing_ok=True)
        super().clear()

    def begun(self, run: dict) -> tuple[list[dict], float]:
        """Rows and seconds of an earlier run of the same settings, which may have had fewer edits or methods.

        Raises:
            ValueError: If the settings were others, or a picture of it is not what was written.
        """
        kept, run = read_json(self.path / self.checkpoint), json.loads(json.dumps(run))
        before = kept["run"]
        for key, value in run.items():
            if key not in ("methods", "edits") and before.get(key) != value:
                raise ValueError(f"the earlier run had {key} = {before.get(key)}, this one has {value}")
        if run["edits"][: len(before["edits"])] != before["edits"]:
            raise ValueError("the earlier run had other edits; give the same folder, and no smaller limit")
        for label, settings in before["methods"].items():
            if run["methods"].get(label) != settings:
                raise ValueError(f"the earlier run had the method {label}; give it again, with its settings")
        for row in kept["rows"]:
            path = row["picture"] and self.path / row["picture"]
            if path and not (path.is_file() and sha256(path) == row["sha256"]):
                raise ValueError(
                    f"the stopped run's {row['picture']} is not what it was; start again with --overwrite"
                )
        return kept["rows"], kept["seconds"]

    def add(self, row: dict, picture: Tensor | None) -> dict:
        """Write the picture of a row; returns the row with its file."""
        if picture is None:
            return {**row, "picture": None, "sha256": None}
        name = f"{PICTURES}/{safe(row['method'])}/{safe(row['key'])}.png"
        write_picture(self.path / name, picture)
        return {**row, "picture": name, "sha256": sha256(self.path / name)}

    def keep(self, run: dict, rows: list[dict], seconds: float) -> None:
        """Write the checkpoint."""
        write_json(self.path / self.checkpoint, {"run": run, "rows": rows, "seconds": seconds})

    def finish(self, record: dict, rows: list[dict], cases: Sequence[EditCase]) -> None:
        """Write both tables, the page and, last, ``run.json``; then the checkpoint goes."""
        order = {case.key: i for i, case in enumerate(cases)}
        labels = list(record["methods"])
        rows = sorted(rows, key=lambda row: (order[row["key"]], labels.index(row["method"])))
        summary = summarise(rows, labels)
        write_text(self.path / RESULTS, _csv(HEAD, [[row[name] for name in HEAD] for row in rows]))
        head, lines = summary_rows(summary)
        write_text(self.path / SUMMARY, _csv(head, lines))
        write_text(self.path / TABLE, markdown(summary))
        write_text(self.path / PAGE, evaluation_page(record, summary, rows, cases, self.path))
        write_text(self.path / ROWS, (self.path / self.checkpoint).read_text("utf-8"))
        names = [RESULTS, SUMMARY, TABLE, PAGE, ROWS, *(row["picture"] for row in rows if row["picture"])]
        write_json(self.path / RECORD, {**record, "summary": summary, "sha256": checksums(self.path, names)})
        (self.path / self.checkpoint).unlink()


def safe(name: str) -> str:
    """A name as a file may be called; different names stay different where only letters and digits differ."""
    return re.sub(r"[^\w.=,-]+", "-", name).strip(".") or "-"


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return out.getvalue()
