"""What every command says and how: progress, one sentence for bad input, a way on for what was stopped."""

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import NamedTuple, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typer.core import TyperCommand

from .origin import origin_of
from .typed import current, newer, options_of, require_usable, running, with_values
from .watched import note

BAD_INPUT, INTERRUPTED = 2, 130
WIDTH = 200  # columns, where there is no terminal
EVERY = 10.0  # seconds between two lines of progress, where there is no terminal


@contextmanager
def sentences(command: Callable | None = None, **settings: str) -> Iterator[dict[str, str]]:
    """Turn errors of input into one sentence on stderr and exit code 2.

    Args:
        command: Whose parameters the sentence calls what the user types.
        **settings: What the user types for names of settings and arguments further in.

    Yields:
        The same, to which more may be added.
    """
    # torch is imported by whoever raises BackendError, so this costs nothing on the way in
    from .._checks import renamed
    from ..kernels.dispatch import BackendError

    names = {**({} if command is None else options_of(command)), **settings}
    try:
        yield names
    except BrokenPipeError:
        raise  # whoever read the output has read enough: no error
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError, BackendError) as error:
        fail(renamed(str(error), names))


def screened(command: Callable) -> Callable:
    """The command, which is not begun with what :func:`require_usable` refuses."""

    @wraps(command)
    def run(**given) -> None:
        with sentences(command):
            require_usable(command, given)
        command(**given)

    return run


def add(app: typer.Typer, command: Callable, name: str | None = None, **settings) -> None:
    """Add a command to an app: screened, and with the older names of its options."""

    class WithOlderNames(TyperCommand):
        def parse_args(self, ctx, args: list[str]) -> list[str]:
            return super().parse_args(ctx, with_values(command, newer(command, args, warn)))

        def invoke(self, ctx):
            with running(ctx):
                return super().invoke(ctx)

    app.command(name, cls=WithOlderNames, **settings)(screened(command))


@contextmanager
def extras(extra: str = "") -> Iterator[None]:
    """Say how to get what is not installed: by ``extra``, or by the one that brings the missing module."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("geokernels"):
            raise
        from ..environment import extra_of

        extra = extra or extra_of(error.name or "")
        fail(f'this command needs {error.name}, which is not installed: pip install "geokernels[{extra}]"')
    except ImportError as error:
        # loaders name what they miss and the remedy
        fail(str(error))


def fail(sentence: str) -> NoReturn:
    """Say what is wrong with the input, and end."""
    warn(f"Error: {sentence}")
    raise typer.Exit(BAD_INPUT)


def stop(done: str, out: Path, again: str) -> NoReturn:
    """Say how far an interrupted run came and how to continue it, and end."""
    warn(f"Stopped {done}; {again} continues in {out}.")
    raise typer.Exit(INTERRUPTED)


def warn(sentence: str) -> None:
    """A line on stderr; where that cannot be written to, there is nowhere left to say it."""
    with suppress(OSError):
        Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, markup=False)


def took(record: Mapping, out: Path) -> str:
    """What the record of a run says of its time, and where its report is."""
    stages = [stage for stage, terms in record["terms"].items() if terms]
    speeds = {stage: speed_of(record["steps"][stage], record["seconds"][stage]) for stage in stages}
    named = [f"{stage} {speed}" if len(speeds) > 1 else speed for stage, speed in speeds.items()]
    said = ", ".join([f"{record['seconds']['total']:.1f} s", *named])
    return f"{said}. Report: {out / 'report.html'}"


def warn_of_words(model: str, unknown: Collection[str]) -> None:
    """Say which words of a prompt one of the world's models was not trained on, if there are any."""
    if unknown:
        from ..world import WORDS

        warn(
            f"Warning: {model} was not trained on {', '.join(sorted(unknown))} and cannot follow it. "
            f"It knows {', '.join(sorted(WORDS))}."
        )


def say(sentence: str) -> None:
    """A line on stdout."""
    console().print(sentence, markup=False)


