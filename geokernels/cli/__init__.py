"""The command line: ``geokernels demo | blend | morph | video | adapt | edit | eval | batch | ...``.

One module a command. Models, picture files and reports load when a command runs, so that
``doctor`` needs torch alone. typer reads options from the parameters of a function: that is why
the functions of commands are longer than a screen. What several commands share is in ``options``.
"""

import sys
import warnings
from collections.abc import Callable, Sequence

import typer

from . import (
    adapt,
    batch,
    bench,
    blend,
    demo,
    doctor,
    edit,
    evaluate,
    faults,
    interpolate,
    merge,
    morph,
    rerun,
    tune,
    ui,
    video,
    world,
)
from .console import INTERRUPTED, add, warn

ABOUT = "Move pictures by text, with losses that follow the geometry inside CLIP."
app = typer.Typer(
    help=ABOUT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add(app, demo.demo)
add(app, blend.blend)
add(app, morph.morph)
add(app, video.video)
add(app, adapt.adapt)
add(app, edit.edit)
add(app, evaluate.evaluate, "eval")
add(app, interpolate.interpolate)
add(app, batch.batch)
add(app, merge.merge)
add(app, rerun.rerun)
add(app, ui.ui)
app.add_typer(world.app, name="world")
add(app, bench.bench)
add(app, tune.tune)
add(app, doctor.doctor)


def main() -> None:
    """Run the command line."""
    ended(app, sys.argv[1:])


def ended(run: Callable[[], object], arguments: Sequence[str]) -> None:
    """Run what was typed; what nobody expected is a fault of ours, and is said to be."""
    shown = warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        if category is UserWarning and file is None:
            warn(f"Warning: {message}")
        else:
            shown(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            run()
        except KeyboardInterrupt:  # before or after typer looks out for it
            sys.exit(INTERRUPTED)
        except Exception as error:
            warn(faults.report(error, arguments))
            sys.exit(faults.FAULT)
