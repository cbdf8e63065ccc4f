"""Runs methods of editing over a folder of edits, and keeps every result, every failure and every picture."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from torch import Tensor

from .._files import sha256, write_csv, write_text
from ..media.pictures import png, read_picture, write_picture
from ..metrics import Conventions
from ..metrics.summary import COLUMNS, markdown, readable, summarise, summary_rows
from ..models.flow import latent_model
from ..pipelines.comparators import EditModels
from ..pipelines.run_state import require_same_facts
from ..report.evaluate import SHOWN, THUMB, ShownEdit, evaluation_page
from ..world import KINDS, EditCase
from .edit_batch import Batch, Contender, Plan
from .folder import texts
from .growing import GrowingFolder
from .loop import Gathering, Job, Tell
from .measures import Measures
from .own_files import PART
from .results import Results
from .shards import WHOLE, Shard

RESULTS, SUMMARY, TABLE, PAGE, PICTURES, EDITS = (
    "results.csv",
    "summary.csv",
    "summary.md",
    "report.html",
    "pictures",
    "edits",  # folder that edits of the rendered world are drawn into
)
TABLES = (RESULTS, SUMMARY, TABLE)
LINES = "results.jsonl"  # everything in results.csv, and each picture with its checksum, as it comes
LAST = "results.json"  # of a finished run, what it is continued from besides
LONGEST = 80  # letters of a name that a file is called by
HEAD = ("key", "kind", "attribute", "method", "seconds", "passes", "failure", *COLUMNS)
STAGE = "edits"
GROWING = ("methods", "edits", "contents")  # facts that a run may have more of than the one it continues


@dataclass
class EvalFolder(GrowingFolder):
    """Where an evaluation is written.

    Attributes:
        methods: Labels of the methods, where they are known.
    """

    methods: tuple[str, ...] = ()

    command = "eval"
    checkpoint = "results.partial.json"
    listed, last, tables = LINES, LAST, (*TABLES, PAGE)
    names = (*map(re.escape, (LINES, LAST, *TABLES, PAGE)), f"{PICTURES}/{PART}/{PART}\\.png")

    def writes(self) -> tuple[str, ...]:
        """Only the pictures of the run's own methods."""
        return (*self.names[:-1], *(f"{PICTURES}/{re.escape(safe(m))}/{PART}\\.png" for m in self.methods))

    def written(self) -> dict[str, str]:
        """The pictures of interrupted runs among them."""
        files = super().written()
        for row in self.lines.salvaged():
            files |= texts({str(row.get("picture")): row.get("sha256")})
        return files

    def write(self, row: dict, picture: Tensor | None) -> dict:
        """Write the picture of a row; returns the row with its file."""
        if picture is None:
            return {**row, "picture": None, "sha256": None}
        name = picture_of(row["method"], row["key"])
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
        self, plan: Plan, models: EditModels, measures: Measures, folder: EvalFolder, shard: Shard = WHOLE
    ):
        self.plan, self.shard = plan, shard
        self.models, self.measures, self.folder = models, measures, folder
        self.rows = Results(folder.lines)
        self.expect([])

    def expect(self, cases: Sequence[EditCase]) -> None:
        """Take the edits that there are, of this part and of the others."""
        self.cases = cases
        self.rows.expect([case.key for case in cases], [c.label for c in self.plan.contenders])
        batches = range(0, len(cases), self.plan.batch)
        self._firsts = [first for i, first in enumerate(batches) if self.shard.has(i)]
        self._batch: Batch | None = None
        self._at = 0  # batches before this one have every result

    @property
    def own(self) -> list[EditCase]:
        """The edits of this part."""
        return [case for first in self._firsts for case in self._cases_from(first)]

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
        return sum(len(self._cases_from(first)) for first in self._firsts) * len(self.plan.contenders)

    def step(self) -> None:
        """Make and measure the next edits by the next method."""
        first, contender = self._next()
        if self._batch is None or self._batch.first != first:
            self._batch = Batch(self.plan, self.models, self._cases_from(first), first)
        for row, picture in self._batch.edit(contender, self.measures):
            # an edit may have been made already, in a batch that ended before it was full
            if not self.rows.has(row["key"], contender.label):
                self.rows.add(self.folder.write(row, picture))

    def _cases_from(self, first: int) -> Sequence[EditCase]:
        return self.cases[first : first + self.plan.batch]

    def _next(self) -> tuple[int, Contender]:
        """The first batch, and the first method, that lacks a result."""
        for at in range(self._at, len(self._firsts)):
            cases = self._cases_from(self._firsts[at])
            for contender in self.plan.contenders:
                if not all(self.rows.has(case.key, contender.label) for case in cases):
                    self._at = at
                    return self._firsts[at], contender
        raise RuntimeError("all edits have been made")

    def state_dict(self) -> dict:
        """Nothing: every result is a line."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing is to be taken back; see :meth:`read_back`."""

    def read_back(self) -> None:
        """Take back the results.

        Raises:
            ValueError: If one's picture is not what was written.
        """
        self.folder.lines.mend()
        for row in self.rows.read():
            path = row["picture"] and self.folder.path / row["picture"]
            if path and not (path.is_file() and sha256(path) == row["sha256"]):
                raise ValueError(
                    f"the stopped run's {row['picture']} is not what it was; start again with --overwrite"
                )


