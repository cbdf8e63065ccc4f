"""The folder that an evaluation leaves behind: every result, every failure, every picture."""

import csv
import io
import json
import re
from collections.abc import Sequence

from torch import Tensor

from .._files import sha256, write_json, write_text
from ..world import EditCase
from .eval_page import evaluation_page
from .eval_summary import COLUMNS, summarise, summary_rows
from .folder import RECORD, RunFolder
from .pictures import write_picture
from .record import checksums

RESULTS, SUMMARY, PAGE, PICTURES = "results.csv", "summary.csv", "report.html", "pictures"
HEAD = ("key", "kind", "attribute", "method", "seconds", "failure", *COLUMNS)


class EvalFolder(RunFolder):
    """Where an evaluation is written."""

    checkpoint = "results.partial.json"

    def clear(self) -> None:
        """Remove an earlier run with its pictures."""
        names = [SUMMARY, PAGE]
        if (self.path / self.checkpoint).exists():
            rows = json.loads((self.path / self.checkpoint).read_text(encoding="utf-8"))["rows"]
            names += [row["picture"] for row in rows if row["picture"]]
        if (self.path / RECORD).exists():
            names += [name for name in self.finished()["sha256"] if name.startswith(PICTURES)]
        for name in (*names, RESULTS):
            (self.path / name).unlink(missing_ok=True)
        super().clear()

    def begun(self, run: dict) -> tuple[list[dict], float]:
        """Rows and seconds of a stopped run of the same settings.

        Raises:
            ValueError: If the settings were others, or a picture of it is not what was written.
        """
        kept = json.loads((self.path / self.checkpoint).read_text(encoding="utf-8"))
        for key, value in json.loads(json.dumps(run)).items():
            if kept["run"].get(key) != value:
                raise ValueError(f"the stopped run had {key} = {kept['run'].get(key)}, this one has {value}")
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
        write_text(self.path / PAGE, evaluation_page(record, summary, rows, cases, self.path))
        names = [RESULTS, SUMMARY, PAGE, *(row["picture"] for row in rows if row["picture"])]
        write_json(self.path / RECORD, {**record, "summary": summary, "sha256": checksums(self.path, names)})
        (self.path / self.checkpoint).unlink(missing_ok=True)


def safe(name: str) -> str:
    """A name as a file may be called; different names stay different where only letters and digits differ."""
    return re.sub(r"[^\w.=,-]+", "-", name).strip(".") or "-"


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return out.getvalue()
