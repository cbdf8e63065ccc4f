"""The folder that an evaluation leaves behind: every result, every failure, every picture."""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .._files import sha256, write_text
from ..media.pictures import png, read_picture, write_picture
from ..metrics.summary import COLUMNS, markdown, readable, summarise, summary_rows
from ..pipelines.run_state import require_same_facts
from ..report.evaluate import SHOWN, THUMB, ShownEdit, evaluation_page
from ..world import KINDS, EditCase
from .folder import RECORD, RunFolder, listed, texts
from .own_files import PART

RESULTS, SUMMARY, TABLE, PAGE, PICTURES = (
    "results.csv",
    "summary.csv",
    "summary.md",
    "report.html",
    "pictures",
)
TABLES = (RESULTS, SUMMARY, TABLE)
ROWS = "results.json"  # everything in results.csv, and each picture with its checksum: to be continued from
LONGEST = 80  # letters of a name that a file is called by
HEAD = ("key", "kind", "attribute", "method", "seconds", "failure", *COLUMNS)


@dataclass
class EvalFolder(RunFolder):
    """Where an evaluation is written.

    Attributes:
        methods: Labels of the methods, where they are known.
    """

    methods: tuple[str, ...] = ()

    command = "eval"
    checkpoint = "results.partial.json"
    names = (*(map(re.escape, (*TABLES, PAGE, ROWS))), f"{PICTURES}/{PART}/{PART}\\.png")

    def writes(self) -> tuple[str, ...]:
        """Only the pictures of the run's own methods."""
        return (*self.names[:-1], *(f"{PICTURES}/{re.escape(safe(m))}/{PART}\\.png" for m in self.methods))

    def begins(self) -> bool:
        """A finished evaluation may be resumed, too, with more edits or methods."""
        return super().begins() or (self._record() is not None and (self.path / ROWS).exists())

    def clear(self, keep: Collection[Path] = ()) -> None:
        """Remove an earlier run with its pictures and its tables, which no record lists before its end."""
        begun = self.begins()
        super().clear(keep)
        for name in (*TABLES, PAGE, ROWS) if begun else ():
            (self.path / name).unlink(missing_ok=True)

    def written(self) -> dict[str, str]:
        """The pictures of interrupted runs among them."""
        found = super().written()
        for kept in (self.path / self.checkpoint, self.path / ROWS):
            for row in listed(kept, "rows"):
                found |= texts({str(row.get("picture")): row.get("sha256")})
        return found

    def begun(self, run: dict, cases: Sequence[EditCase]) -> tuple[list[dict], float]:
        """Rows and seconds of an earlier run of the same settings, which may have had fewer edits or methods.

        Args:
            run: What is run.
            cases: Its edits.

        Raises:
            ValueError: If the settings or edits were others, or a picture of it is not what was written.
        """
        stopped = self.path / self.checkpoint
        kept = self.load_json(stopped if stopped.exists() else self.path / ROWS)
        with self.as_written():
            before, run = kept["run"], json.loads(json.dumps(run))
            growing = ("methods", "edits", "contents")
            require_same_facts(
                *({key: value for key, value in of.items() if key not in growing} for of in (before, run))
            )
            if run["edits"][: len(before["edits"])] != before["edits"]:
                raise ValueError(
                    "the earlier run had other edits; give the same folder, and no smaller limit"
                )
            if contents_of(cases[: len(before["edits"])]) != before["contents"]:
                raise ValueError("the earlier run had other pictures, texts or masks of the same edits")
            for label, settings in before["methods"].items():
                if run["methods"].get(label) != settings:
                    raise ValueError(
                        f"the earlier run had the method {label}; give it again, with its settings"
                    )
            for row in kept["rows"]:
                path = row["picture"] and self.path / row["picture"]
                if path and not (path.is_file() and sha256(path) == row["sha256"]):
                    raise ValueError(
                        f"the stopped run's {row['picture']} is not what it was; start again with --overwrite"
                    )
            return list(kept["rows"]), float(kept["seconds"])

    def begin(self, run: dict, rows: list[dict], seconds: float) -> None:
        """Write the first checkpoint: from now on the run is an unfinished one."""
        self.keep(run, rows, seconds)
        if self._record() is not None:
            (self.path / RECORD).unlink()

    def add(self, row: dict, picture: Tensor | None) -> dict:
        """Write the picture of a row; returns the row with its file."""
        if picture is None:
            return {**row, "picture": None, "sha256": None}
        name = f"{PICTURES}/{safe(row['method'])}/{safe(row['key'])}.png"
        write_picture(self.file(name), picture)
        return {**row, "picture": name, "sha256": sha256(self.path / name)}

    def keep(self, run: dict, rows: list[dict], seconds: float) -> None:
        """Write the checkpoint."""
        self.save_json({"run": run, "rows": rows, "seconds": seconds})

    def finish(self, record: dict, rows: list[dict], cases: Sequence[EditCase]) -> None:
        """Write both tables, the page and, last, ``run.json``; then the checkpoint goes."""
        order = {case.key: i for i, case in enumerate(cases)}
        labels = list(record["methods"])
        rows = sorted(rows, key=lambda row: (order[row["key"]], labels.index(row["method"])))
        summary = summarise(rows, labels)
        write_text(self.file(RESULTS), _csv(HEAD, [[row[name] for name in HEAD] for row in rows]))
        head, lines = summary_rows(summary)
        write_text(self.file(SUMMARY), _csv(head, lines))
        write_text(self.file(TABLE), markdown(summary))
        shown = [self._shown(case, rows) for case in cases[:SHOWN]]
        write_text(self.file(PAGE), evaluation_page(record, readable(summary), rows, shown))
        write_text(self.file(ROWS), (self.path / self.checkpoint).read_text("utf-8"))
        names = [*TABLES, PAGE, ROWS, *(row["picture"] for row in rows if row["picture"])]
        self.end({**record, "summary": summary}, names)

    def _shown(self, case: EditCase, rows: Sequence[dict]) -> ShownEdit:
        """An edit with its pictures: the source, the truth where there is one, and every method's result."""
        drawn = {"source": _thumbnail(case.picture)}
        if case.edited is not None:
            drawn["truth"] = _thumbnail(case.edited)
        results = {
            row["method"]: _thumbnail(row["picture"] and self.path / row["picture"])
            for row in rows
            if row["key"] == case.key
        }
        return ShownEdit(case.key, case.source, case.target, KINDS[case.kind], drawn, results)


