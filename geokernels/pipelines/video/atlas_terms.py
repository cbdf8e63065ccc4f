"""The terms that a fit of an atlas minimises, of one sample of pixels."""

from torch import Tensor

from ...losses.atlas import colour_gradient_loss, flow_loss, hidden_colour_loss, mask_loss, rigidity_loss
from ...models.atlas import LayeredAtlas, Points
from .atlas_sample import BOTH, SHOWN, FitSample


def fit_terms(atlas: LayeredAtlas, sample: FitSample, *, flow_ways: str) -> dict[str, Tensor]:
    """Every term but global rigidity, before it is weighed.

    Args:
        atlas: What is fitted.
        sample: From ``draw_sample``, drawn with the same ``flow_ways``.
        flow_ways: With ``"both"``, the opacity learns from the flow, too: a layer whose map follows it pulls
            the opacity its way. With ``"forward"`` it is a constant there.
    """
    pixels, groups = _pixels(atlas), sample.groups
    flat = [atlas.place(layer, sample.points) for layer in range(2)]
    opacity = atlas.opacity(sample.points, flat[0]).unflatten(0, (groups, -1))  # (3 + W, n, 1)
    places = [place.unflatten(0, (groups, -1)) for place in flat]  # (3 + W, n, 2) a layer
    n = places[0].shape[1]
    over, under = (
        atlas.colour(i, place[: SHOWN * n]).unflatten(0, (SHOWN, -1)) for i, place in enumerate(flat)
    )
    mixed = under + opacity[:SHOWN] * (over - under)
    true, covered = sample.colours, opacity[0, :, 0]
    if flow_ways != BOTH:
        covered = covered.detach()
    return {
        "colour": (mixed - true).square().sum(-1).mean(),
        "gradient": sum(colour_gradient_loss(mixed[i] - mixed[0], true[i] - true[0]) for i in (1, 2)),
        "flow": sum(
            _flow(place, sample.sure * share, pixels) for place, share in zip(places, (covered, 1 - covered))
        ),
        "cover_flow": _flow(opacity, sample.sure),
        "rigidity": sum(
            rigidity_loss((place[1] - place[0]) * pixels, (place[2] - place[0]) * pixels) for place in places
        ),
        "sparsity": hidden_colour_loss(over[0], opacity[0]),
        "bootstrap": mask_loss(opacity[0], sample.masks),
    }


def global_rigidity(atlas: LayeredAtlas, layer: int, sample: FitSample, distance: float) -> Tensor:
    """How much the map of a layer stretches and shears between points that are ``distance`` pixels apart."""
    n = len(sample.masks)
    frame, here = sample.points.frame[:n], sample.points.place[:n]
    step = distance * 2 / max(atlas.size)
    place, left, above = (
        atlas.place(layer, Points(frame, here - here.new_tensor(offset)))
        for offset in ((0, 0), (step, 0), (0, step))
    )
    return rigidity_loss(*((place - other) * (_pixels(atlas) / distance) for other in (left, above)))


def _flow(values: Tensor, sure: Tensor, unit: float = 1.0) -> Tensor:
    """How far ``values`` (3 + W, n, D) change along the ways of the flow, in ``unit``."""
    return sum(flow_loss(values[0] * unit, values[SHOWN + i] * unit, weight) for i, weight in enumerate(sure))


def _pixels(atlas: LayeredAtlas) -> float:
    """Of a frame, in a unit of the atlas's plane."""
    return max(atlas.size) / 2 / atlas.shape.scale
