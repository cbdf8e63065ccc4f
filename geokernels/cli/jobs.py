"""The jobs of ``geokernels batch``: a line of a file each, read and checked before the first one runs.

No shell sees them: a value of a line is one word of a command, whatever stands in it.
"""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from .origin import OF_PLACE, words_of
from .typed import option_names, options_of, read

if TYPE_CHECKING:
    from ..runs.batch import Task

JSONL, CSV = (".jsonl", ".ndjson"), ".csv"
SUFFIXES = (*JSONL, CSV)  # of a file of jobs
COMMAND, NAME = "command", "name"  # columns with a meaning of their own
PLAIN = r"[A-Za-z0-9_][A-Za-z0-9_.=,-]{0,99}"  # of the name of a job, by which its folder is called
PLACE = Path("a folder of the batch's own")  # stands for where a job is written


class Line(NamedTuple):
    """A line of a file of jobs."""

    called: str  # "line 3 of jobs.csv"
    number: int
    values: Mapping[str, Any]  # by column


def read_jobs(path: Path, template: str | None, name: str | None) -> list[Task]:
    """The jobs in a file, each checked as far as its command can be without running it.

    Args:
        path: In JSONL or CSV.
        template: What is typed for a job, with columns in braces; None where columns are options.
        name: The column that names the jobs; None for ``name`` where there is one, or numbers of lines.

    Raises:
        ValueError: Names the first line and value that cannot be used.
    """
    from ..runs.batch import Task

    pattern = None if template is None else _pattern(template)
    tasks: dict[str, Line] = {}
    jobs = []
    for line in _lines(path):
        called = _name(line, name)
        if called.lower() in tasks:
            other = tasks[called.lower()].called
            raise ValueError(f"{line.called} must have a name of its own, {called} is that of {other}")
        tasks[called.lower()] = line  # on some drives A and a are one folder
        command, words = _words_of(line, pattern, name)
        _check(line, command, words)
        jobs.append(Task(called, tuple(command), tuple(words)))
    if not jobs:
        raise ValueError(f"JOBS must hold a job, {path} has no line")
    return jobs


def _lines(path: Path) -> Iterator[Line]:
    """The lines of a file; empty ones are none."""
    read = {**dict.fromkeys(JSONL, _of_jsonl), CSV: _of_csv}.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"JOBS must be a file in JSONL (.jsonl) or CSV (.csv), got {path}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from read(path, file)
    except UnicodeDecodeError as error:
        raise ValueError(f"JOBS must be text in UTF-8, {path} is not") from error


def _of_jsonl(path: Path, file) -> Iterator[Line]:
    for number, text in enumerate(file, 1):
        called = f"line {number} of {path.name}"
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{called} must be a JSON object: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{called} must be a JSON object, got {text.strip()[:60]}")
        yield Line(called, number, values)


def _of_csv(path: Path, file) -> Iterator[Line]:
    reader = csv.reader(file)
    try:
        head = [column.strip() for column in next(reader, [])]
        twice = [column for i, column in enumerate(head) if column in head[:i]]
        if twice or "" in head:
            found = f"{twice[0]} twice" if twice else "one without a name"
            raise ValueError(f"line 1 of {path.name} must name every column once, it has {found}")
        ended = reader.line_num
        for cells in reader:
            number, ended = ended + 1, reader.line_num
            called = f"line {number} of {path.name}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(head):
                raise ValueError(
                    f"{called} must have a value for each of {len(head)} columns, got {len(cells)}"
                )
            yield Line(called, number, dict(zip(head, cells)))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} of {path.name} is no CSV: {error}") from error


def _name(line: Line, column: str | None) -> str:
    """What a job is called: as its column says, or by the number of its line."""
    if column is None and NAME not in line.values:
        return f"{line.number:04}"
    if column is not None and column not in line.values:
        raise ValueError(
            f"--name must be a column, {line.called} has {', '.join(line.values)}, got {column!r}"
        )
    column = column or NAME
    called = _text(line, column)
    if not re.fullmatch(PLAIN, called):
        raise ValueError(
            f"{line.called}: {column} names a folder, and must be up to 100 letters, digits and _.=,- that "
            f"do not begin with a sign, got {called!r}"
        )
    return called


def _text(line: Line, column: str) -> str:
    """A value as one word of a command."""
    if column not in line.values:
        raise ValueError(f"{line.called} has no column {column!r}, it has {', '.join(line.values)}")
    value = line.values[column]
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ValueError(f"{line.called}: {column} must be a text or a number, got {json.dumps(value)[:60]}")
    return str(value)


def _pattern(template: str) -> list[list[tuple[str, str | None]]]:
    """The words of a template, each as texts and the columns behind them."""
    try:
        words = [
            [(text, column) for text, column, *_ in _parsed(template, word)] or [("", None)]
            for word in shlex.split(template)
        ]
    except ValueError as error:
        if str(error).startswith("--template"):
            raise
        raise ValueError(f"--template must be words with columns in braces: {error}") from error
    if not words:
        raise ValueError(f"--template must hold a command, got {template!r}")
    return words