def console() -> Console:
    """Where results go; where that is no terminal, no table is cut to a width."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH
    return _Output(highlight=False, soft_wrap=True, width=width)


class _Output(Console):
    """Standard output, which may be a file on a full disk."""

    def print(self, *objects, **how) -> None:
        try:
            super().print(*objects, **how)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(f"standard output cannot be written to: {error.strerror}") from error


class Seen(NamedTuple):
    """How far something has come, as it is shown."""

    done: int
    total: int | None  # None where nobody knows
    loss: str = ""
    speed: str = ""
    unit: str = "steps"


def steps_of(run, seconds: float) -> Seen:
    """How far a run of steps has come."""
    if not run.index:
        return Seen(0, run.steps)
    return Seen(run.index, run.steps, f"loss {run.loss:.3f}", speed_of(run.index, seconds))


def speed_of(steps: float, seconds: float) -> str:
    """Steps a second, or of slow ones seconds a step."""
    rate = steps / max(seconds, 1e-9)
    return f"{rate:.1f} steps/s" if rate >= 1 or not steps else f"{seconds / steps:.1f} s/step"


class Showing:
    """Shows how far a command has come: in a terminal by bars, elsewhere by a plain line now and then.

    Args:
        nouns: What stages are called, by their names; others are called by their names.
        look: How far a run has come after so many seconds.
        unit: What is counted where there are no stages.
    """

    def __init__(self, nouns: Mapping[str, str], look: Callable[..., Seen], unit: str) -> None:
        self.nouns, self.look, self.unit = nouns, look, unit
        self.last: tuple[str, Seen] | None = None
        self.told = ""
        to = console()
        self.show: _Bars | _Lines = _Bars(to) if to.is_interactive and to.file.isatty() else _Lines(to)

    def __call__(self, job, name: str, run, seconds: float) -> None:
        """Show a stage of a job; what :func:`geokernels.runs.loop.drive` calls after each step."""
        self.update(name, self.look(run, seconds), preview=None if job is None else job.preview)

    def update(
        self, name: str, seen: Seen, *, label: str | None = None, preview: Callable | None = None
    ) -> None:
        """Show how far the stage ``name`` has come, called ``label``; ``preview`` gives a picture."""
        self.last, called = (name, seen), label or self.nouns.get(name, name)
        self.show.update(name, called, seen)
        note(called, seen, preview)

    def tell(self, what: str, done: int = 0, total: int | None = None, unit: str | None = None) -> None:
        """Say what is done besides the stages, and how far it has come where that is known."""
        self.told = what
        if done:
            self.update(what, Seen(done, total, unit=unit or self.unit))
        else:
            self.show.update(what, what, Seen(0, total))
            note(what, Seen(0, total))

    def reached(self) -> str:
        """How far it was when it was interrupted."""
        if self.last is None:
            return f"before the first step, while {self.told}" if self.told else "before the first step"
        name, seen = self.last
        total = "" if seen.total is None else f" of {seen.total}"
        stage = f" of the {self.nouns[name]}" if name in self.nouns and len(self.nouns) > 1 else ""
        if seen.unit == "steps":
            return f"after step {seen.done}{total}{stage}"
        return f"after {seen.done}{total} {seen.unit}{stage}"


@contextmanager
def showing(
    out: Path | None = None,
    nouns: Mapping[str, str] | None = None,
    *,
    look: Callable[..., Seen] = steps_of,
    unit: str = "steps",
    again: str = "the same command with --resume",
) -> Iterator[Showing]:
    """Show how far a command has come; where it is interrupted, say how to continue it in ``out``, and end.

    Args:
        out: The folder that it can be continued in; None where there is nothing to continue.
        nouns: What its stages are called, by their names; of several, the sentence says which was reached.
        look: How far a run has come after so many seconds.
        unit: What is counted where there are no stages.
        again: What continues it.
    """
    shown = Showing(nouns or {}, look, unit)
    try:
        yield shown
    except KeyboardInterrupt:
        shown.show.close()
        if out is None:
            raise
        stop(shown.reached(), out, again)
    finally:
        shown.show.close()


def keep_origin(folder) -> None:
    """Have the record of a run say what was typed for the command that is running."""
    folder.origin = origin_of(current())._asdict()


def driven(job, out: Path, nouns: Mapping[str, str] | None = None, *, resume: bool, **how) -> dict:
    """Drive a job, and show how far it has come; see :func:`showing`. Gives its record."""
    from ..runs.loop import drive

    keep_origin(job.folder)
    with showing(out, nouns, **how) as show:
        return drive(job, resume=resume, on_step=show, tell=show.tell)


class _Bars:
    """A bar for each stage, in a terminal."""

    def __init__(self, to: Console) -> None:
        self.tasks: dict[str, TaskID] = {}
        self.passing = ""  # what has no measure, and goes when something else is shown
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]} {task.fields[speed]}"),
            TimeRemainingColumn(),
            console=to,
        )
        self.progress.start()

    def update(self, name: str, label: str, seen: Seen) -> None:
        if self.passing not in ("", name):
            self.progress.remove_task(self.tasks.pop(self.passing))
            self.passing = ""
        if not seen.done and seen.total is None:
            self.passing = name
        elif name == self.passing:
            self.passing = ""
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(label, total=seen.total, loss="", speed="")
        self.progress.update(
            self.tasks[name],
            description=label,
            completed=seen.done,
            total=seen.total,
            loss=seen.loss,
            speed=seen.speed,
        )

    def close(self) -> None:
        self.progress.stop()


class _Lines:
    """A plain line at most every :data:`EVERY` seconds, and one for the end of each stage."""

    def __init__(self, to: Console) -> None:
        self.to, self.said = to, time.monotonic()
        self.name, self.waiting = "", ""

    def update(self, name: str, label: str, seen: Seen) -> None:
        if name != self.name:
            self.close()
        total = "" if seen.total is None else f" of {seen.total}"
        parts = [f"{seen.done}{total} {seen.unit}", seen.loss, seen.speed]
        told = not seen.done and seen.total is None
        self.name, self.waiting = name, label if told else f"{label}: {', '.join(filter(None, parts))}"
        if time.monotonic() - self.said >= EVERY:
            self.close()

    def close(self) -> None:
        """Say what has not been said yet."""
        if self.waiting:
            with suppress(OSError):  # no run ends because its progress cannot be told
                self.to.print(self.waiting, markup=False)
            self.waiting, self.said = "", time.monotonic()
