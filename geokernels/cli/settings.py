"""``--config``, ``--set`` and ``--recipe``: every setting of a command's pipelines, and where it was said.

A setting is what its recipe says, unless ``--config`` says otherwise, and that unless ``--set`` or an option
of its own does. Whatever cannot be taken is refused in one sentence that names what was typed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .console import say, warn
from .setting_kinds import UnfitError, fitted, kinds_of
from .settings_file import RECORD, parse_value, read_settings
from .typed import current, is_given, older_name, option_names

RECIPE, PUBLISHED, WORLD = "recipe", "published", "world"
NO_START = 2.0  # a cosine that nothing reaches


class Said(NamedTuple):
    """A value of a setting, and what a sentence calls it by."""

    value: Any
    name: str


class Settings:
    """What was said of the settings of the command that is running.

    Args:
        kinds: Configs by section: what ``--set SECTION.NAME=VALUE`` and a table of ``--config`` are called.
            Names without a section are of the first.
        options: Options that are short for a setting: parameters of the command by section and setting.
        built_in: By option, whether the models that it names are built in.
        open_sections: Those whose recipe is not chosen by the models.
        called: The command, for messages.
        own: The recipe of a kind of model that has one of its own, and why it is taken; None for others.
        recipes: Whether the command's ``--recipe`` is of these settings.

    Attributes:
        recipe: Of the command's configs.

    Raises:
        ValueError: For a setting that there is not, one that is said twice, or a value of another type.
    """

    def __init__(
        self,
        kinds: Mapping[str, type],
        options: Mapping[str, Mapping[str, str]],
        *,
        built_in: Mapping[str, bool],
        open_sections: tuple[str, ...] = (),
        called: str = "",
        own: tuple[str, str] | None = None,
        recipes: bool = True,
    ):
        self.context = current()
        self.kinds, self.called, self.built_in = kinds, called or self.context.info_name, built_in
        self.open_sections, self.recipes = open_sections, recipes
        self.types = {section: kinds_of(kind) for section, kind in kinds.items()}
        self.option_of = option_names(self.context.command)
        self.of_file = self._of_file(self.context.params.get("config_file"))
        self.typed = self._of_sets(self.context.params.get("sets") or ())
        for key, option in self._of_options(options).items():
            if key in self.typed:
                raise ValueError(
                    f"{option.name} and {self.typed[key].name} are one setting: give one of them, not both"
                )
            self.typed[key] = option
        self.given = self.of_file | self.typed
        self.recipe_said = self._recipe_said()
        self.own = own
        self.recipe = own[0] if own else WORLD if all(built_in.values()) else PUBLISHED
        if self.recipe_said is not None:
            self.recipe = self.recipe_said.value

    def tell(self) -> None:
        """Say which recipe was chosen, and why, where there is one."""
        if self.has_recipe:
            say(self.reason())

    def reason(self) -> str:
        """Which recipe was chosen, and why."""
        if (said := self.recipe_said) is not None:
            return f"Settings: {self.recipe}, as {said.name.partition(':')[0]} says."
        if self.own is not None:
            return f"Settings: {self.own[0]}, {self.own[1]}."
        other = next((option for option, own in self.built_in.items() if not own), None)
        if other is None:
            return "Settings: world, as every model is built in."
        other = f"as {other} is not built in; --recipe world for those of the rendered world"
        return f"Settings: published, {other}."

    def values(self, section: str) -> dict[str, Any]:
        """What was said of one config, and its recipe; of a config within it, a dictionary."""
        chosen = (RECIPE,) in self.types[section] and section not in self.open_sections
        values: dict[str, Any] = {RECIPE: self.recipe} if chosen else {}
        for (of, *names), said in self.given.items():
            if of == section:
                table = values
                for name in names[:-1]:
                    table = table.setdefault(name, {})
                if names != [RECIPE] or said.value is not None:
                    table[names[-1]] = said.value
        return values

    def make(self, section: str, make=None, **defaults: Any):
        """The config of a section.

        Args:
            section: Which.
            make: What makes it of its settings; None for its class.
            **defaults: Settings that this command has where nobody says.

        Raises:
            ValueError: If settings are out of range or do not go together; names what was typed.
        """
        try:
            return (make or self.kinds[section])(**{**defaults, **self.values(section)})
        except (ValueError, TypeError) as error:
            word, _, rest = str(error).partition(" ")
            said = self.names_of(section).get(word)
            if said is not None:
                raise type(error)(f"{said} {rest}") from error
            if (word,) not in self.types[section]:
                raise
            raise type(error)(f"{error}; {self._remedy(section, word, rest)}") from error

    def _remedy(self, section: str, word: str, rest: str) -> str:
        """What to type about a setting that nobody said, and that does not go with what was said."""
        of = "" if section == next(iter(self.kinds)) else f"{section}."
        only = re.match(r"must be (-?[\d.]+) ", rest)
        return f"add --set {of}{word}={only[1] if only else 'VALUE'}"

    @property
    def names(self) -> dict[str, str]:
        """What was typed for settings, by their names: of all sections, the first before others."""
        return {
            name: said for section in reversed(self.kinds) for name, said in self.names_of(section).items()
        }

    def names_of(self, section: str) -> dict[str, str]:
        """What was typed for settings of a config, by their names."""
        return {names[-1]: said.name for (of, *names), said in self.given.items() if of == section}

    def refuse(self, section: str, reason: str) -> None:
        """Refuse what was typed for a section that this run does not have; a file may say something of it."""
        others = {said.name for (of, *_), said in self.typed.items() if of != section}
        for (of, *_), said in self.typed.items():
            if of == section and said.name not in others:
                raise ValueError(f"{said.name} {reason}, got {said.value}")

    @property
    def has_recipe(self) -> bool:
        """Whether there is a recipe to choose."""
        return any((RECIPE,) in types for types in self.types.values())

    def _recipe_said(self) -> Said | None:
        from .._checks import require_choice

        if self.recipes and is_given(self.context, RECIPE) and not self.has_recipe:
            raise ValueError(f"--recipe leaves no choice in {self.called}, which has settings of one kind")
        said = self.given.get((next(iter(self.kinds)), RECIPE))
        if said is None or said.value is None:
            return None
        require_choice(said.name, said.value, (PUBLISHED, WORLD))
        return said

    def _of_file(self, path: Path | None) -> dict[tuple[str, ...], Said]:
        if path is None:
            return {}
        found: dict[tuple[str, ...], Said] = {}
        of_run = path.suffix.lower() == RECORD
        for entry in read_settings(path, self.context.info_name):
            if of_run and entry.names[-1] in self.option_of and not self._is_known(entry.names):
                continue  # an option, which the record of edit has among the settings
            line = "" if entry.line is None else f" line {entry.line}"
            for key in self._keys(entry.names, f"--config {path}{line}: "):
                if key in found:
                    raise ValueError(f"--config {path}{line}: {'.'.join(key)} is said twice")
                said = f"--config {path}{line}: {'.'.join(entry.names)}"
                found[key] = Said(self._fitted(key, entry.value, said), said)
        return found

    def _of_sets(self, sets) -> dict[tuple[str, ...], Said]:
        found: dict[tuple[str, ...], Said] = {}
        for pair in sets:
            name, equals, text = (part.strip() for part in pair.partition("="))
            if not (name and equals and text):
                raise ValueError(f"--set must be NAME=VALUE, got {pair!r}")
            for key in self._keys(tuple(name.split(".")), "--set "):
                said = f"--set {name}"
                if key in found:
                    raise ValueError(f"{said} must be given once, got {found[key].name} before")
                found[key] = Said(self._fitted(key, parse_value(text), said, text), said)
        return found

    def _of_options(self, options) -> dict[tuple[str, ...], Said]:
        every = [
            ((section, setting), parameter)
            for section, named in options.items()
            for setting, parameter in named.items()
        ]
        every += [((section, RECIPE), RECIPE) for section, types in self.types.items() if (RECIPE,) in types]
        found = {}
        for key, parameter in every:
            if key[1:] in self.types[key[0]] and is_given(self.context, parameter):
                said, value = self.option_of[parameter], self.context.params[parameter]
                if key[1:] == ("guess",):
                    value = _start_of(self.kinds[key[0]]) if value else NO_START
                found[key] = Said(self._fitted(key, value, said), said)
        return found

    def _is_known(self, names: tuple[str, ...]) -> bool:
        return any(names in types or names[1:] in types for types in self.types.values())

    def _keys(self, names: tuple[str, ...], where: str) -> Iterator[tuple[str, ...]]:
        """The settings that a name is of: one, or the recipe of every config."""
        if names == (RECIPE,):
            yield from ((section, RECIPE) for section, types in self.types.items() if names in types)
            return
        section, *rest = (
            names if names[0] in self.kinds and len(names) > 1 else (next(iter(self.kinds)), *names)
        )
        older = rest[0]
        rest[0] = getattr(self.kinds[section], "renamed", {}).get(older, older)
        if older != rest[0]:
            warn(older_name(f"{where}{older}", rest[0]))
        if tuple(rest) not in self.types[section]:
            raise ValueError(f"{where}{'.'.join(names)} {self._unknown(names, section, tuple(rest))}")
        yield (section, *rest)

    def _unknown(self, names: tuple[str, ...], section: str, rest: tuple[str, ...]) -> str:
        """What is said of a setting that there is not."""
        within = [".".join(known) for known in self.types[section] if known[: len(rest)] == rest]
        if within or names[0] in self.kinds:
            within = within or [".".join((section, *known)) for known in self.types[section]]
            if names in ((name,) for name in self.kinds) or within[0].startswith(f"{rest[0]}."):
                return f"is a table of settings: {', '.join(within)}"
        if option := self.option_of.get(names[-1]):
            return f"is no setting: it is the option {option}"
        known = {".".join(key): key for key in self.types[next(iter(self.kinds))]}
        known |= {f"{of}.{'.'.join(key)}": key for of, types in self.types.items() for key in types}
        near = difflib.get_close_matches(".".join(names), known, n=3, cutoff=0.6)
        if near:
            return f"is no setting of {self.called}; near it: {', '.join(near)}"
        return f"is no setting of {self.called}, which has {', '.join(self._listed())}"

    def _listed(self) -> Iterator[str]:
        first = next(iter(self.kinds))
        for section, types in self.types.items():
            for key in types:
                yield ".".join(key if section == first else (section, *key))

    def _fitted(self, key: tuple[str, ...], value: Any, said: str, text: str | None = None) -> Any:
        kind = self.types[key[0]][key[1:]]
        try:
            return fitted(kind, value)
        except UnfitError as unfit:
            if text is not None and text != value:
                try:  # a text that YAML takes for something else, such as no and on
                    return fitted(kind, text)
                except UnfitError:
                    pass
            raise ValueError(f"{said} must be {unfit}, got {value if text is None else text!r}") from None


def _start_of(kind: type) -> float:
    """How good a start must be where one is asked for: as good as in the world's recipe."""
    from ..pipelines.start.search import START

    guess = kind.recipes[WORLD]["guess"]
    return START if guess is None else guess


def same_names(names: str) -> dict[str, str]:
    """Options that are called as the settings that they are short for."""
    return {name: name for name in names.split()}
