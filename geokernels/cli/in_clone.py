"""The other side of :mod:`geokernels.cli.clone`: calls ``main`` of a module, and ends as a command does.

``python -m geokernels.cli.in_clone CALLED EXTRA MODULE [OPTIONS]``
"""

import importlib
import signal
import sys

import typer

from . import ended
from .clone import PASSED_ON
from .console import extras, sentences


def main() -> None:
    """Call ``main`` of the module, which sees what the user typed and the options."""
    called, extra, module, *options = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    sys.argv = [called, *options]

    def run() -> None:
        try:
            with sentences(), extras(extra):
                importlib.import_module(module).main()
        except typer.Exit as end:
            sys.exit(end.exit_code)

    ended(run, options)


if __name__ == "__main__":
    main()