def _thumbnail(path: Path | None) -> bytes | None:
    """A picture's file, small; None where there is none, or none that can be read."""
    try:
        return path and png(read_picture(path, most_megapixels=math.inf).rgb, longest=THUMB)
    except ValueError:
        return None


def contents_of(cases: Sequence[EditCase]) -> str:
    """Checksum of all that edits consist of; a picture that is not there is a part of it, too."""
    digest = hashlib.sha256()
    for case in cases:
        picture = sha256(case.picture) if case.picture.is_file() else None
        digest.update(json.dumps([picture, case.source, case.target, case.instruction, case.runs]).encode())
    return digest.hexdigest()


def safe(name: str) -> str:
    """A name as a file may be called anywhere; different names get different ones, none is long.

    Names of small letters, digits and a few signs stay as they are; others are made so, and told apart by a
    digest, because "a b" and "a-b", "A" and "a" would be one file, here or on a drive of another system.
    """
    plain = re.fullmatch(r"[a-z0-9_=,-][a-z0-9_.=,-]*(?<!\.)", name)
    if plain and len(name) <= LONGEST and not re.search(r"-[0-9a-f]{12}$", name):
        return name
    said = re.sub(r"[^A-Za-z0-9_.=,-]+", "-", name)[:LONGEST].lstrip(".")
    return f"{said}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return out.getvalue()
