"""Which values a setting takes, by the type that its dataclass declares."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

NOTHING = ("none", "null")  # what None is called


class UnfitError(ValueError):
    """A value is not of a setting's type; the message is what it must be."""


def kinds_of(config: type, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The declared type of every setting by its name, and by several those of settings within a setting."""
    hints, found = get_type_hints(config), {}
    for field in fields(config):
        kind, name = hints[field.name], (*prefix, field.name)
        found |= kinds_of(kind, name) if is_dataclass(kind) else {name: kind}
    return found


def fitted(kind: Any, value: Any) -> Any:
    """A value as its setting has it: tuples for lists, numbers for texts that are numbers, None for ``none``.

    Raises:
        UnfitError: If it is no value of this type.
    """
    if get_origin(kind) in (Union, UnionType):
        return _fitted_to_one(get_args(kind), value)
    if get_origin(kind) is tuple:
        return _fitted_to_tuple(kind, value)
    if get_origin(kind) in (dict, Mapping) or kind is dict:
        raise UnfitError("settable from Python alone")
    taken = _PLAIN[kind](value)
    if taken is None and kind is not NoneType:
        raise UnfitError(said_of(kind))
    return taken


def said_of(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(said_of(one) for one in sorted(get_args(kind), key=lambda one: one is NoneType))
    if get_origin(kind) is tuple:
        of, *more = get_args(kind)
        many = {int: "whole numbers", float: "numbers", str: "texts"}[of]
        return f"a list of {many}" if more == [...] else f"a list of {1 + len(more)} {many}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "none"}[
        kind
    ]


def _fitted_to_one(kinds: tuple, value: Any) -> Any:
    # none before text, and numbers before text
    for kind in sorted(kinds, key=lambda one: (one is not NoneType, one is str)):
        try:
            return fitted(kind, value)
        except UnfitError:
            continue
    raise UnfitError(said_of(Union[kinds]))  # noqa: UP007


def _fitted_to_tuple(kind: Any, value: Any) -> tuple:
    of, *more = get_args(kind)
    if isinstance(value, list | tuple):
        each = (of,) * len(value) if more == [...] else (of, *more)
        if len(each) == len(value):
            try:
                return tuple(map(fitted, each, value))
            except UnfitError:
                pass
    raise UnfitError(said_of(kind))


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        try:
            value = float(value)  # YAML has 1e-3 for a text
        except ValueError:
            return None
    return value if math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    value = _number(value)
    return int(value) if value is not None and value == int(value) else None


def _nothing(value: Any) -> None:
    if value is None or (isinstance(value, str) and value.lower() in NOTHING):
        return
    raise UnfitError("none")


_PLAIN = {
    int: _whole,
    float: _number,
    bool: lambda value: value if isinstance(value, bool) else None,
    str: lambda value: value if isinstance(value, str) else None,
    NoneType: _nothing,
}
_SAID = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "none"}
