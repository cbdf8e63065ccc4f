"""Commands define what options they share once, and say the same of them; older names are still taken."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from geokernels.cli import app, options
from geokernels.cli.typed import newer, options_of

# what one command has by the same name for itself, and why
OWN = {
    ("bench", "--device"): "the two have other cases, and neither is chosen for the user",
    ("rerun", "--out"): "has a default by the run's name",
    ("ui", "--out"): "it has a default, and holds many runs",
    ("bench", "--resume"): "it continues a file of results, and has no --out",
    ("world train", "--out"): "it has a default by the model's name, and is where training continues",
    ("edit", "--from"): "may be left out, where a captioner describes the picture",
    ("edit", "--to"): "one picture may be edited by several texts",
    ("blend", "--clip"): "none by default",
    ("blend", "--frames"): "of the film",
    ("blend", "--model"): "none by default",
    ("blend", "--from"): "may be left out: a model need not be told what it draws",
    ("blend", "--to"): "the same, and one alone",
    ("blend", "--size"): "of what is drawn, and not of an edit",
    ("adapt", "--clip"): "may be given several times, and so may what belongs to it",
    ("adapt", "--clip-weights"): "one for each --clip",
    ("adapt", "--clip-tokenizer"): "one for each --clip",
    ("adapt", "--model"): "a generator",
    ("adapt", "--batch"): "of a step: it changes the result",
    ("world sample", "--model"): "a generator or a diffusion model, by what is drawn",
    ("world sample", "--size"): "of what is drawn, and not of an edit",
    ("world sample", "--frames"): "of a clip",
    ("interpolate", "--frames"): "of the path",
    ("world sample", "--prompt"): "may be left out",
    ("interpolate", "--prompt"): "two at least",
    ("interpolate", "--seed"): "may be one for each prompt",
    ("edit", "--negative"): "source or nothing",
    ("interpolate", "--negative"): "any text",
    ("morph", "--method"): "one of two ways to edit",
    ("tune", "--device"): "a GPU, by its number",
    ("tune", "--json"): "what later runs go by",
    ("eval", "--method"): "several methods with their settings",
}
# options of two meanings, each of which several commands share
TWICE = {"--steps": {"Steps", "SamplingSteps"}}


class Use(NamedTuple):
    command: str
    option: str
    hint: Any
    about: Any


def uses(group: typer.Typer = app, path: tuple[str, ...] = ()) -> Iterator[Use]:
    """Every option of every command."""
    for under in group.registered_groups:
        yield from uses(under.typer_instance, (*path, under.name))
    for info in group.registered_commands:
        named = options_of(info.callback)
        for name, hint in get_type_hints(info.callback, include_extras=True).items():
            for about in getattr(hint, "__metadata__", ()):
                if isinstance(about, typer.models.OptionInfo):
                    command = " ".join((*path, info.name or info.callback.__name__))
                    yield Use(command, named[name], hint, about)


USES = list(uses())
ALIASES = {
    id(alias.__metadata__[0]): name for name, alias in vars(options).items() if hasattr(alias, "__metadata__")
}


def test_what_commands_share_is_one_definition():
    shared = defaultdict(list)
    for use in USES:
        if (use.command, use.option) not in OWN:
            shared[use.option].append(use)
    for option, found in shared.items():
        if len(found) > 1:
            names = {ALIASES.get(id(use.about)) for use in found}
            assert None not in names, (option, found)
            assert names == TWICE.get(option, names), (option, found)
            assert len(names) == len(TWICE.get(option, "1")), (option, names)
            for use in found:
                assert use.hint == vars(options)[ALIASES[id(use.about)]], use
        else:
            assert id(found[0].about) not in ALIASES, f"{option} is shared by none but {found[0].command}"


def test_no_exception_is_left_over():
    assert set(OWN) <= {(use.command, use.option) for use in USES}
    assert not {(use.command, use.option) for use in USES if id(use.about) in ALIASES} & set(OWN)
    counted = defaultdict(int)
    for use in USES:
        counted[use.option] += 1
    assert all(counted[option] > 1 for _, option in OWN)


def test_help_is_shown_as_it_was_written():
    # typer reads what stands in brackets as markup, and leaves it out
    assert not [use for use in USES if "[" in use.about.help or not use.about.help.endswith(".")]


OLDER = [(use, old) for use in USES for old in getattr(use.about, "formerly", ())]


def test_the_older_names():
    assert {(use.command, old, use.option) for use, old in OLDER} == {
        ("adapt", "--generator", "--model"),
        ("blend", "--guidance", "--guidance-scale"),
        ("edit", "--guidance", "--guidance-scale"),
        ("interpolate", "--guidance", "--guidance-scale"),
        ("world sample", "--guidance", "--guidance-scale"),
    }


@pytest.mark.parametrize(("use", "old"), OLDER, ids=lambda value: getattr(value, "command", value))
def test_an_older_name_is_taken_and_says_the_new_one(use, old):
    command = use.command.split()
    for given in ((old, "5"), (f"{old}=5",)):
        # the wrong count of steps is said by its name: all before it was taken
        done = CliRunner().invoke(app, [*command, *given, "--steps", "0"])
        assert f"Warning: {old} is called {use.option} now;" in done.stderr
        assert "No such option" not in done.stderr
        assert done.exit_code == 2
    assert f"{old} " not in CliRunner().invoke(app, [*command, "--help"]).output


def test_what_looks_like_an_older_name_stays():
    def command(
        guidance_scale: options.GuidanceScale = None, truncate: options.Truncate = False, to: options.To = ""
    ):
        """A command."""

    told = []
    given = ["--to", "--guidance", "--truncate", "--guidance", "3", "--", "--guidance"]
    found = newer(command, given, told.append)
    assert found == ["--to", "--guidance", "--truncate", "--guidance-scale", "3", "--", "--guidance"]
    assert len(told) == 1
