"""What nobody expected: a message that says that it is a bug, and a file that says what happened."""

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

FAULT = 70  # exit code; EX_SOFTWARE of sysexits.h
WHERE = "where you got geokernels from"  # as long as the project has no public tracker


def report(error: BaseException, arguments: Sequence[str]) -> str:
    """Keep the traceback in a file, and say in a sentence where it is and what to do with it.

    The file goes to ``--out``, where there is such a folder, or to the folder of temporary files. Where
    neither can be written to, the sentence holds the traceback.

    Args:
        error: What was raised.
        arguments: Of the command line.
    """
    said = " ".join(str(error).split())
    what = f"{type(error).__name__}: {said:.200}" if said else type(error).__name__
    ours = f"Error: this is a bug in geokernels ({what}), not a mistake in your input. Please report it with"
    text = _account(error, arguments)
    for folder in (_out(arguments), Path(tempfile.gettempdir())):
        if folder is not None and folder.is_dir():
            try:
                return f"{ours} {_write(folder, text)}, {WHERE}."
            except OSError:
                continue
    return f"{ours} what follows, {WHERE}.\n{text.strip()}"


def _out(arguments: Sequence[str]) -> Path | None:
    """What ``--out`` names."""
    for option, value in zip(arguments, [*arguments[1:], ""]):
        if option == "--out":
            return Path(value)
        if option.startswith("--out="):
            return Path(option.removeprefix("--out="))
    return None


def _write(folder: Path, text: str) -> Path:
    # made exclusively, under a name that nobody can foresee
    file, path = tempfile.mkstemp(prefix="geokernels-fault-", suffix=".txt", dir=folder)
    try:
        with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as opened:
            opened.write(text)
    except OSError:
        Path(path).unlink(missing_ok=True)
        raise
    return Path(path)


def _account(error: BaseException, arguments: Sequence[str]) -> str:
    """The command, the versions and the traceback."""
    try:
        from ..environment import versions

        known = "".join(f"{name} {version}\n" for name, version in versions().items())
    except Exception as another:  # what is reported must not depend on what may be broken
        known = f"versions: {another}\n"
    command = " ".join(["geokernels", *map(repr, arguments)])
    return f"{command}\n\npython {sys.version}\n{known}\n{''.join(traceback.format_exception(error))}"
