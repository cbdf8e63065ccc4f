"""OIG's settings are the published ones for any model, and the world's where all are embedded."""

from types import SimpleNamespace

import pytest
import torch

from geokernels.pipelines.comparators import METHODS, EditModels
from geokernels.pipelines.edit.oig import OIGConfig, OIGEdit
from geokernels.pipelines.edit.source import draw_source
from geokernels.runs.edit_batch import Contender

OURS, THEIRS = SimpleNamespace(embedded=True), SimpleNamespace()


def test_the_published_one():
    config = OIGConfig(recipe="published")
    found = config.guidance_scale, config.clip, config.structure, config.margin, config.pull, config.step
    assert found == (5.0, 0.1, 1.0, 0.5, 2.5, 2.0)
    assert (config.gradient, config.negative, config.cycle, config.cycle_steps) == (
        "released",
        "source",
        0,
        None,
    )
    assert (config.every, config.until, config.decode_size) == (1, 1.0, None)


@pytest.mark.parametrize(
    "pipeline, encoder, recipe",
    [(OURS, OURS, "world"), (OURS, THEIRS, "published"), (THEIRS, OURS, "published")],
)
def test_an_evaluation_takes_the_one_of_its_models(pipeline, encoder, recipe):
    contender = Contender("oig", METHODS["oig"], OIGConfig(clip=0.2))
    settled = contender.settled(EditModels(pipeline, encoder))
    assert settled.label == "oig"
    assert settled.settings == OIGConfig(recipe=recipe, clip=0.2)
    swap = Contender("ddim_swap", METHODS["ddim_swap"], METHODS["ddim_swap"].settings())
    assert swap.settled(EditModels(pipeline, encoder)) is swap


def test_a_run_names_it(exact_pipeline, encoder):
    pytest.importorskip("diffusers")
    source = draw_source(exact_pipeline, ["a"], steps=2, generator=torch.Generator().manual_seed(0))
    config = OIGEdit(exact_pipeline, encoder, source, ["b"]).facts["config"]
    assert config["recipe"] == "published"
    assert config["gradient"] == "released"
