"""A photograph stays one: nothing is searched for it, and what the edit does not touch stays to the bit."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.quality.photographs import COLLAGES, picture
from geokernels import world
from geokernels.models import load_clip
from geokernels.pipelines import ClipInversion, ClipInversionConfig
from geokernels.pipelines.morph.edit_network import FAINTEST
from geokernels.pipelines.morph.parametrisation import EditLayer, parametrise
from geokernels.pipelines.start.search import is_scene, least_cosine

TEXTS = "a red circle", "a blue square"
CHANCE = 3


def photograph(name: str, side: int = 96):
    pytest.importorskip("skimage.data")
    whole = picture(name)[None]
    return F.interpolate(whole, (side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "camera", "grass", *COLLAGES])
def test_no_photograph_is_taken_for_a_rendered_scene(name):
    assert not is_scene(photograph(name)[None])
    assert least_cosine(None, photograph(name)[None]) > 1
    assert least_cosine(0.5, photograph(name)[None]) == 0.5


def test_rendered_scenes_are_known_at_any_size():
    scenes = world.render(world.sample_scenes(40, generator=torch.Generator().manual_seed(CHANCE)))
    larger = F.interpolate(scenes, (150, 200), mode="bicubic", align_corners=False).clamp(0, 1)
    for pictures in (scenes, larger):
        assert sum(is_scene(one[None]) for one in pictures) >= 38
    assert least_cosine(None, scenes[:1]) == 0.5


@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_the_defaults_leave_a_photograph_a_photograph(name):
    metrics = pytest.importorskip("skimage.metrics")
    source = photograph(name)
    run = ClipInversion(source, [load_clip()], *TEXTS, generator=torch.Generator().manual_seed(0))
    run.finish()
    assert run.facts["config"]["recipe"] == "world"
    assert run.start is None
    planes = [x.permute(1, 2, 0).numpy() for x in (source, run.picture())]
    assert metrics.structural_similarity(*planes, channel_axis=2, data_range=1.0) >= 0.8


@pytest.mark.parametrize("opacity", [0.5, 0.01])
def test_a_layer_begins_about_as_opaque_as_it_is_told(opacity):
    source = photograph("coffee")[None]
    how = {"generator": torch.Generator().manual_seed(0), "opacity": opacity}
    shown = parametrise("layer", source, **how)(source)[1]["opacity"].item()
    assert opacity / 2 < shown < 2 * opacity


def test_where_the_edit_is_faint_the_picture_is_the_source_to_the_bit():
    source, full = photograph("coffee")[None], photograph("coffee", 200)[None]
    layer = EditLayer(source.shape[-2:], generator=torch.Generator().manual_seed(0), opacity=0.6 * FAINTEST)
    rendered = layer.render(source, full)
    same = (rendered == full).all(1).float().mean().item()
    assert 0.05 < same < 0.95
    assert (rendered - full).abs().max() < 0.1


def test_a_first_opacity_out_of_range_is_refused():
    for wrong in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match="first_opacity must lie between 0 and 1"):
            ClipInversionConfig(first_opacity=wrong)
