"""Recipes: the settings that a method was published with, and those chosen on the rendered world."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, ClassVar, Self

from .._checks import require_choice, settle
from .._renamed import Renamed

PUBLISHED, WORLD = "published", "world"


class _Open(Enum):
    """The value of a setting that is left to the recipe; it stays itself when it is copied."""

    OF_RECIPE = "of the recipe"

    def __repr__(self) -> str:
        return self.name


OF_RECIPE: Any = _Open.OF_RECIPE


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Renamed):
    """The base of a pipeline's settings, of which some have other values in each recipe.

    Those have :data:`OF_RECIPE` for a default, and their values stand in ``recipes``, one table a recipe.
    What is given goes before what a table says. A config that names its recipe is filled and checked at
    once. One that does not stays open until :meth:`settled` closes it by the models; what is given is
    checked by then as far as it can be: it is refused if no recipe could take it.

    Attributes:
        recipe: ``"published"``, as the method was published, with what is ours named in ``docs/recipes.md``;
            ``"world"``, as chosen on the rendered world. None for the world's where every model is an
            embedded one, and the published one otherwise.
    """

    recipe: str | None = None

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __post_init__(self):
        if self.recipe is None:
            self._require_some_recipe()
            return
        require_choice("recipe", self.recipe, tuple(self.recipes))
        for name in self.left_open():
            object.__setattr__(self, name, self.recipes[self.recipe][name])
        settle(self)
        self._check()

    def left_open(self) -> list[str]:
        """The settings that the recipe will fill."""
        return [f.name for f in fields(self) if getattr(self, f.name) is OF_RECIPE]

    def settled(self, *models: Any) -> Self:
        """The same with every setting filled: by its recipe, or, if it names none, by that for ``models``."""
        return self if self.recipe is not None else replace(self, recipe=recipe_for(*models))

    def _check(self) -> None:
        """Refuse settings that do not suit; called with all of them filled."""

    def _require_some_recipe(self) -> None:
        errors = []
        for name in self.recipes:
            try:
                replace(self, recipe=name)
            except (TypeError, ValueError) as error:
                errors.append(error)
        if errors and len(errors) == len(self.recipes):
            raise errors[0]


def recipe_for(*models: Any) -> str:
    """The recipe that suits models of any kind: those that the package carries say that they are embedded."""
    return WORLD if all(getattr(model, "embedded", False) for model in models) else PUBLISHED
