"""Settings and results answer to the names they had a release ago, and say what they are called now."""

import warnings
from dataclasses import fields, replace

import pytest

from geokernels import pipelines
from geokernels._renamed import Renamed
from geokernels.pipelines.adapt.nada import AdaptationResult
from geokernels.pipelines.comparators import METHODS
from geokernels.pipelines.guidance.terms import GuidanceConfig

GUIDED = ("ClipInversionConfig", "LayerEditConfig", "VideoEditConfig", "AdaptationConfig")
SCALED = ("OIGConfig", "PromptInterpolationConfig")
SETTINGS = [
    (GuidanceConfig, "reach", "reach_weight"),
    *((getattr(pipelines, name), "reach", "reach_weight") for name in GUIDED),
    *((getattr(pipelines, name), "guidance", "guidance_scale") for name in SCALED),
    *(
        (METHODS[name].settings, "guidance", "guidance_scale")
        for name, method in METHODS.items()
        if name not in ("no_edit", "oig") and issubclass(method.settings, Renamed)
    ),
    (METHODS["instruct_pix2pix"].settings, "image_guidance", "image_guidance_scale"),
]
SAID = "{}: {} is called {} now; the old name goes with the next release"


@pytest.mark.parametrize("kind, old, new", SETTINGS, ids=lambda value: getattr(value, "__name__", value))
def test_a_setting_is_taken_read_and_replaced_by_its_old_name(kind, old, new):
    said = SAID.format(kind.__name__, old, new)
    with pytest.warns(DeprecationWarning, match=said) as heard:
        given = kind(**{old: 3.5})
    assert heard[0].filename == __file__
    assert given == kind(**{new: 3.5}) != kind()
    with pytest.warns(DeprecationWarning, match=said):
        assert getattr(given, old) == getattr(given, new) == 3.5
    with pytest.warns(DeprecationWarning, match=said):
        assert replace(given, **{old: 2.5}) == kind(**{new: 2.5})
    assert old not in {field.name for field in fields(kind)}


@pytest.mark.parametrize("kind, old, new", SETTINGS, ids=lambda value: getattr(value, "__name__", value))
def test_the_new_names_warn_of_nothing(kind, old, new):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(replace(kind(**{new: 3.5}), **{new: 2.5}), new) == 2.5
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(kind(), "nothing")  # noqa: B009
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        kind(nothing=1)


def test_a_result_is_read_by_its_old_name():
    result = AdaptationResult("a network", None, (), ())
    said = SAID.format("AdaptationResult", "generator", "model")
    with pytest.warns(DeprecationWarning, match=said) as heard:
        assert result.generator is result.model == "a network"
    assert heard[0].filename == __file__
    assert "generator" not in result._fields
