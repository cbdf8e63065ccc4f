"""Long work in parts: each finished task is a line of a file, and a run that was stopped continues there."""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from geokernels._files import write_text
from geokernels._sealed import seal, unseal

HOW = {"kind": "benchmark", "remedy": "remove the line, or choose another --out"}


def finished(path: Path, header: dict) -> dict[int, dict]:
    """Tasks done already, by index; refuses a file of other settings, drops a line cut short.

    Raises:
        SystemExit: If the file is of other settings, or a whole line is not as it was written.
    """
    if not path.exists():
        return {}
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    if not whole and line_of(header).encode().startswith(data):
        path.unlink()
        return {}
    if not whole:
        raise SystemExit(f"{path} is no file of lines; choose another --out")
    try:
        begun, *rows = (_read(line, f"line {i + 1} of {path}") for i, line in enumerate(whole))
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if begun != header:
        raise SystemExit(f"{path} was made with other settings; choose another --out")
    if len(whole) < len(lines):
        write_text(path, b"".join(whole).decode())
    return {row["index"]: row for row in rows}


def line_of(content: dict) -> str:
    """A line of the file: the header, or what came of a task."""
    return json.dumps(seal(content, kind=HOW["kind"])) + "\n"


def _read(line: bytes, name: str) -> dict:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: {error}; {HOW['remedy']}") from error
    return unseal(content, name, **HOW)


def work_through(
    path: Path,
    header: dict,
    tasks: Sequence[tuple],
    work: Callable[[tuple], dict],
    *,
    start: Callable,
    given: tuple = (),
    workers: int,
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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = finished(path, header)
    left = [task for task in tasks if task[0] not in rows]
    if left:
        with path.open("a") as file:
            if file.tell() == 0:
                file.write(line_of(header))
                file.flush()
            for row in _rows_of(left, work, start, given, workers):
                rows[row["index"]] = row
                file.write(line_of(row))
                file.flush()
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
