"""Settings from a file: YAML, TOML or the ``run.json`` of an earlier run, each with its line."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

YAML, TOML, RECORD = (".yaml", ".yml"), ".toml", ".json"
MOST_BYTES = 2**24  # a file of settings is none of weights


class Entry(NamedTuple):
    """A value in a file.

    Attributes:
        names: From the outermost table to the setting.
        value: As the file has it, no table.
        line: Where its name stands, from 1; None where that is not known.
    """

    names: tuple[str, ...]
    value: Any
    line: int | None


def read_settings(path: Path, command: str) -> list[Entry]:
    """Every value in a file of settings, whatever it is called.

    Args:
        path: In YAML or TOML, or the record of a run.
        command: Whose run that must be.

    Raises:
        ValueError: If the file is of another kind, or cannot be read as what it is called.
    """
    if path.suffix.lower() not in (*YAML, TOML, RECORD):
        raise ValueError(
            "--config must be a file in YAML (.yaml, .yml) or TOML (.toml), or the run.json of a run, "
            f"got {path}"
        )
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"--config must be a file of settings, {path} has {path.stat().st_size} bytes")
    if path.suffix.lower() == RECORD:
        return list(_of_record(path, command))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"--config must be text in UTF-8, {path} is not") from error
    try:
        return list(_of_toml(path, text) if path.suffix.lower() == TOML else _of_yaml(path, text))
    except RecursionError as error:
        raise ValueError(f"--config must be a file of settings, {path} is nested too deeply") from error


def parse_value(text: str) -> Any:
    """What a text says in YAML: a number, true or false, a list; any other text is itself."""
    yaml = import_yaml()
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return value if isinstance(value, str | bool | int | float | list | None) else text


def import_yaml():
    """PyYAML, which is imported on use.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise ImportError('--set and --config need PyYAML: pip install "geokernels[morph]"') from error
    return yaml


def _of_yaml(path: Path, text: str) -> Iterator[Entry]:
    yaml = import_yaml()
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:  # an empty file
            return
        yield from _of_node(path, loader, root, ())
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" line {error.problem_mark.line + 1}"
        raise ValueError(f"--config {path}{line} is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"--config {path} is no YAML: {str(error).splitlines()[0]}") from error
    finally:
        loader.dispose()


def _of_node(path: Path, loader, node, names: tuple[str, ...]) -> Iterator[Entry]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else repr(node.value[:60])
        line = node.start_mark.line + 1
        raise ValueError(f"--config {path} line {line} must be NAME: VALUE, got {kind}")
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(loader.construct_object(key, deep=True)), key.start_mark.line + 1
        if name in seen:
            raise ValueError(
                f"--config {path} line {line}: {name} stands there twice, first in line {seen[name]}"
            )
        seen[name] = line
        if isinstance(value, yaml.MappingNode):
            yield from _of_node(path, loader, value, (*names, name))
        else:
            yield Entry((*names, name), loader.construct_object(value, deep=True), line)


def _of_toml(path: Path, text: str) -> Iterator[Entry]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"--config {path} is no TOML: {error}") from error
    lines = _lines_of_toml(text)
    for names, value in _flat(tables):
        yield Entry(names, value, lines.get(names))


def _lines_of_toml(text: str) -> dict[tuple[str, ...], int]:
    """The lines of names, which ``tomllib`` does not tell; of those in quotes or within a line, none."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for line, said in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.\s-]+?)\s*\]", said):
            table = tuple(re.split(r"\s*\.\s*", header[1]))
        elif named := re.match(r"\s*([\w.-]+)\s*=", said):
            found.setdefault((*table, *named[1].split(".")), line)
    return found


def _of_record(path: Path, command: str) -> Iterator[Entry]:
    """The settings of a run, by its stages."""
    from ..runs.record import INTERPOLATE, read_record

    record = read_record(path)
    if record["command"] != command:
        raise ValueError(f"--config must be of a run of {command}, {path} is of {record['command']}")
    stages = record["config"]
    if command == INTERPOLATE:  # a stage for each coupling, which are alike otherwise
        (_, settings), *more = stages.items()
        stages = {name: value for name, value in settings.items() if not (more and name == "coupling")}
    for names, value in _flat(stages):
        yield Entry(names, value, None)


def _flat(tables: Mapping, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*names, name))
        else:
            yield (*names, name), value
