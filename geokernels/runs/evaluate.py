"""Runs methods of editing over a folder of edits, and keeps every result, every failure and every picture."""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from .._files import sha256, write_text
from ..media.pictures import png, read_picture, write_picture
from ..metrics.summary import COLUMNS, markdown, readable, summarise, summary_rows
from ..models.flow import latent_model
from ..pipelines.comparators import EditModels
from ..pipelines.run_state import require_same_facts
from ..report.evaluate import SHOWN, THUMB, ShownEdit, evaluation_page
from ..world import KINDS, EditCase
from .edit_batch import Batch, Contender, Plan
from .folder import RunFolder, listed, texts
from .loop import Gathering, Job, Tell
from .measures import Measures
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
STAGE = "edits"
GROWING = ("methods", "edits", "contents")  # facts that a run may have more of than the one it continues


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

    @property
    def kept(self) -> Path:
        """Of a finished evaluation its results, which may be continued with more edits or methods."""
        stopped = self.path / self.checkpoint
        return self.path / ROWS if self._record() is not None and not stopped.exists() else stopped

    def clear(self, keep: Collection[Path] = ()) -> None:
        """Remove an earlier run with its pictures and its tables, which no record lists before its end."""
        begun = self.begins()
        super().clear(keep)
        for name in (*TABLES, PAGE, ROWS) if begun else ():
            (self.path / name).unlink(missing_ok=True)

    def written(self) -> dict[str, str]:
        """The pictures of interrupted runs among them."""
        files = super().written()
        for kept in (self.path / self.checkpoint, self.path / ROWS):
            for row in listed(kept, "stages", STAGE, "rows"):
                files |= texts({str(row.get("picture")): row.get("sha256")})
        return files

    def write(self, row: dict, picture: Tensor | None) -> dict:
        """Write the picture of a row; returns the row with its file."""
        if picture is None:
            return {**row, "picture": None, "sha256": None}
        name = f"{PICTURES}/{safe(row['method'])}/{safe(row['key'])}.png"
        write_picture(self.file(name), picture)
        return {**row, "picture": name, "sha256": sha256(self.path / name)}