class EvalJob(Job):
    """An evaluation.

    Args:
        plan: How edits are made.
        cases: Gives the edits, and makes them if they are to be drawn; called before the first step.
        models: What methods may use.
        measures: What edits are measured by.
        folder: Claimed already.
        facts: See :class:`geokernels.runs.loop.Job`.
        shard: Which batches of edits are made.
    """

    every = 100  # the results themselves are lines, written as they come

    def __init__(
        self,
        plan: Plan,
        cases: Callable[[], Sequence[EditCase]],
        models: EditModels,
        measures: Measures,
        folder: EvalFolder,
        *,
        facts: dict,
        shard: Shard = WHOLE,
    ):
        plan = replace(plan, contenders=[contender.settled(models) for contender in plan.contenders])
        methods = {
            c.label: {"title": c.method.title, "settings": dict(vars(c.settings))} for c in plan.contenders
        }
        run = {**facts, "methods": methods, "edits": [], "contents": contents_of([]), **measures.facts}
        super().__init__(
            folder,
            facts=json.loads(json.dumps({**run, "shard": shard.word})),
            config={STAGE: {**plan.config, **asdict(measures.conventions)}},
            device=str(latent_model(models.pipeline).device),
        )
        self.cases, self.earlier, self.continues = cases, self.facts, False
        self.edits = Edits(plan, models, measures, folder, shard)

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

    def load_state_dict(self, state: dict) -> None:
        """Go on from the lines that there are, once the edits are known."""
        self.continues = True

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
        self.edits.expect(cases)
        self.facts |= {"edits": keys, "contents": contents_of(cases)}
        if self.continues:
            with self.folder.as_written():
                self.edits.read_back()

    def stages(self) -> Iterator[tuple[str, Edits]]:
        """The edits."""
        yield STAGE, self.edits

    def record(self) -> dict:
        """What the results come to."""
        return {"summary": summarise(self.edits.rows, list(self.facts["methods"]))}

    def finish(self, record: dict) -> Collection[str]:
        """Write the tables and the page; the pictures are written already."""
        self.edits.rows.begin()
        self.folder.keep_last()
        return write_tables(self.folder, record, self.edits.rows, self.edits.own)


def write_tables(folder: EvalFolder, record: dict, rows: Results, cases: Sequence[EditCase]) -> list[str]:
    """Write what is made of results; returns the names of all files of an evaluation.

    Args:
        folder: That has the lines and the pictures.
        record: Everything in ``run.json`` but the checksums.
        rows: The results.
        cases: The edits that they are of.
    """
    file, summary = folder.file, record["summary"]
    write_csv(file(RESULTS), HEAD, ([row[name] for name in HEAD] for row in rows))
    write_csv(file(SUMMARY), *summary_rows(summary))
    write_text(file(TABLE), f"{markdown(summary)}\n{conventions_of(record).said()}\n")
    shown = [_shown(folder, case, record["methods"]) for case in cases[:SHOWN]]
    write_text(file(PAGE), evaluation_page(record, readable(summary), rows, shown))
    return [LINES, LAST, *TABLES, PAGE, *(row["picture"] for row in rows if row["picture"])]


def conventions_of(record: dict) -> Conventions:
    """By which an evaluation measured."""
    config = record["config"][STAGE]
    return Conventions(**{field.name: config[field.name] for field in fields(Conventions)})


def _shown(folder: EvalFolder, case: EditCase, methods: Iterable[str]) -> ShownEdit:
    """An edit with its pictures: the source, the truth where there is one, and every method's result."""
    drawn = {"source": _thumbnail(case.picture)}
    if case.edited is not None:
        drawn["truth"] = _thumbnail(case.edited)
    results = {method: _thumbnail(folder.path / picture_of(method, case.key)) for method in methods}
    return ShownEdit(case.key, case.source, case.target, KINDS[case.kind], drawn, results)


def _thumbnail(path: Path) -> bytes | None:
    """A picture's file, small; None where there is none that can be read."""
    try:
        return png(read_picture(path, most_megapixels=math.inf).rgb, longest=THUMB)
    except ValueError:
        return None


def picture_of(method: str, key: str) -> str:
    """The name of the picture of an edit by a method."""
    return f"{PICTURES}/{safe(method)}/{safe(key)}.png"


def contents_of(cases: Sequence[EditCase]) -> str:
    """Checksum of all that edits consist of; a picture that is not there is a part of it, too."""
    digest = hashlib.sha256()
    for case in cases:
        picture = sha256(case.picture) if case.picture.is_file() else None
        asked = [case.source, case.target, case.instruction, list(case.runs)]
        digest.update(json.dumps([picture, *asked]).encode())
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