def _parsed(template: str, word: str) -> Iterator[tuple]:
    for part in Formatter().parse(word):
        _, column, form, conversion = part
        if column is not None and (form or conversion or re.search(r"[.\[\]]", column) or not column):
            raise ValueError(f"--template must have names of columns alone in braces, got {template!r}")
        yield part


def _words_of(line: Line, pattern: list | None, name: str | None) -> tuple[list[str], list[str]]:
    """The words of a job's command, and those behind it."""
    if pattern is None:
        return _by_options(line, name)
    words = ["".join(text + (_text(line, c) if c else "") for text, c in word) for word in pattern]
    command, found = _command(f"{line.called}: --template", words)
    valued = {
        option
        for param in found.params
        if param.param_type_name == "option" and not getattr(param, "is_flag", False)
        for option in param.opts
    }
    rest, open_ = list(zip(words, pattern))[len(command) :], False
    for i, (word, parts) in enumerate(rest):
        before = rest[i - 1][0] if i else ""
        takes = before in valued
        filled = parts[0][1] is not None and not parts[0][0]
        if filled and word.startswith("-") and not takes and not open_:
            raise ValueError(
                f"{line.called}: {parts[0][1]} must not begin with a dash, by which it would be an option, "
                f"got {word!r}"
            )
        open_ |= word == "--" and not takes
    return command, [word for word, _ in rest]


def _by_options(line: Line, name: str | None) -> tuple[list[str], list[str]]:
    """The same of a line whose columns are options of its command."""
    command, found = _command(f"{line.called}: {COMMAND}", _text(line, COMMAND).split())
    names = option_names(found)
    given: dict[str, Any] = {}
    for column, value in line.values.items():
        if column in (COMMAND, name or NAME) or value is None or (isinstance(value, str) and not value):
            continue
        spelt = (column, f"--{column.replace('_', '-')}", column.upper())
        options = [option for option in spelt if option in names.values()]
        if not options:
            raise ValueError(f"{line.called}: {column} is no option of {' '.join(command)}")
        given[options[0]] = _value(line, column, found, options[0])
    return command, [word for word in words_of(found, given, []) if word]


def _value(line: Line, column: str, command, option: str) -> Any:
    """A value as :func:`geokernels.cli.origin.words_of` takes it."""
    param = next(p for p in command.params if option in (*p.opts, p.name.upper()))
    values = line.values[column]
    if getattr(param, "is_flag", False):
        said = {"true": True, "false": False}.get(str(values).lower())
        if said is None:
            raise ValueError(f"{line.called}: {column} must be true or false, got {values!r}")
        return said if said or param.secondary_opts else []
    if isinstance(values, list):
        return [_text(line._replace(values={column: value}), column) for value in values]
    return _text(line, column)


def _command(what: str, words: Sequence[str]) -> tuple[list[str], Any]:
    """The words that name a command which runs and can be continued, and the command."""
    from . import app

    found = typer.main.get_command(app)
    named: list[str] = []
    for word in words:
        if not hasattr(found, "commands") or word not in found.commands:
            break
        named.append(word)
        found = found.commands[word]
    if not {"out", "resume"} <= {param.name for param in getattr(found, "params", ())}:
        said = " ".join(words[: len(named) + 1]) if hasattr(found, "commands") else " ".join(named)
        raise ValueError(f"{what} must be one of {', '.join(runnable())}, got {said!r}")
    return named, found


def runnable() -> list[str]:
    """The commands that a batch can run: those that write to a folder, and go on where they were stopped."""
    from . import app

    def those(group, words: tuple[str, ...]) -> Iterator[str]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from those(command, (*words, name))
            elif {"out", "resume"} <= {param.name for param in command.params}:
                yield " ".join((*words, name))

    return list(those(typer.main.get_command(app), ()))


def _check(line: Line, command: Sequence[str], words: Sequence[str]) -> None:
    """Refuse what the command would refuse of its options, before it loads anything."""
    _, found = _command(line.called, command)
    function = inspect.unwrap(found.callback)
    try:
        context = read(found, " ".join(command), [f"--out={PLACE}", *words])
    except typer.Exit:  # of --help
        raise ValueError(f"{line.called} must be a run, got {shlex.join([*command, *words])}") from None
    except ValueError as error:
        raise ValueError(f"{line.called}: {error}") from error
    given = [name for name in OF_PLACE if context.params.get(name) not in (None, False, PLACE)]
    if given:
        raise ValueError(f"{line.called} must not have --{given[0]}, which the batch gives to each job")
    for name, values in context.params.items():
        for value in values if isinstance(values, list | tuple) else [values]:
            if isinstance(value, Path) and value.exists() and not os.access(value, os.R_OK):
                raise ValueError(f"{line.called}: {options_of(function)[name]} {value} cannot be read")
