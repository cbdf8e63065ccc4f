"""Names that settings and results had in the release before: they work for one more, and say the new one."""

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

Result = TypeVar("Result")


class _Renaming(type):
    """Takes settings by their old names, also where ``dataclasses.replace`` gives the new one beside."""

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        for old in settings.keys() & cls.renamed.keys():
            _warn(cls, old, cls.renamed[old])
            settings[cls.renamed[old]] = settings.pop(old)
        return super().__call__(*args, **settings)


class Renamed(metaclass=_Renaming):
    """Base of settings of which some had another name: ``class Settings(Renamed, old="new")``.

    Subclasses have the old names of their bases. To :func:`dataclasses.fields` there are the new ones only.
    """

    renamed: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **renamed: str):
        super().__init_subclass__()
        cls.renamed = {**cls.renamed, **renamed}

    def __getattr__(self, name: str) -> Any:
        # asked only where there is no attribute of this name
        if name not in type(self).renamed:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _warn(type(self), name, type(self).renamed[name])
        return getattr(self, type(self).renamed[name])


def renamed_fields(**renamed: str) -> Callable[[type[Result]], type[Result]]:
    """Let the fields of a named tuple also be read by their old names: ``@renamed_fields(old="new")``."""

    def decorate(result: type[Result]) -> type[Result]:
        for old, new in renamed.items():

            def read(self: Any, old: str = old, new: str = new) -> Any:
                _warn(result, old, new)
                return getattr(self, new)

            setattr(result, old, property(read, doc=f"The old name of :attr:`{new}`."))
        return result

    return decorate


def _warn(owner: type, old: str, new: str) -> None:
    warnings.warn(
        f"{owner.__name__}: {old} is called {new} now; the old name goes with the next release",
        DeprecationWarning,
        stacklevel=3,
    )
