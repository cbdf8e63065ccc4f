"""The option ``--out``: where a command writes."""

from pathlib import Path
from typing import Any

import typer

from .console import fail


def out_option(about: str, name: str = "--out") -> Any:
    """A path to write to, which an empty text is not: it would mean the current folder."""

    def path_of(given: str) -> Path:
        if not str(given):
            fail(f"{name} must say where to write, got ''")
        return Path(given)

    return typer.Option(name, parser=path_of, metavar="PATH", help=about)
