"""The search for an outline finds the shape that is asked for, closes the ground, and knows when to stop."""

import pytest
import torch

from geokernels import world
from geokernels.pipelines.guidance.clip import Likeness
from geokernels.pipelines.start import reshape as reshaping
from geokernels.pipelines.start.effort import Effort
from geokernels.pipelines.start.guess import colour_centres
from geokernels.pipelines.start.reshape import Cutout, reshape
from geokernels.pipelines.start.silhouettes import (
    DIMENSIONS,
    draw_silhouettes,
    draw_simple_silhouettes,
    raggedness,
    signed_distance,
)

SHAPES = world.ATTRIBUTES["shape"]


def scene(shape: str, seed: int = 3) -> world.Scenes:
    """A large plain scene of one shape."""
    drawn = world.sample_scenes(64, generator=torch.Generator().manual_seed(seed))
    drawn.shape.fill_(SHAPES.index(shape))
    return drawn[((drawn.size == 1) & (drawn.texture == 0)).nonzero()[:1, 0]]


@pytest.fixture
def whole(monkeypatch):
    """Show pictures whole: a comparison of pixels must not move with the view."""
    monkeypatch.setattr(reshaping, "_look", lambda pictures, view: pictures)


def towards(target):
    """The share of the way to the target, in pixels: an encoder that cannot be fooled."""

    def likeness(pictures, source):
        share = 1 - (pictures - target).flatten(1).norm(dim=1) / (source - target).norm()
        return Likeness(share, share)

    return likeness


def constant(value, seen: list):
    """An encoder that finds everything equally good; remembers the sources it was shown."""

    def likeness(pictures, source):
        seen.append(source)
        return Likeness(*torch.full((2, len(pictures)), value))

    return likeness


def search(source, likeness, **changes):
    settings = {
        "size": 64,
        "area": 0.1,
        "least": -1.0,
        "most": 2352,
        "generator": torch.Generator().manual_seed(0),
    }
    return reshape(source, colour_centres(source[0]), likeness, **{**settings, **changes})


@pytest.mark.parametrize("wanted", SHAPES)
def test_the_judge_sees_the_shape_that_is_asked_for(wanted, whole):
    source = world.render(scene("square" if wanted != "square" else "moon"))
    guess = search(source, towards(world.render(scene(wanted))))
    picture = source * (1 - guess.opacity) + guess.colour * guess.opacity
    before, after = world.judge(source).names()[0], world.judge(picture).names()[0]
    assert after["shape"] == wanted
    assert {**after, "shape": None, "size": None} == {**before, "shape": None, "size": None}


def test_taking_the_object_out_leaves_the_ground():
    source = world.render(scene("star"))
    cutout = Cutout(source, colour_centres(source[0]))
    nothing = torch.zeros(1, DIMENSIONS)
    nothing[:, 0] = 1e-3
    verdict = world.judge(cutout.reshaped(nothing)).names()[0]
    assert verdict == {**dict.fromkeys(verdict), "background": world.judge(source).names()[0]["background"]}


def test_a_picture_without_an_object_has_no_guess():
    assert search(torch.full((1, 3, 64, 64), 0.5), constant(1.0, [])) is None


def test_the_search_is_given_up_when_the_first_outlines_are_far_from_what_is_asked():
    source = world.render(scene("star"))
    few, many = [], []
    assert search(source, constant(0.0, few), least=0.5) is None
    assert search(source, constant(0.0, many), least=-0.5) is not None
    assert len(many) > 2 * len(few)


def test_every_generation_is_seen_in_a_view_of_its_own():
    seen = []
    search(world.render(scene("star")), constant(0.0, seen))
    assert len({source.sum().item() for source in seen}) == 1 + reshaping.GENERATIONS + reshaping.VIEWS


def test_the_same_seed_gives_the_same_guess_at_the_size_of_the_source(whole):
    source = torch.nn.functional.interpolate(world.render(scene("star")), (96, 128))
    asked = towards(world.render(scene("heart")))
    first, second = search(source, asked), search(source, asked)
    assert first.colour.shape == (1, 3, 96, 128)
    assert first.opacity.shape == (1, 1, 96, 128)
    assert torch.equal(first.colour, second.colour)
    assert first.cosine == second.cosine


def disc(**parts: float) -> torch.Tensor:
    silhouette = torch.zeros(1, DIMENSIONS)
    silhouette[:, 0] = 1.0
    for name, value in parts.items():
        silhouette[:, ("scale", "disc", "x", "y").index(name)] = value
    return silhouette


def test_distances_to_a_disc_and_a_ring_are_exact():
    x, y = torch.tensor([[[0.0, 0.6, 1.0, 2.0]]]), torch.zeros(1, 1, 4)
    torch.testing.assert_close(
        signed_distance(disc(), x, y)[0, 0], torch.tensor([-1.0, -0.4, 0.0, 1.0]), atol=2e-3, rtol=0
    )
    ring = signed_distance(disc(disc=0.5), x, y)[0, 0]
    torch.testing.assert_close(ring, torch.tensor([0.5, -0.1, 0.0, 1.0]), atol=2e-3, rtol=0)


def test_the_distance_has_unit_slope_across_the_outline():
    silhouettes = draw_silhouettes(50, generator=torch.Generator().manual_seed(1))
    axis = torch.linspace(-1.6, 1.6, 161)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = signed_distance(silhouettes, x[None], y[None])
    down, across = torch.gradient(distance, spacing=0.02, dim=(1, 2))
    near = distance.abs() < 0.02
    slope = (down**2 + across**2).sqrt()[near]
    assert (slope - 1).abs().median() < 0.1


def test_simple_silhouettes_are_simpler_and_a_disc_is_simplest():
    chance = torch.Generator().manual_seed(2)
    ragged = raggedness(draw_silhouettes(300, generator=chance))
    simple = raggedness(draw_simple_silhouettes(300, generator=chance))
    assert raggedness(disc(disc=0.5)).item() == 0
    assert simple.max() <= 0.45 + 1e-6
    assert simple.mean() < ragged.mean() / 2


@pytest.mark.parametrize("most", [2352, 2351, 376, 150])
def test_no_more_outlines_are_shown_than_allowed(most):
    effort = Effort(constant(0.5, []), most, lambda *said, **counted: None)
    guess = search(world.render(scene("square")), effort, most=most)
    assert guess is not None or not effort.encodings.done
    assert (guess is None) == (most == 150)
    assert effort.encodings.done <= most
    assert effort.encodings.done == most or most != 2352
