"""``--config``, ``--set`` and ``--recipe``: every setting of every command, and what is said of mistakes."""

import tomllib
from contextlib import suppress
from dataclasses import fields

import pytest
import yaml
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli.setting_kinds import kinds_of
from geokernels.cli.settings import Settings
from geokernels.runs.held_folder import HeldFolder

TEXTS = ("--from", "a red circle", "--to", "a blue circle")


class Reached(BaseException):
    """Everything was taken: the folder would be claimed now."""


@pytest.fixture
def typed(inputs, tmp_path, monkeypatch):
    """Type a command; gives what it made of its settings, and its configs by section."""
    base = {
        "morph": ("morph", inputs / "picture.png", *TEXTS),
        "text2live": ("morph", inputs / "picture.png", *TEXTS, "--method", "text2live"),
        "adapt": ("adapt", *TEXTS, "--real", inputs / "picture.png"),
        "video": ("video", inputs / "clip", *TEXTS),
        "edit": ("edit", "--from", "a", "--to", "b"),
        "interpolate": ("interpolate", "--prompt", "a", "--prompt", "b"),
        "blend": ("blend", inputs / "picture.png", inputs / "picture.png", "--model", "world"),
    }
    seen, made = [], {}
    make = Settings.make

    def spy(settings, section, *args, **how):
        made[section] = make(settings, section, *args, **how)
        seen.append(settings)
        return made[section]

    def reach(self):
        raise Reached

    monkeypatch.setattr(Settings, "make", spy)
    monkeypatch.setattr(HeldFolder, "hold", reach)

    def run(command, *words):
        made.clear()
        out = tmp_path / "out"
        done = None
        with suppress(Reached):
            done = CliRunner().invoke(app, [str(w) for w in (*base[command], *words, "--out", out)])
        assert done is None, done.stderr
        return seen[-1], dict(made)

    return run


COMMANDS = ("morph", "text2live", "adapt", "video", "edit", "interpolate", "blend")


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def every_setting(settings, made):
    """All names of a command with the values of its configs."""
    for section, types in settings.types.items():
        for names in types:
            value = made[section]
            for name in names:
                value = getattr(value, name)
            yield section, names, plain(value)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_can_be_set(typed, command, tmp_path):
    settings, made = typed(command)
    for section, config in made.items():  # none is left out, in a config within a config neither
        assert {names[0] for names in settings.types[section]} == {field.name for field in fields(config)}
    every = [entry for entry in every_setting(settings, made) if entry[1] != ("recipe",)]
    assert len(every) > 10
    words = []
    for section, names, value in every:
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
        words += ["--set", f"{section}.{'.'.join(names)}={text}"]
    by_set, again = typed(command, *words)
    assert {key for key in by_set.typed if key[1:] != ("recipe",)} == {(s, *names) for s, names, _ in every}
    assert again == made

    tables: dict = {}
    for section, names, value in every:
        table = tables.setdefault(section, {})
        for name in names[:-1]:
            table = table.setdefault(name, {})
        table[names[-1]] = value
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(tables))
    by_file, again = typed(command, "--config", tmp_path / "all.yaml")
    assert by_file.of_file.keys() == {(s, *names) for s, names, _ in every}
    assert again == made
    (tmp_path / "all.toml").write_text(toml_of(tables))
    by_file, again = typed(command, "--config", tmp_path / "all.toml")
    assert again == made


