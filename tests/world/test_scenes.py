"""Scenes and pictures repeat by seed, edits change one thing, captions say what is there."""

from dataclasses import fields, replace

import pytest
import torch

from geokernels.world import (
    ATTRIBUTES,
    PALETTE,
    TEMPLATES,
    WORDS,
    Scenes,
    caption,
    describe,
    edit,
    object_mask,
    render,
    sample_scenes,
)
from geokernels.world.captions import reading, understand
from geokernels.world.shapes import signed_distance


def scenes(n: int, seed: int = 0) -> Scenes:
    return sample_scenes(n, generator=torch.Generator().manual_seed(seed))


def test_the_same_seed_gives_the_same_pictures():
    assert torch.equal(render(scenes(40)), render(scenes(40)))
    assert not torch.equal(render(scenes(40)), render(scenes(40, seed=1)))


def test_a_scene_is_drawn_alike_in_any_batch():
    whole = scenes(40)
    assert torch.equal(render(whole)[35], render(whole[35])[0])
    assert torch.equal(render(whole)[10:20], render(whole[10:20]))


def test_every_value_occurs_and_colours_differ():
    some = scenes(2000)
    for attribute, values in ATTRIBUTES.items():
        share = getattr(some, attribute).bincount(minlength=len(values)) / len(some)
        assert (share - 1 / len(values)).abs().max() < 0.05
    assert (some.colour != some.background).all()


@pytest.mark.parametrize("size", [16, 64, 100, 256])
def test_pictures_are_in_range(size):
    pictures = render(scenes(24), size)
    assert pictures.shape == (24, 3, size, size)
    assert pictures.dtype == torch.float32
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_sizes_show_the_same_scene():
    some = scenes(24)
    small = torch.nn.functional.avg_pool2d(render(some, 256), 4)
    # grain differs from pixel to pixel; its deviation is 0.012
    assert (small - render(some, 64)).abs().mean() < 0.015


def test_no_scenes_and_tiny_pictures():
    assert render(scenes(0)).shape == (0, 3, 64, 64)
    assert object_mask(scenes(0)).shape == (0, 1, 64, 64)
    with pytest.raises(ValueError, match="size must be at least 16 pixels, got 8"):
        render(scenes(1), 8)
    with pytest.raises(ValueError, match="size must be at most 16384 pixels, got 1000"):
        render(scenes(1), 10**30)


def test_mask_is_where_the_object_is():
    some = scenes(64)
    blank = replace(
        some,
        light=torch.zeros(64, 2),
        object_jitter=torch.zeros(64, 3),
        background_jitter=torch.zeros(64, 3),
        texture=torch.zeros(64, dtype=torch.int64),
    )
    mask, pictures = object_mask(blank), render(blank)
    paint, ground = (PALETTE[c][..., None, None] for c in (blank.colour, blank.background))
    assert (pictures - (ground + mask * (paint - ground))).abs().max() < 0.07  # six deviations of the grain


def test_mask_covers_the_area_of_the_shape():
    some = scenes(64)
    # the area by a different route: the share of inside points on a lattice of the picture
    fine = object_mask(some, 256).mean((1, 2, 3))
    torch.testing.assert_close(object_mask(some, 64).mean((1, 2, 3)), fine, rtol=0.02, atol=0)
    circles = replace(some, shape=torch.zeros_like(some.shape))
    disc = torch.pi * (0.95 * circles.radius) ** 2
    torch.testing.assert_close(object_mask(circles, 256).mean((1, 2, 3)), disc, rtol=0.01, atol=0)


def test_distances_are_signed_and_exact():
    x, y = torch.tensor([0.0, 0.8, 0.0, 1.4]), torch.tensor([0.0, 0.0, -1.2, 0.0])
    circle, square = (signed_distance(torch.full((1,), i), x[None], y[None])[0] for i in (0, 1))
    torch.testing.assert_close(circle, torch.hypot(x, y) - 0.95, rtol=0, atol=5e-3)
    torch.testing.assert_close(square, torch.tensor([-0.8, 0.0, 0.4, 0.6]), rtol=0, atol=5e-3)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_edit_changes_one_attribute_only(attribute):
    before = scenes(300)
    after = edit(before, attribute, generator=torch.Generator().manual_seed(1))
    for field in fields(Scenes):
        same = getattr(before, field.name) == getattr(after, field.name)
        assert not same.any() if field.name == attribute else same.all()
    assert (after.colour != after.background).all()
    assert int(getattr(after, attribute).max()) < len(ATTRIBUTES[attribute])


def test_edited_pictures_differ_in_the_object_alone():
    before = scenes(20)
    after = edit(before, "colour", generator=torch.Generator().manual_seed(1))
    outside = object_mask(before) == 0
    assert torch.equal(render(before) * outside, render(after) * outside)


def test_captions():
    some = scenes(50)
    for names, bare, photo in zip(some.names(), caption(some), caption(some, "a photo of {}")):
        assert photo == f"a photo of {bare}"
        assert all(f" {value}" in f" {bare}" for value in names.values())
        assert set(bare.split()) <= WORDS
    assert describe({"size": "large", "texture": "striped", "colour": "red", "shape": "circle"}) == (
        "a large striped red circle"
    )
    assert describe({"shape": "star", "background": "orange"}) == "a star on an orange background"
    assert describe({"colour": "orange"}) == "an orange object"
    assert caption(some[0], attributes=("background",))[0].startswith("an object on a")
    assert all(set(t.replace("{}", "").split()) <= WORDS for t in TEMPLATES)


def test_what_a_caption_names_is_understood():
    some = scenes(100)
    for template in TEMPLATES:
        for kept in (("shape",), ("background", "size"), tuple(ATTRIBUTES)):
            wanted = [{a: names[a] for a in kept} for names in some.names()]
            assert [understand(c) for c in caption(some, template, attributes=kept)] == wanted
    assert understand("an object") == {}
    for other in ("a red zebra", "a star red", "two red stars", "a photo of a photo of a red star", ""):
        assert understand(other) is None


def test_a_reading_leaves_out_what_the_judge_cannot_name():
    seen = {"shape": None, "colour": "red", "background": "blue", "size": None, "texture": "plain"}
    assert reading(seen) == "a plain red object on a blue background"


def test_refusals():
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"attribute must be one of shape, .*, got 'mood'"):
        edit(scenes(1), "mood", generator=generator)
    with pytest.raises(ValueError, match="the world has no colour 'pink'"):
        describe({"colour": "pink"})
    with pytest.raises(ValueError, match=r"template must contain \{\} once, got 'a photo'"):
        caption(scenes(1), "a photo")
    with pytest.raises(ValueError, match=r"attributes must be among .*, got 'mood'"):
        caption(scenes(1), attributes=["mood"])
    with pytest.raises(ValueError, match="n must not be negative"):
        sample_scenes(-1, generator=generator)
