"""What every command says and how: progress, one sentence for bad input, a way on for what was stopped."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .options import options_of, require_usable

BAD_INPUT, INTERRUPTED = 2, 130

# Of every command that reads pictures; the default is MOST_MEGAPIXELS.
MostMegapixels = Annotated[
    float, typer.Option("--most-megapixels", min=0, help="Refuse larger pictures, before they are decoded.")
]


@contextmanager
def sentences(command: Callable | None = None, **settings: str) -> Iterator[None]:
    """Turn errors of input into one sentence on stderr and exit code 2.

    Args:
        command: Whose parameters the sentence calls what the user types.
        **settings: What the user types for names of settings and arguments further in.
    """
    # torch is imported by whoever raises BackendError, so this costs nothing on the way in
    from .._checks import renamed
    from ..kernels.dispatch import BackendError

    try:
        yield
    except BrokenPipeError:
        raise  # whoever read the output has read enough: no error
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError, BackendError) as error:
        fail(renamed(str(error), {**({} if command is None else options_of(command)), **settings}))


def screened(command: Callable) -> Callable:
    """The command, which is not begun with what :func:`require_usable` refuses."""

    @wraps(command)
    def run(**given) -> None:
        with sentences(command):
            require_usable(command, given)
        command(**given)

    return run


@contextmanager
def extras() -> Iterator[None]:
    """Say how to get what is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("geokernels"):
            raise
        from ..environment import extra_of

        extra = extra_of(error.name or "")
        fail(f'this command needs {error.name}, which is not installed: pip install "geokernels[{extra}]"')
    except ImportError as error:
        # loaders name what they miss and the remedy
        fail(str(error))


def fail(sentence: str) -> NoReturn:
    """Say what is wrong with the input, and end."""
    warn(f"Error: {sentence}")
    raise typer.Exit(BAD_INPUT)


def stop(done: str, out: Path) -> NoReturn:
    """Say how far an interrupted run came and how to continue it, and end."""
    warn(f"Stopped after {done}; the same command with --resume continues in {out}.")
    raise typer.Exit(INTERRUPTED)


def warn(sentence: str) -> None:
    """A line on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, markup=False)


def warn_of_words(model: str, unknown: Collection[str]) -> None:
    """Say which words of a prompt one of the world's models has never read, if there are any."""
    if unknown:
        from ..world import WORDS

        warn(
            f"Warning: {model} has never read {', '.join(sorted(unknown))} and cannot follow it; "
            f"it knows {', '.join(sorted(WORDS))}."
        )


def say(sentence: str) -> None:
    """A line on stdout."""
    console().print(sentence, markup=False)


def console() -> Console:
    """Where results go."""
    return Console(highlight=False, soft_wrap=True)


def bar() -> Progress:
    """A progress bar whose tasks have the fields ``loss`` and ``speed``, either of which may be empty."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]} {task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console(),
    )


def device_of(wanted: str | None) -> str:
    """The device to run on; cuda where there is one and none is asked for."""
    import torch

    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {wanted!r}")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device must be one torch can use, got cuda, and torch sees no CUDA device")
    return wanted