def toml_of(tables, prefix=()):
    """Tables in TOML, which has no word for None: a text says it."""

    def said(value):
        if value is None:
            return '"none"'
        if isinstance(value, list):
            return f"[{', '.join(map(said, value))}]"
        return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)

    lines = [f"{name} = {said(value)}" for name, value in tables.items() if not isinstance(value, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{'.'.join((*prefix, name))}]", toml_of(table, (*prefix, name))]
    tomllib.loads("\n".join(lines))
    return "\n".join(lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_is_a_setting_is_one(typed, command):
    settings, _ = typed(command)
    module = __import__(f"geokernels.cli.{'morph' if command == 'text2live' else command}", fromlist=["x"])
    names = set(getattr(module, "OPTIONS", {})) | set(getattr(module, "OF_FIT", {}))
    known = {names[0] for types in settings.types.values() for names in types} | {"parametrisation"}
    assert names <= known


def test_the_nearer_word_counts(typed, tmp_path):
    """The recipe, then the file, then --set or an option of its own."""
    (tmp_path / "s.yaml").write_text("views: 4\nsteps: 5\nshift: 0.25\nlearning_rate: 1e-3\n")
    file = ("--config", tmp_path / "s.yaml")
    _, plain = typed("morph")
    _, by_file = typed("morph", *file)
    _, all_three = typed("morph", *file, "--set", "views=3", "--steps", 7)
    read = ("views", "steps", "shift", "learning_rate", "jitter")
    values = [[getattr(made["morph"], name) for name in read] for made in (by_file, all_three)]
    jitter = plain["morph"].jitter
    assert values == [[4, 5, 0.25, 1e-3, jitter], [3, 7, 0.25, 1e-3, jitter]]


def test_texts_need_no_quotes_and_numbers_are_numbers(typed):
    words = (
        "views=8.0",
        "scale=[0.8,1.2]",
        "learning_rate=none",
        "loss=directional",
        'templates=["a {}", "{}"]',
    )
    _, made = typed("morph", *[word for pair in words for word in ("--set", pair)])
    config = made["morph"]
    assert (config.views, config.scale, config.learning_rate) == (8, (0.8, 1.2), None)
    assert (config.loss, config.templates) == ("directional", ("a {}", "{}"))
    assert type(config.views) is int


def test_sections_of_a_command_with_several_configs(typed, tmp_path):
    (tmp_path / "v.toml").write_text("views = 3\n[atlas]\nsteps = 11\n[atlas.shape]\nwidth = 16\n")
    settings, made = typed(
        "video", "--config", tmp_path / "v.toml", "--set", "atlas.flow=0.5", "--samples", 9
    )
    assert (made["edit"].views, made["atlas"].steps, made["atlas"].shape.width) == (3, 11, 16)
    assert settings.values("atlas") | {"recipe": None} == {
        "steps": 11, "shape": {"width": 16}, "flow": 0.5, "samples": 9, "recipe": None,
    }  # fmt: skip


RECIPES = {
    (): ("world", "Settings: world, as every model is built in."),
    ("--recipe", "published"): ("published", "Settings: published, as --recipe says."),
    ("--set", "recipe=published"): ("published", "Settings: published, as --set recipe says."),
    ("--clip", "open_clip:ViT-B-32"): (
        "published",
        "Settings: published, as --clip is not built in; --recipe world for those of the rendered world.",
    ),
    ("--clip", "open_clip:ViT-B-32", "--recipe", "world"): ("world", "Settings: world, as --recipe says."),
}


@pytest.mark.parametrize("words", RECIPES, ids=" ".join)
@pytest.mark.parametrize("command", ["morph", "text2live", "adapt", "edit"])
def test_the_recipe_follows_the_models_unless_one_is_named(typed, command, words):
    settings, made = typed(command, *words)
    recipe, reason = RECIPES[words]
    assert settings.reason() == reason
    assert next(iter(made.values())).recipe == recipe


def test_a_start_is_searched_where_it_is_asked_for(typed):
    for command in ("morph", "text2live", "adapt"):
        guesses = [
            typed(command, "--recipe", recipe, *start)[1]["adapt" if command == "adapt" else "morph"].guess
            for recipe, start in (
                ("world", ()), ("published", ()), ("published", ("--start",)), ("world", ("--no-start",))
            )
        ]  # fmt: skip
        world, published, asked, none = guesses
        assert asked <= 1 < min(published, none)
        assert world in (None, asked)  # None: where the judge reads a scene


FILES = {
    "unknown.yaml": "views: 4\nveiws: 5\n",
    "type.yaml": "views: many\n",
    "range.yaml": "shift: 0.1\nviews: 0\n",
    "broken.yaml": "views: [1\n",
    "list.yaml": "- views\n",
    "twice.yaml": "views: 3\nviews: 4\n",
    "both.yaml": "views: 3\nmorph:\n  views: 4\n",
    "code.yaml": 'views: !!python/object/apply:os.system ["ls"]\n',
    "latin.yaml": b"\xff\xfe",
    "deep.yaml": "views: " + "[" * 5000,
    "type.toml": 'views = 4\n[morph]\nshift = "far"\n',
    "broken.toml": "views = \n",
    "section.toml": "[morfh]\nshift = 1\n",
    "settings.txt": "views: 4\n",
    "other.json": '{"schema": 99}',
}
CALLED = "morph --method clip-inversion"
MISTAKES = [
    ("--config unknown.yaml", f"--config unknown.yaml line 2: veiws is no setting of {CALLED}; near it"),
    ("--config type.yaml", "--config type.yaml line 1: views must be a whole number, got 'many'"),
    ("--config range.yaml", "--config range.yaml line 2: views must be a finite number above 0, got 0"),
    ("--config broken.yaml", "--config broken.yaml line 2 is no YAML: expected ',' or ']'"),
    ("--config list.yaml", "--config list.yaml line 1 must be NAME: VALUE, got a list"),
    ("--config twice.yaml", "--config twice.yaml line 2: views stands there twice, first in line 1"),
    ("--config both.yaml", "--config both.yaml line 3: morph.views is said twice"),
    ("--config code.yaml", "--config code.yaml line 1 is no YAML: could not determine a constructor"),
    ("--config latin.yaml", "--config must be text in UTF-8, latin.yaml is not"),
    ("--config deep.yaml", "--config must be a file of settings, deep.yaml is nested too deeply"),
    ("--config type.toml", "--config type.toml line 3: morph.shift must be a number, got 'far'"),
    ("--config broken.toml", "--config broken.toml is no TOML: Invalid value (at line 1, column 9)"),
    ("--config section.toml", f"--config section.toml line 2: morfh.shift is no setting of {CALLED}; "),
    ("--config settings.txt", "--config must be a file in YAML (.yaml, .yml) or TOML (.toml), or the "),
    ("--config other.json", "other.json must be a record of schema "),
    ("--config none.yaml", "--config must be an existing file, found none at none.yaml"),
    ("--set veiws=3", f"--set veiws is no setting of {CALLED}; near it"),
    ("--set zzz=3", f"--set zzz is no setting of {CALLED}, which has "),
    ("--set views", "--set must be NAME=VALUE, got 'views'"),
    ("--set views=", "--set must be NAME=VALUE, got 'views='"),
    ("--set views=x", "--set views must be a whole number, got 'x'"),
    ("--set views=1.5", "--set views must be a whole number, got '1.5'"),
    ("--set views=true", "--set views must be a whole number, got 'true'"),
    ("--set views=0", "--set views must be a finite number above 0, got 0"),
    ("--set shift=nan", "--set shift must be a number, got 'nan'"),
    ("--set scale=1", "--set scale must be a list of 2 numbers, got '1'"),
    ("--set scale=[1,2,3]", "--set scale must be a list of 2 numbers, got '[1,2,3]'"),
    ("--set templates=photo", "--set templates must be a list of texts, got 'photo'"),
    ("--set learning_rate=oops", "--set learning_rate must be a number or none, got 'oops'"),
    ("--set mixed_precision=maybe", "--set mixed_precision must be true or false, got 'maybe'"),
    ("--set loss=on", "--set loss must be one of geodesic, directional, global, spherical, got 'on'"),
    ("--set seed=3", "--set seed is no setting: it is the option --seed"),
    ("--set morph=3", "--set morph is a table of settings: morph."),
    ("--set views=3 --set views=4", "--set views must be given once"),
    ("--steps 3 --set steps=4", "--steps and --set steps are one setting: give one of them, not both"),
    ("--size 64 --set working_size=64", "--size and --set working_size are one setting: give one of them"),
    ("--recipe best", "--recipe must be one of published, world, got 'best'"),
    ("--set recipe=best", "--set recipe must be one of published, world, got 'best'"),
    ("--recipe world --set recipe=world", "--recipe and --set recipe are one setting"),
]  # fmt: skip


@pytest.mark.parametrize("words, said", MISTAKES, ids=[words for words, _ in MISTAKES])
def test_mistakes_are_named_before_anything_is_touched(words, said, inputs, tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HeldFolder, "hold", lambda self: pytest.fail("it was taken"))
    done = CliRunner().invoke(
        app, ["morph", str(inputs / "picture.png"), *TEXTS, "--out", "out", *words.split()]
    )
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"Error: {said}"), line
    assert not (tmp_path / "out").exists()


OTHERS = [
    ("video --set atlas.shape=3", "--set atlas.shape is a table of settings: shape.width, "),
    ("video --set atlas.shape.width=0", "--set atlas.shape.width must be a finite number above 0, got 0"),
    ("video --set atlas.samples=0", "--set atlas.samples must be a finite number above 0, got 0"),
    ("video --samples 5 --set atlas.samples=4", "--samples and --set atlas.samples are one setting"),
    ("adapt --set invert.steps=5", "--set invert.steps goes with --real, which is not given, got 5"),
    ("adapt --real-steps 5", "--real-steps goes with --real, which is not given, got 5"),
    ("adapt --set batch=9 --pool 4", "--set batch must be at most --pool, 4, got 9"),
    ("edit --set until=2", "--set until must be a share of the steps, at most 1, got 2"),
    ("edit --clip-weight 1 --set clip=2", "--clip-weight and --set clip are one setting"),
    ("interpolate --compare --set coupling=row", "--compare runs every coupling, got --set coupling with it"),
]


@pytest.mark.parametrize("words, said", OTHERS, ids=[words for words, _ in OTHERS])
def test_mistakes_in_other_commands(words, said, inputs, tmp_path):
    command, *more = words.split()
    base = {"video": (inputs / "clip", *TEXTS), "adapt": TEXTS, "edit": TEXTS}
    base |= {"interpolate": ("--prompt", "a", "--prompt", "b")}
    given = [command, *map(str, base[command]), "--out", str(tmp_path / "out"), *more]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith(f"Error: {said}"), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_setting_can_be_of_a_config_within_a_config():
    from geokernels.pipelines import AtlasFitConfig

    assert ("shape", "width") in kinds_of(AtlasFitConfig)
    assert ("shape",) not in kinds_of(AtlasFitConfig)
