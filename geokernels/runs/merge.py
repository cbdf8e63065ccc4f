"""Makes one result of the parts of a run: what one process would have left, to the bit.

By nature differ what tells the time and the memory: ``seconds`` of a result, of a job and of a stage,
``steps_per_second``, ``peak_memory_mib``; in ``machine`` stands the first part's.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .._files import read_json, replacing, sha256
from ..metrics.summary import summarise
from ..world import EditCase, read_edit_folder, write_edit_folder
from ..world.edit_folder import RECIPE, clear_edit_folder, require_edit_folder
from . import batch, evaluate
from .batch import JOBS, LOGS, BatchFolder, Course, described, write_pages
from .evaluate import EDITS, EvalFolder, contents_of, conventions_of, write_tables
from .folder import MADE
from .held_folder import HeldFolder
from .lines import BENCHMARK, Lines
from .parts import Part, options_of_all, require_alike, require_all
from .record import TOTAL
from .results import Results
from .shards import parse

AGAIN = "run the part again"
Tell = Callable[[int, int], None]  # how much is done, and of how much


def merge_evaluations(parts: Sequence[Part], folder: EvalFolder, tell: Tell) -> dict:
    """One evaluation of its parts, all of one run and in order; returns its record.

    Args:
        parts: See :func:`geokernels.runs.parts.require_parts`.
        folder: Claimed already.
        tell: Called after each result.

    Raises:
        ValueError: If a part is not what its record says, or the edits are not what they were.
    """
    record = _record(parts, evaluate.STAGE)
    keys, labels = record["edits"], list(record["methods"])
    size, total = record["config"][evaluate.STAGE]["batch"], len(keys) * len(labels)
    results = [_results(part, keys, labels, size) for part in parts]
    cases, recipe = _cases(parts[0])
    if recipe is not None:
        require_edit_folder(folder.path / EDITS, **recipe, replace=folder.replaces)
    replaces = folder.replaces
    with _begun(parts, folder, record, undo=lambda: clear_edit_folder(folder.path / EDITS)):
        if recipe is not None:
            if replaces:
                clear_edit_folder(folder.path / EDITS)
            write_edit_folder(folder.path / EDITS, folder.origin["options"]["--world"], **recipe)
        rows = Results(folder.lines)
        rows.expect(keys, labels)
        for batch_number, first in enumerate(range(0, len(keys), size)):
            at = batch_number % len(parts)
            for label in labels:
                for key in keys[first : first + size]:
                    row = results[at].get(key, label)
                    if row["picture"] is not None:
                        _copy(parts[at].folder / row["picture"], folder.file(row["picture"]))
                    rows.add(row)
                    tell(len(rows), total)
        record = {**record, "summary": summarise(rows, labels)}
        rows.begin()
        folder.end(record, write_tables(folder, record, rows, cases))
    return record


def merge_batches(parts: Sequence[Part], folder: BatchFolder, tell: Tell) -> dict:
    """One batch of its parts, all of one run and in order; returns its record.

    Args:
        parts: See :func:`geokernels.runs.parts.require_parts`.
        folder: Claimed already.
        tell: Called after each job.

    Raises:
        ValueError: If a part is not what its record says, or there are jobs in the folder.
    """
    for place in (JOBS, LOGS):
        if (folder.path / place).exists():
            raise ValueError(
                f"--out must hold no jobs, there is {folder.path / place}; choose another folder"
            )
    record = _record(parts, batch.STAGE)
    total = sum(len(part.record["jobs"]) for part in parts)
    lines = [_lines_by_job(part, total) for part in parts]
    courses = []

    def undo() -> None:
        for place in (JOBS, LOGS):
            shutil.rmtree(folder.path / place, ignore_errors=True)

    with _begun(parts, folder, record, undo=undo):
        for i in range(total):
            part, said = parts[i % len(parts)], lines[i % len(parts)]
            name = part.record["jobs"][i // len(parts)]["name"]
            _copy_job(name, BatchFolder(part.folder), folder)
            for line in said[name]:
                folder.lines.append(line)
            courses.append(Course(**said[name][-1]))
            tell(len(courses), total)
        record = {**record, "jobs": described(courses)}
        folder.end(record, write_pages(folder, record, courses))
    return record


def merge_lines(folders: Sequence[Path], out: Path, *, overwrite: bool) -> list[str]:
    """One table of lines of a benchmark for each that the parts have; returns their names.

    Raises:
        ValueError: If a part is missing, there twice, unfinished, or of other settings.
    """
    names = sorted({path.name for folder in folders for path in folder.glob("*.jsonl")})
    whole = {name: _whole([folder / name for folder in folders]) for name in names}
    held = HeldFolder(out)
    held.require_place()
    there = [name for name in names if (out / name).exists()]
    if there and not overwrite:
        raise ValueError(
            f"--out must hold no lines, {out} has {', '.join(there)}; choose another folder, "
            "or add --overwrite"
        )
    with held.hold():
        for name, contents in whole.items():
            Lines(held.file(name), BENCHMARK, AGAIN).replace(contents)
    return names


def are_lines(folders: Sequence[Path]) -> bool:
    """Whether these are parts of the lines of a benchmark, and of no run."""
    return all(any(folder.glob("*.jsonl")) and not any(folder.glob("*.json")) for folder in folders)


def _record(parts: Sequence[Part], stage: str) -> dict:
    """The record of the whole, in the order of its keys, but for what its results come to."""
    first, records = parts[0].record, [part.record for part in parts]
    steps = sum(record["steps"][stage] for record in records)
    seconds = {name: round(sum(r["seconds"][name] for r in records), 3) for name in first["seconds"]}
    made = {
        "shard": None,
        "seconds": seconds,
        "steps": {stage: steps},
        "steps_per_second": {stage: round(steps / max(seconds[stage], 1e-9), 2)},
        "peak_memory_mib": max(record["peak_memory_mib"] for record in records),
    }
    left_out = ("options", "inputs", "files")  # which stand behind, in the end
    return {name: made.get(name, value) for name, value in first.items() if name not in left_out}


@contextmanager
def _begun(
    parts: Sequence[Part],
    folder: EvalFolder | BatchFolder,
    record: Mapping,
    *,
    undo: Callable[[], None],
) -> Iterator[None]:
    """Begin the folder of the whole as a run does; where anything goes wrong, it is as if none had begun."""
    state = type(folder)(parts[0].folder).read_last()
    if folder.replaces:
        folder.replace()
    seconds = {name: value for name, value in record["seconds"].items() if name != TOTAL}
    made = {"facts": {**state["facts"], "shard": None}, "seconds": seconds}
    folder.origin = {"options": options_of_all(parts[0].record), "inputs": parts[0].record["inputs"]}
    folder.save({**state, **made}, made=state[MADE])
    try:
        folder.lines.replace([])
        folder.keep_last()
        yield
    except BaseException:
        with suppress(OSError):
            folder.clear()
            undo()
        raise


def _results(part: Part, keys: Sequence[str], labels: Sequence[str], size: int) -> Results:
    """The results of a part.

    Raises:
        ValueError: If they are not those of its edits by every method.
    """
    results = Results(EvalFolder(part.folder).lines)
    results.expect(keys, labels)
    try:
        for row in results.read():
            _require_picture(part.folder, row)
    except LookupError as error:
        raise ValueError(
            f"{part.folder} has a result of {error}, which its run did not have; {AGAIN}"
        ) from error
    own = [key for i, key in enumerate(keys) if part.shard.has(i // size)]
    lacking = [(key, label) for key in own for label in labels if not results.has(key, label)]
    if lacking or len(results) != len(own) * len(labels):
        what = f"lacks that of {lacking[0][0]} by {lacking[0][1]}" if lacking else "has another's too"
        raise ValueError(f"{part.folder} must have the results of part {part.shard}, it {what}; {AGAIN}")
    return results


def _require_picture(folder: Path, row: dict) -> None:
    name = row["picture"]
    if name is not None and not ((folder / name).is_file() and sha256(folder / name) == row["sha256"]):
        raise ValueError(f"{folder / name} is not what was written; {AGAIN}")


def _cases(part: Part) -> tuple[list[EditCase], dict | None]:
    """The edits of a run, and how those of the rendered world are drawn.

    Raises:
        ValueError: If they are not what they were.
    """
    options, record = options_of_all(part.record), part.record
    drawn = "--world" in options
    folder = part.folder / EDITS if drawn else Path(options["FOLDER"]).expanduser()
    kept = conventions_of(record).brackets == "kept"
    cases = read_edit_folder(folder, brackets=kept)[: len(record["edits"])]
    if [case.key for case in cases] != record["edits"] or contents_of(cases) != record["contents"]:
        raise ValueError(
            f"PARTS must be of edits that are as they were, those in {folder} have changed since"
        )
    return cases, read_json(folder / RECIPE) if drawn else None


def _copy_job(name: str, source: BatchFolder, folder: BatchFolder) -> None:
    """The folder of a job, and what it printed."""
    if source.job(name).is_dir():
        shutil.copytree(source.job(name), folder.file(f"{JOBS}/{name}"))
    if source.log(name).is_file():
        _copy(source.log(name), folder.file(f"{LOGS}/{name}.txt"))


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def _lines_by_job(part: Part, total: int) -> dict[str, list[dict]]:
    """What a part says of each of its jobs.

    Raises:
        ValueError: If it says nothing of one, or has not as many as it should.
    """
    jobs = part.record["jobs"]
    if len(jobs) != len(range(part.shard.index, total, part.shard.count)):
        raise ValueError(f"PARTS must be of one run, {part.folder} has {len(jobs)} of {total} jobs")
    found: dict[str, list[dict]] = {}
    for _, line in BatchFolder(part.folder).lines:
        found.setdefault(line["name"], []).append(line)
    lacking = [job["name"] for job in jobs if job["name"] not in found]
    if lacking:
        raise ValueError(
            f"{part.folder} must say how its jobs ended, it says nothing of {lacking[0]}; {AGAIN}"
        )
    return found


def _whole(paths: Sequence[Path]) -> Iterator[dict]:
    """The lines of a benchmark's table, header first and then by number, checked before the first is given.

    Raises:
        ValueError: As :func:`merge_lines`.
    """
    tables = [Lines(path, BENCHMARK, AGAIN) for path in paths]
    headers, places = [], {}
    for table in tables:
        if not table.path.is_file():
            raise ValueError(f"PARTS must have the same tables, {table.path} is missing")
        for number, (begins, line) in enumerate(table):
            if number == 0:
                headers.append(line)
            else:
                places[line.get("index"), table.path] = begins
        if len(headers) < 1 or "shard" not in headers[-1]:
            raise ValueError(f"PARTS must be parts of a table, made with --shard, {table.path} is none")
    shards = [parse(header["shard"]) for header in headers]
    require_all(zip(paths, shards))
    common = [{key: value for key, value in header.items() if key != "shard"} for header in headers]
    require_alike(list(zip(paths, common)))
    count = common[0].pop("tasks")
    order = sorted(zip(shards, tables), key=lambda pair: pair[0].index)
    for i in range(count):
        shard, table = order[i % len(order)]
        if (i, table.path) not in places:
            raise ValueError(
                f"{table.path} must have every line of part {shard}, it lacks {i}; finish it first"
            )
    if len(places) != count:
        raise ValueError(f"PARTS must have {count} lines in all, they have {len(places)}")

    def lines() -> Iterator[dict]:
        yield common[0]
        for i in range(count):
            table = order[i % len(order)][1]
            yield table.at(places[i, table.path])

    return lines()
