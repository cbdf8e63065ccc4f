"""What a command takes, as a page can ask for it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

TEXT, TEXTS, SWITCH, CHOICE = "text", "texts", "switch", "choice"
PICTURE, PATH, PATHS = "picture", "path", "paths"
NOT_SAID = ""  # the choice of leaving a choice to the command
YES, NO = "yes", "no"


class Field(NamedTuple):
    """One option of a command.

    Attributes:
        name: Of the command's parameter.
        option: What is typed for it: ``--steps``, or PICTURE for an argument.
        about: Its help text.
        kind: How it is asked for.
        default: What the command takes where nothing is said; None where it decides itself.
        choices: Of a CHOICE.
        required: Whether the command cannot do without it.
        first: Whether it is shown before one asks for more.
    """

    name: str
    option: str
    about: str
    kind: str
    default: Any = None
    choices: tuple[str, ...] = ()
    required: bool = False
    first: bool = False

    @property
    def label(self) -> str:
        """The option without its dashes."""
        words = self.option.lstrip("-").replace("-", " ").lower()
        return words[:1].upper() + words[1:]

    def said(self, value: Any) -> Any:
        """What a value of the page says to the command; None where it says nothing that holds anyway.

        Where there may be several it is a list, a line each.
        """
        if isinstance(value, str):
            value = value.strip()
        if value is None or value == "":
            return None
        if self.kind in (TEXTS, PATHS):
            return [line.strip() for line in str(value).splitlines() if line.strip()] or None
        if self.kind == CHOICE and value in (YES, NO):
            return value == YES
        return None if str(value) == str(self.default) else value


class Form(NamedTuple):
    """A command.

    Attributes:
        command: What is typed: ``morph``.
        about: What it does, in a sentence.
        fields: What it takes, in the order in which it is asked.
        left_out: What it takes and the page does not ask, by option, and why.
        words: What to type behind the command for values by option.
        check: Refuses words that the command would refuse before it loads anything, by a ValueError.
        examples: Values by name of a parameter, of runs that need no model but those that are built in.
    """

    command: str
    about: str
    fields: Sequence[Field]
    left_out: Mapping[str, str]
    words: Callable[[Mapping[str, Any]], list[str]]
    check: Callable[[list[str]], None]
    examples: Sequence[Mapping[str, Any]] = ()

    def said(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """By option, what the page says to the command; ``values`` are by name of the parameter."""
        given = {field.option: field.said(values.get(field.name)) for field in self.fields}
        return {option: value for option, value in given.items() if value is not None}
