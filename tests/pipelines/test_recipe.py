"""What depends on a recipe: which one is taken, what it fills, and what it leaves as it was given."""

import copy
import pickle
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest

from geokernels import pipelines
from geokernels.pipelines.recipe import OF_RECIPE, RecipeConfig

CONFIGS = [
    value
    for value in vars(pipelines).values()
    if isinstance(value, type) and issubclass(value, RecipeConfig) and value.recipes
]
OURS, THEIRS = SimpleNamespace(embedded=True), SimpleNamespace()


def test_every_pipeline_has_both_recipes():
    names = {config.__name__ for config in CONFIGS}
    assert names >= {"ClipInversionConfig", "LayerEditConfig", "VideoEditConfig", "AdaptationConfig"}
    own = {"OIGConfig": {"flow"}}  # beyond the two: for the edits of rectified flows, tuned by nobody else
    for config in CONFIGS:
        assert set(config.recipes) == {"world", "published"} | own.get(config.__name__, set())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("recipe", ["world", "published"])
def test_a_table_fills_what_is_left_open_and_nothing_else(config, recipe):
    assert set(config.recipes[recipe]) == set(config().left_open())
    filled = config(recipe=recipe)
    assert not filled.left_open()
    for name, value in config.recipes[recipe].items():
        assert getattr(filled, name) == value


@pytest.mark.parametrize("config", CONFIGS)
def test_tables_cannot_be_changed(config):
    with pytest.raises(TypeError):
        config.recipes["world"]["steps"] = 1


@pytest.mark.parametrize(
    ("models", "recipe"),
    [([OURS], "world"), ([OURS, OURS], "world"), ([THEIRS], "published"), ([OURS, THEIRS], "published")],
)
def test_models_choose_where_nobody_does(models, recipe):
    config = pipelines.ClipInversionConfig(steps=3)
    assert config.recipe is None
    assert config.settled(*models) == pipelines.ClipInversionConfig(recipe=recipe, steps=3)


def test_a_recipe_that_is_named_holds_for_any_model():
    config = pipelines.ClipInversionConfig(recipe="world")
    assert config.settled(THEIRS) is config


def test_what_is_given_goes_before_the_table_even_where_the_other_recipe_says_so():
    world = pipelines.ClipInversionConfig.recipes["world"]
    config = pipelines.ClipInversionConfig(hold=world["hold"]).settled(THEIRS)
    assert config.recipe == "published"
    assert config.hold == world["hold"] != pipelines.ClipInversionConfig.recipes["published"]["hold"]


def test_what_is_left_open_stays_open_in_copies():
    config = pipelines.ClipInversionConfig()
    for again in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), replace(config, steps=2)):
        assert again.views is OF_RECIPE
        assert again.settled(OURS).views == config.settled(OURS).views


class TestRefusals:
    def test_an_unknown_recipe(self):
        with pytest.raises(ValueError, match="recipe must be one of world, published, got 'paper'"):
            pipelines.ClipInversionConfig(recipe="paper")

    def test_a_setting_that_no_recipe_takes_at_once(self):
        with pytest.raises(ValueError, match="steps must be a finite number above 0, got 0"):
            pipelines.ClipInversionConfig(steps=0)

    def test_one_that_only_the_other_recipe_takes_when_the_models_are_known(self):
        screens = pipelines.LayerEditConfig.recipes["world"]["screen_views"]
        config = pipelines.LayerEditConfig(views=screens)
        config.settled(OURS)
        with pytest.raises(ValueError, match=f"screen_views must be at most views, {screens}"):
            config.settled(THEIRS)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_searched_start_belongs_to_the_world_alone(config):
    if "guess" in {field.name for field in fields(config)}:
        assert config(recipe="published").guess > 1
        assert (config(recipe="world").guess or 0.5) <= 1
