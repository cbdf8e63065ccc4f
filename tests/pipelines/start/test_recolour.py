"""The search for a first recolouring finds what was asked, keeps shading, and survives dull pictures."""

import pytest
import torch
import torch.nn.functional as F

from geokernels import world
from geokernels.pipelines.guidance.clip import Likeness
from geokernels.pipelines.start.effort import Effort
from geokernels.pipelines.start.guess import LEAST, MOST, colour_centres
from geokernels.pipelines.start.recolour import recolour

ALL = 224  # pictures, the source among them each time, of six unions and two refinements


def scenes(attribute: str, texture: str, count: int = 6):
    """Scenes of one texture, and the same after an edit of ``attribute``."""
    chance = torch.Generator().manual_seed(3)
    drawn = world.sample_scenes(40, generator=chance)
    wanted = world.ATTRIBUTES["texture"].index(texture)
    drawn = drawn[(drawn.texture == wanted).nonzero()[:count, 0]]
    return drawn, world.edit(drawn, attribute, generator=chance)


def towards(target):
    """The share of the way to the target, in pixels: an encoder that cannot be fooled."""

    def likeness(pictures, source):
        share = 1 - (pictures - target).flatten(1).norm(dim=1) / (source - target).norm()
        return Likeness(share, share)

    return likeness


def constant(value):
    """An encoder that finds everything equally good."""

    def likeness(pictures, source):
        return Likeness(*torch.full((2, len(pictures)), value))

    return likeness


def shown(source, guess):
    return source * (1 - guess.opacity) + guess.colour * guess.opacity


@pytest.mark.parametrize("attribute", ["colour", "background"])
@pytest.mark.parametrize("texture", ["plain", "striped", "dotted"])
def test_the_judge_sees_the_asked_colour_and_the_old_texture(attribute, texture):
    before, after = scenes(attribute, texture)
    sources, targets = world.render(before), world.render(after)
    guesses = [
        recolour(s[None], colour_centres(s), towards(t[None]), size=64, area=0.1, most=ALL)
        for s, t in zip(sources, targets, strict=True)
    ]
    pictures = torch.cat([shown(s[None], g) for s, g in zip(sources, guesses, strict=True)])
    seen, wanted = world.judge(pictures).names(), after.names()
    # one in six may miss: two neighbouring colours of the scene can share a region
    for name in (attribute, "texture"):
        right = [a[name] == b[name] for a, b in zip(seen, wanted, strict=True)]
        assert sum(right) >= len(right) - 1, (name, seen)
    assert min(guess.cosine for guess in guesses) > 0.5


def test_size_and_range_are_those_of_the_source():
    before, after = scenes("colour", "plain", count=1)
    source = F.interpolate(world.render(before), (50, 90))
    target = F.interpolate(world.render(after), (64, 64))
    guess = recolour(source, colour_centres(source[0]), towards(target), size=64, area=0.1, most=ALL)
    assert guess.colour.shape == (1, 3, 50, 90)
    assert guess.opacity.shape == (1, 1, 50, 90)
    assert LEAST <= guess.colour.min() <= guess.colour.max() <= MOST + 1e-6
    assert 0 <= guess.opacity.min() <= guess.opacity.max() <= 1 + 1e-6


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_picture_of_one_colour_gives_finite_numbers(level):
    source = torch.full((1, 3, 16, 16), level)
    guess = recolour(
        source,
        colour_centres(source[0]),
        constant(0.0),
        size=16,
        area=0.1,
        most=ALL,
    )
    assert torch.isfinite(guess.colour).all()
    assert torch.isfinite(guess.opacity).all()


def test_of_equal_recolourings_the_smaller_wins():
    source = torch.zeros(1, 3, 16, 16)
    source[..., :4] = 0.5
    guess = recolour(
        source,
        colour_centres(source[0]),
        constant(1.0),
        size=16,
        area=0.1,
        most=ALL,
    )
    assert guess.opacity.mean() < 0.5


@pytest.mark.parametrize(("most", "spent"), [(ALL + 50, ALL), (ALL, ALL), (ALL - 1, 196), (84, 84), (83, 0)])
def test_no_more_pictures_are_shown_than_allowed(most, spent):
    before, after = scenes("colour", "plain", count=1)
    source, told = world.render(before), []
    effort = Effort(towards(world.render(after)), most, lambda what, done, total, unit: told.append(done))
    guess = recolour(source, colour_centres(source[0]), effort, size=64, area=0.1, most=effort.left)
    assert effort.encodings.done == spent
    assert told == [28 * (i + 1) for i in range(spent // 28)]
    assert (guess is None) == (spent == 0)


def test_a_search_that_shows_more_than_it_may_is_stopped():
    effort = Effort(constant(0.0), 3, lambda *said, **counted: None)
    with pytest.raises(RuntimeError, match="at most 3 pictures"):
        effort(torch.zeros(3, 3, 8, 8), torch.zeros(1, 3, 8, 8))
