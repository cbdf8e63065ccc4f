"""Long work in parts: each finished task is a line of a file, and a run that was stopped continues there."""

import argparse
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from geokernels.runs.lines import BENCHMARK, Lines
from geokernels.runs.shards import WHOLE, Shard, shard_of

REMEDY = "remove the line, or choose another --out"


def lines_in(path: Path) -> Lines:
    """The lines of a file."""
    return Lines(path, BENCHMARK, REMEDY)


def finished(path: Path, header: dict) -> dict[int, dict]:
    """Tasks done already, by index; refuses a file of other settings, drops a line cut short.

    Raises:
        SystemExit: If the file is of other settings, or a whole line is not as it was written.
    """
    if not path.exists():
        return {}
    try:
        found = [content for _, content in lines_in(path)]
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if not found and line_of(header).encode().startswith(path.read_bytes()):
        path.unlink()
        return {}
    if not found:
        raise SystemExit(f"{path} is no file of lines; choose another --out")
    begun, *rows = found
    if begun != header:
        raise SystemExit(f"{path} was made with other settings; choose another --out")
    lines_in(path).mend()
    return {row["index"]: row for row in rows}


def line_of(content: dict) -> str:
    """A line of the file: the header, or what came of a task."""
    return lines_in(Path()).line_of(content).decode()


def add_shard(parser: argparse.ArgumentParser) -> None:
    """The option that names a part of the tasks."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="do part I of N, into a folder of its own in --out, for `geokernels merge`; "
        "as torchrun or a SLURM array say, else all",
    )


def shard_given(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Shard:
    """The part that was named."""
    try:
        return shard_of(args.shard)
    except ValueError as error:
        parser.error(str(error))


def work_through(
    path: Path,
    header: dict,
    tasks: Sequence[tuple],
    work: Callable[[tuple], dict],
    *,
    start: Callable,
    given: tuple = (),
    workers: int,
    shard: Shard = WHOLE,
) -> list[dict]:
    """Do the tasks that have no line yet; every line that there is, in order.

    Args:
        path: Of the lines.
        header: The first of them: what all tasks have in common, as JSON gives it back.
        tasks: The first of each is its index.
        work: A task to its line, which has its ``"index"``.
        start: Called with ``given`` once a process, before its first task.
        given: See ``start``.
        workers: Processes; one is this one.
        shard: Which of the tasks; the lines of a part, whose header says so, are in a folder of its own.
    """
    if shard != WHOLE:
        header = {**header, "shard": str(shard), "tasks": len(tasks)}
        tasks = [task for i, task in enumerate(tasks) if shard.has(i)]
        path = shard.folder(path.parent) / path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = finished(path, header)
    lines = lines_in(path)
    if not path.exists():
        lines.append(header)
    left = [task for task in tasks if task[0] not in rows]
    if left:
        for row in _rows_of(left, work, start, given, workers):
            rows[row["index"]] = row
            lines.append(row)
            print(f"\r{len(rows)} in {path.name}", end="", flush=True)
        print()
    return [rows[index] for index in sorted(rows)]


def _rows_of(
    tasks: Sequence[tuple], work: Callable, start: Callable, given: tuple, workers: int
) -> Iterator[dict]:
    """Lines as they are finished; a single worker is this process."""
    if workers == 1:
        start(*given)
        yield from map(work, tasks)
        return
    # a fresh interpreter each: forking after torch has started threads can hang
    with multiprocessing.get_context("spawn").Pool(workers, start, given) as pool:
        yield from pool.imap_unordered(work, tasks)