class Edits(Gathering):
    """Every edit by every method, a batch by one method a step.

    An edit that fails is tried once more by itself, so that it takes no other with it; if it fails again,
    what it failed of is its result.

    Attributes:
        rows: The results so far.
    """

    def __init__(
        self,
        plan: Plan,
        cases: Sequence[EditCase],
        models: EditModels,
        measures: Measures,
        folder: EvalFolder,
    ):
        self.plan, self.cases = plan, cases
        self.models, self.measures, self.folder = models, measures, folder
        self.rows: list[dict] = []
        self._batch: Batch | None = None

    @property
    def facts(self) -> dict:
        """The settings."""
        return {"config": self.plan.config}

    @property
    def index(self) -> int:
        """Results so far."""
        return len(self.rows)

    @property
    def steps(self) -> int:
        """Results there will be."""
        return len(self.cases) * len(self.plan.contenders)

    def step(self) -> None:
        """Make and measure the next edits by the next method."""
        made = {(row["key"], row["method"]) for row in self.rows}
        first, contender = self._next(made)
        cases = self.cases[first : first + self.plan.batch]
        if self._batch is None or self._batch.first != first:
            self._batch = Batch(self.plan, self.models, cases, first)
        results = self._batch.edit(contender, self.measures)
        # an edit may have been made already, in a batch that ended before it was full
        new = [result for result in results if (result[0]["key"], contender.label) not in made]
        self.rows += [self.folder.write(*result) for result in new]

    def _next(self, made: Collection[tuple[str, str]]) -> tuple[int, Contender]:
        """The first batch, and the first method, that lacks a result."""
        for first in range(0, len(self.cases), self.plan.batch):
            cases = self.cases[first : first + self.plan.batch]
            for contender in self.plan.contenders:
                if any((case.key, contender.label) not in made for case in cases):
                    return first, contender
        raise RuntimeError("all edits have been made")

    def state_dict(self) -> dict:
        """The results."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        """Take back the results.

        Raises:
            ValueError: If one's picture is not what was written.
        """
        for row in state["rows"]:
            path = row["picture"] and self.folder.path / row["picture"]
            if path and not (path.is_file() and sha256(path) == row["sha256"]):
                raise ValueError(
                    f"the stopped run's {row['picture']} is not what it was; start again with --overwrite"
                )
        self.rows = list(state["rows"])


class EvalJob(Job):
    """An evaluation.

    Args:
        plan: How edits are made.
        cases: Gives the edits, and makes them if they are to be drawn; called before the first step.
        models: What methods may use.
        measures: What edits are measured by.
        folder: Claimed already.
        facts: See :class:`geokernels.runs.loop.Job`.
    """

    every = 1

    def __init__(
        self,
        plan: Plan,
        cases: Callable[[], Sequence[EditCase]],
        models: EditModels,
        measures: Measures,
        folder: EvalFolder,
        *,
        facts: dict,
    ):
        plan = replace(plan, contenders=[contender.settled(models) for contender in plan.contenders])
        methods = {
            c.label: {"title": c.method.title, "settings": dict(vars(c.settings))} for c in plan.contenders
        }
        run = {**facts, "methods": methods, "edits": [], "contents": contents_of([]), **measures.facts}
        super().__init__(
            folder,
            facts=json.loads(json.dumps(run)),
            config={STAGE: {**plan.config, **asdict(measures.conventions)}},
            device=str(latent_model(models.pipeline).device),
        )
        self.cases, self.earlier = cases, self.facts
        self.edits = Edits(plan, [], models, measures, folder)

    def require_same(self, state: Mapping) -> None:
        """Refuse to continue a run of other settings; it may have had fewer edits, or fewer methods."""
        kept = state["facts"]
        require_same_facts(state["config"][STAGE], self.config[STAGE])
        require_same_facts(
            *({key: value for key, value in of.items() if key not in GROWING} for of in (kept, self.facts))
        )
        for label, settings in kept["methods"].items():
            if self.facts["methods"].get(label) != settings:
                raise ValueError(f"the earlier run had the method {label}; give it again, with its settings")
        self.earlier = {name: kept[name] for name in GROWING}

    def prepare(self, tell: Tell) -> None:
        """Get the edits.

        Raises:
            ValueError: If the run that is continued had others.
        """
        cases, earlier = self.cases(), self.earlier
        keys, count = [case.key for case in cases], len(earlier["edits"])
        if keys[:count] != earlier["edits"]:
            raise ValueError("the earlier run had other edits; give the same folder, and no smaller limit")
        if contents_of(cases[:count]) != earlier["contents"]:
            raise ValueError("the earlier run had other pictures, texts or masks of the same edits")
        self.edits.cases = cases
        self.facts |= {"edits": keys, "contents": contents_of(cases)}

    def stages(self) -> Iterator[tuple[str, Edits]]:
        """The edits."""
        yield STAGE, self.edits

    @property
    def rows(self) -> list[dict]:
        """The results in the order of the edits, and of the methods."""
        order = {case.key: i for i, case in enumerate(self.edits.cases)}
        labels = list(self.facts["methods"])
        return sorted(self.edits.rows, key=lambda row: (order[row["key"]], labels.index(row["method"])))

    def record(self) -> dict:
        """What the results come to."""
        return {"summary": summarise(self.rows, list(self.facts["methods"]))}

    def finish(self, record: dict) -> Collection[str]:
        """Write the tables and the page; the pictures are written already."""
        file, rows, summary = self.folder.file, self.rows, record["summary"]
        write_text(file(RESULTS), _csv(HEAD, [[row[name] for name in HEAD] for row in rows]))
        write_text(file(SUMMARY), _csv(*summary_rows(summary)))
        said = self.edits.measures.conventions.said()
        write_text(file(TABLE), f"{markdown(summary)}\n{said}\n")
        shown = [self._shown(case, rows) for case in self.edits.cases[:SHOWN]]
        write_text(file(PAGE), evaluation_page(record, readable(summary), rows, shown))
        write_text(file(ROWS), (self.folder.path / self.folder.checkpoint).read_text("utf-8"))
        return [*TABLES, PAGE, ROWS, *(row["picture"] for row in rows if row["picture"])]

    def _shown(self, case: EditCase, rows: Sequence[dict]) -> ShownEdit:
        """An edit with its pictures: the source, the truth where there is one, and every method's result."""
        drawn = {"source": _thumbnail(case.picture)}
        if case.edited is not None:
            drawn["truth"] = _thumbnail(case.edited)
        results = {
            row["method"]: _thumbnail(row["picture"] and self.folder.path / row["picture"])
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
