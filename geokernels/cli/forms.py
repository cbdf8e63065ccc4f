"""The forms of ``geokernels ui``: what commands take, read from their own declarations."""

from __future__ import annotations

import inspect
from functools import partial
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer

from ..ui.forms import CHOICE, NO, PATH, PATHS, PICTURE, SWITCH, TEXT, TEXTS, YES, Field, Form
from .interpolate import DISTANCES
from .jobs import PLACE
from .morph import METHODS
from .origin import MAY_NAME_FILES, words_of
from .pipelines import PRECISIONS
from .settings import PUBLISHED, WORLD
from .typed import described, option_names, read

COMMANDS = ("blend", "morph", "edit", "interpolate", "adapt")
# parameters that name a picture, which is handed in; other files and folders are on the computer already
PICTURES = ("picture", "first", "second", "mask_a", "mask_b", "where", "real")
# what is shown at once, besides what a command cannot do without
FIRST = {
    "blend": ("frames", "mp4"),
    "morph": ("method", "steps", "strength", "seed"),
    "edit": ("source", "picture", "steps", "clip_weight", "structure", "seed"),
    "interpolate": ("coupling", "compare", "frames", "steps", "seed"),
    "adapt": ("steps", "strength", "seed"),
}
OF_PAGE = {
    "out": "every run has a folder of its own",
    "resume": "a button continues a run",
    "overwrite": "no run replaces another",
}
ON_THIS_COMPUTER = "names files of this computer, which a page that others can reach does not ask for"

EXAMPLES: dict[str, tuple[dict[str, Any], ...]] = {
    "blend": ({"first": "circle.png", "second": "triangle.png", "frames": 9},),
    "morph": (
        {"picture": "circle.png", "source": "a red circle", "target": "a blue circle", "steps": 60},
        {"picture": "triangle.png", "source": "a green triangle", "target": "a red triangle", "steps": 60},
    ),
    "edit": (
        {"picture": "circle.png", "source": "a red circle", "target": "a blue circle", "steps": 20},
        {"source": "a red square", "target": "a yellow square\na green square", "steps": 20},
    ),
    "interpolate": ({"prompt": "a red circle\na blue square", "frames": 5, "steps": 20},),
    "adapt": ({"source": "a red circle", "target": "a blue circle", "steps": 20},),
}


def forms(*, shared: bool = False) -> list[Form]:
    """The forms of all commands that the page has.

    Args:
        shared: Whether others can reach the page: then what names files of this computer is left out.
    """
    from . import app

    commands = typer.main.get_command(app).commands
    return [_form(name, commands[name], shared) for name in COMMANDS]


def _form(name: str, command, shared: bool) -> Form:
    function, options = inspect.unwrap(command.callback), option_names(command)
    abouts, kinds, choices = dict(described(function)), get_type_hints(function), _choices(name)
    fields, left_out = [], {}
    for parameter, declared in inspect.signature(function).parameters.items():
        about, option = abouts[parameter], options[parameter]
        kind = _kind(parameter, kinds[parameter], about)
        if parameter in OF_PAGE:
            left_out[option] = OF_PAGE[parameter]
            continue
        if shared and (kind in (PATH, PATHS) or parameter in MAY_NAME_FILES):
            left_out[option] = ON_THIS_COMPUTER
            continue
        required = declared.default is inspect.Parameter.empty
        words = choices.get(parameter, ()) if kind == TEXT else (YES, NO) if kind == CHOICE else ()
        fields.append(
            Field(
                parameter,
                option,
                about.help or "",
                CHOICE if words else kind,
                None if required else declared.default,
                words,
                required,
                required or parameter in FIRST[name],
            )
        )
    order = {parameter: i for i, parameter in enumerate(FIRST[name])}
    fields.sort(key=lambda field: (not field.first, not field.required, order.get(field.name, 0)))
    said = command.help.partition("\n\n")[0]

    def check(words: list[str]) -> None:
        read(command, name, [f"--out={PLACE}", *words])

    words = partial(words_of, command, inputs=())
    return Form(name, said, fields, left_out, words, check, EXAMPLES[name])


def _kind(parameter: str, hint: Any, about: Any) -> str:
    """How a parameter is asked for, by the type that the command declares."""
    types = set(get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,))
    several = any(get_origin(kind) is list for kind in types)
    if getattr(about, "existing", None) is not None:
        return PATHS if several else PICTURE if parameter in PICTURES else PATH
    if several:
        return TEXTS
    if bool in types:
        return CHOICE if NoneType in types else SWITCH
    return TEXT


def _choices(command: str) -> dict[str, tuple[str, ...]]:
    """The words that a parameter may be: those that its command refuses others by."""
    from ..pipelines.adapt.nada_config import PARTS
    from ..pipelines.edit.flow_solvers import SOLVERS
    from ..pipelines.edit.oig_config import GRADIENTS, NEGATIVES
    from ..pipelines.guidance.terms import MAIN
    from ..pipelines.interpolate.couplings import COUPLINGS, ROWS
    from ..pipelines.morph.clip_inversion import PARAMETRISATIONS

    of_all = {"recipe": (PUBLISHED, WORLD), "dtype": PRECISIONS, "loss": MAIN, "solver": SOLVERS}
    of_one: dict[str, dict] = {
        "morph": {"method": METHODS, "parametrisation": PARAMETRISATIONS},
        "edit": {"negative": NEGATIVES, "gradient": GRADIENTS},
        "interpolate": {"coupling": COUPLINGS, "rows": ROWS, "distance": DISTANCES},
        "adapt": {"train": PARTS},
    }
    return {name: tuple(words) for name, words in (of_all | of_one.get(command, {})).items()}
