"""What the page asks is what the commands take: nothing is forgotten, nothing is otherwise."""

import inspect
import re

import pytest
import typer
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli.forms import COMMANDS, EXAMPLES, FIRST, OF_PAGE, forms
from geokernels.cli.origin import MAY_NAME_FILES
from geokernels.cli.typed import option_names
from geokernels.ui.forms import CHOICE, PATH, PATHS, PICTURE, SWITCH, TEXT, TEXTS
from geokernels.ui.served import EXAMPLES as PICTURES

FOUND = typer.main.get_command(app).commands
ALL = {form.command: form for form in forms()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_asked_or_left_out_with_a_reason(command):
    form, options = ALL[command], option_names(FOUND[command])
    assert set(form.left_out) == {options[name] for name in OF_PAGE}
    assert all(form.left_out.values())
    asked = {field.name: field.option for field in form.fields}
    assert asked | {name: options[name] for name in OF_PAGE} == options
    assert {*FIRST[command]} <= {field.name for field in form.fields if field.first}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_defaults_are_the_commands_own(command):
    parameters = {param.name: param for param in FOUND[command].params}
    declared = inspect.signature(inspect.unwrap(FOUND[command].callback)).parameters
    for field in ALL[command].fields:
        assert field.about == parameters[field.name].help
        assert field.required == (declared[field.name].default is inspect.Parameter.empty)
        assert field.default == (None if field.required else declared[field.name].default)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_choice_offers_the_words_that_the_command_takes(command, tmp_path):
    """Whatever is none is refused by a sentence that names all of them."""
    (tmp_path / "a.png").touch()
    needed = {"blend": ["--model=world"], "interpolate": ["--prompt=a", "--prompt=b"]}.get(
        command, ["--from=a", "--to=b"]
    )
    pictures = ["--", *[str(tmp_path / "a.png")] * sum(f.option.isupper() for f in ALL[command].fields)]
    choices = [f for f in ALL[command].fields if f.kind == CHOICE and set(f.choices) != {"yes", "no"}]
    assert choices
    for field in choices:
        typed = [command, f"--out={tmp_path / 'out'}", *needed, f"{field.option}=none-of-them", *pictures]
        said = CliRunner().invoke(app, typed)
        assert said.exit_code == 2
        words = re.search(rf"{field.option} must be (?:one of )?(.*), got 'none-of-them'", said.stderr)[1]
        assert tuple(re.split(", | or ", words)) == field.choices


def test_a_form_that_says_nothing_says_nothing():
    for form in ALL.values():
        untouched = {field.name: field.default for field in form.fields}
        assert form.said(untouched) == {}
        assert form.words({}) == ["--"]
        shown = {field.name: "" if field.default is None else str(field.default) for field in form.fields}
        assert form.said({**shown, **{f.name: f.default for f in form.fields if f.kind == SWITCH}}) == {}


def test_what_is_said_is_one_word_of_the_command_each(tmp_path):
    form, picture = ALL["morph"], tmp_path / "-a b.png"
    picture.touch()
    values = {"picture": str(picture), "source": "--to x; rm $(y)", "target": " <b> ", "start": "no"}
    said = form.said({**values, "steps": "3", "seed": "9223372036854775807", "sets": "views=2\n\n guess=2.0"})
    words = form.words(said)
    form.check(words)
    context = FOUND["morph"].make_context("morph", ["--out=x", *words])
    assert context.params["picture"] == picture
    assert (context.params["source"], context.params["target"]) == ("--to x; rm $(y)", "<b>")
    assert (context.params["start"], context.params["steps"]) == (False, 3)
    assert context.params["seed"] == 2**63 - 1
    assert list(context.params["sets"]) == ["views=2", "guess=2.0"]


def test_a_form_refuses_at_once_what_its_command_would():
    form = ALL["interpolate"]
    for values, sentence in (({}, "--prompt"), ({"prompt": "a\nb", "frames": "1"}, "--frames")):
        with pytest.raises(ValueError, match=sentence):
            form.check(form.words(form.said(values)))


def test_a_page_that_others_reach_asks_for_no_file_of_this_computer():
    for form in forms(shared=True):
        assert not {field.kind for field in form.fields} & {PATH, PATHS}
        assert not {field.name for field in form.fields} & {*MAY_NAME_FILES}
        whole = ALL[form.command]
        asked = {field.option for field in form.fields} | set(form.left_out)
        assert asked == {field.option for field in whole.fields} | set(whole.left_out)
    assert any(field.kind in (PATH, PATHS) for form in ALL.values() for field in form.fields)


def test_files_are_pictures_or_paths():
    kinds = {(form.command, field.name): field.kind for form in ALL.values() for field in form.fields}
    assert kinds["blend", "first"] == kinds["morph", "where"] == kinds["adapt", "real"] == PICTURE
    assert kinds["morph", "config_file"] == kinds["edit", "inversion"] == PATH
    assert kinds["adapt", "clip_weights"] == PATHS
    assert kinds["edit", "target"] == kinds["interpolate", "seed"] == TEXTS
    assert kinds["morph", "seed"] == TEXT
    said = {kind for kind, name in ((kinds[key], key[1]) for key in kinds) if "picture" in name}
    assert said == {PICTURE}


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_runs_that_need_no_other_model(command):
    form = ALL[command]
    assert form.examples == EXAMPLES[command] != ()
    for example in form.examples:
        pictures = {name for name, value in example.items() if str(value).endswith(".png")}
        assert {example[name] for name in pictures} <= set(PICTURES)
        assert set(example) <= {field.name for field in form.fields}
        form.check(form.words(form.said({**example, **dict.fromkeys(pictures, __file__)})))
        assert not set(example) & {"model", "clip", "decoder", "captioner"}
