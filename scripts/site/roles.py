"""An extension of Griffe: roles of docstrings, such as ``:func:`name```, as links; examples as code.

A role whose name stands on no page of the reference is shown as code, without a link.
"""

import re

from griffe import Extension, GriffeLoader, Module, NameResolutionError, Object

ROLE = re.compile(r":(?:func|mod|class|meth|data|attr|exc):`(~?)([^`]+)`")

# Griffe reads the section by this name alone
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Roles(Extension):
    """Turns roles into references that need not resolve."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs) -> None:
        """Rewrite the docstrings of a package that has been read."""
        rewrite(pkg)


def rewrite(obj: Object) -> None:
    """Rewrite the docstrings of an object and of what it defines."""
    if obj.docstring:
        text = ROLE.sub(lambda role: link(obj, *role.groups()), obj.docstring.value)
        obj.docstring.value = EXAMPLE.sub("Examples:", text)
    for member in obj.members.values():
        if not member.is_alias:
            rewrite(member)


def link(obj: Object, short: str, name: str) -> str:
    """One role: the name as code, linked to the object that it means where it is written."""
    shown = name.rsplit(".", 1)[-1] if short else name.lstrip(".")
    first, dot, rest = name.partition(".")
    try:
        target = obj.resolve(first) + dot + rest
    except NameResolutionError:
        target = name.lstrip(".")
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'
