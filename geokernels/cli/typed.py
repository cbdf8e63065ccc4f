"""What a user types for each parameter of a command, and what no command takes."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import typer

_CONTEXTS: list[typer.Context] = []  # of commands that run, the innermost last
MAY_BE_EMPTY = ("negative", "only")  # texts that say something by saying nothing


@contextmanager
def running(context: typer.Context) -> Iterator[None]:
    """While a command runs, :func:`current` is its context: typer has no function of its own that says it."""
    _CONTEXTS.append(context)
    try:
        yield
    finally:
        _CONTEXTS.pop()


def current() -> typer.Context:
    """What was typed for the command that is running."""
    return _CONTEXTS[-1]


def is_given(context: typer.Context, parameter: str) -> bool:
    """Whether a parameter was typed."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def shard_given(given: str | None):
    """The part that ``--shard`` names, or the environment; the record says it as if it had been typed."""
    from ..runs.shards import shard_of

    part, context = shard_of(given), current()
    if part.word is not None:
        context.params["shard"] = part.word
        context.set_parameter_source("shard", context.get_parameter_source("out"))
    return part


def option_names(command) -> dict[str, str]:
    """What a user types for each parameter of a command of click's, like :func:`options_of`."""
    return {
        param.name: param.name.upper() if param.param_type_name == "argument" else max(param.opts, key=len)
        for param in command.params
    }


def require_usable(command: Callable, given: Mapping[str, Any]) -> None:
    """Refuse numbers that are none, text that is not UTF-8 and files that are not there.

    Raises:
        ValueError: Names the parameter.
    """
    from .._checks import require_text

    kinds = {name: getattr(about, "existing", None) for name, about in described(command)}
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
            if isinstance(value, str):
                require_text(name, value)
            if isinstance(value, str) and not value.strip() and name not in MAY_BE_EMPTY:
                raise ValueError(f"{name} must not be empty, got {value!r}")
            if isinstance(value, Path) and kinds.get(name):
                _require_existing(name, value, kinds[name])


def read(command, name: str, words: list[str]) -> typer.Context:
    """What words say to a command, which is not run; they are refused as it would refuse them.

    Args:
        command: Of click's.
        name: What it is called.
        words: What is typed behind it.

    Raises:
        ValueError: In the command's own words.
        typer.Exit: If they ask for help alone.
    """
    from .._checks import renamed

    try:
        context = command.make_context(name, list(words))
    except typer.Exit:
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise ValueError(error.format_message()) from error
    function = inspect.unwrap(command.callback)
    try:
        require_usable(function, context.params)
    except ValueError as error:
        raise ValueError(renamed(str(error), options_of(function))) from error
    return context


def _require_existing(name: str, path: Path, kind: str) -> None:
    there = {"file": path.is_file(), "folder": path.is_dir(), "file or folder": path.exists()}[kind]
    if not there:
        raise ValueError(f"{name} must be an existing {kind}, found none at {path}")


def described(command: Callable) -> Iterator[tuple[str, Any]]:
    """Each parameter of a command, and what was said of it to typer."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        for about in getattr(hint, "__metadata__", ()):
            yield name, about


def options_of(command: Callable) -> dict[str, str]:
    """What a user types for each parameter of a command: ``--option``, or NAME for an argument."""
    options = {}
    for name, about in described(command):
        # typer takes the first name for a default until the command is registered
        given = [about.default, *(about.param_decls or ())]
        named = [word for word in given if isinstance(word, str) and word.startswith("--")]
        own = named[0].partition("/")[0] if named else "--" + name.replace("_", "-")
        options[name] = name.upper() if isinstance(about, typer.models.ArgumentInfo) else own
    return options


def chosen(**options: Any) -> dict[str, Any]:
    """Those options that were given; the settings have defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def older_name(old: str, new: str) -> str:
    """What is said of an older name, which is still taken."""
    return f"Warning: {old} is called {new} now; the old name goes with the next release."


def require_with(option: str, value: Any, others: Mapping[str, Any]) -> None:
    """Refuse options that say nothing without another, if that is not given.

    Raises:
        ValueError: Names the first.
    """
    given = [name for name, other in others.items() if other is not None]
    if value is None and given:
        raise ValueError(f"{given[0]} goes with {option}, which is not given")


def with_values(command: Callable, arguments: Sequence[str]) -> list[str]:
    """What was typed, with the values of options that stand without one."""
    named = options_of(command)
    bare = {
        named[name]: about for name, about in described(command) if getattr(about, "bare", None) is not None
    }
    words, ended = list(arguments), False
    for i, word in enumerate(words):
        ended |= word == "--"
        if ended or word not in bare:
            continue
        about, following = bare[word], words[i + 1 :][:1]
        if not following or following[0].startswith("-") or following[0].lower().endswith(about.not_before):
            words[i] = f"{word}={about.bare}"
    return words


def newer(command: Callable, arguments: list[str], tell: Callable[[str], None]) -> list[str]:
    """What was typed, with the options of a command by their names of today.

    Args:
        command: Whose options they are.
        arguments: What was typed behind the command's name.
        tell: Called with a sentence for each older name.
    """
    named = options_of(command)
    older = {old: named[name] for name, about in described(command) for old in getattr(about, "formerly", ())}
    if not older:
        return arguments
    switches = {named[name] for name, hint in get_type_hints(command).items() if hint in (bool, bool | None)}
    switches |= {"--help", *(f"--no-{option[2:]}" for option in switches)}
    renamed, left = [], iter(arguments)
    for word in left:
        option, equals, value = word.partition("=")
        if option in older:
            tell(older_name(option, older[option]))
            option = older[option]
        renamed.append(option + equals + value)
        if word == "--":
            break
        if option.startswith("--") and not equals and option not in switches:
            renamed += itertools.islice(left, 1)  # its value, whatever it looks like
    return [*renamed, *left]
