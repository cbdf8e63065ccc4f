"""Edits of the rendered world: which are drawn, how an edited picture is judged, how a share is written."""

import torch
from torch import Tensor

from geokernels import world
from geokernels.metrics import mean_interval, outside_psnr, score_edit

ATTRIBUTES = ("colour", "background")


def attribute_of(index: int, edits: int) -> str:
    """Colour and background in turn, then shapes."""
    return ATTRIBUTES[index % len(ATTRIBUTES)] if index < edits else "shape"


def draw(seed: int, index: int, *attributes: str):
    """The scene, and its twin with other values of these; the same for every loss and setting."""
    chance = torch.Generator().manual_seed(seed * 1_000_003 + index)
    scene = target = world.sample_scenes(1, generator=chance)
    for attribute in attributes:
        target = world.edit(target, attribute, generator=chance)
    return scene, target


def as_stored(picture: Tensor) -> Tensor:
    """What a file of 8 bits a channel would hold."""
    return (picture * 255).round() / 255


def judge_edit(edited: Tensor, scene, target, attribute: str) -> dict:
    """What the judge says of a picture that shall show ``target`` instead of ``scene``."""
    picture, wanted = as_stored(edited), target.names()[0]
    seen = world.judge(picture[None]).names()[0]
    mask = torch.maximum(world.object_mask(scene), world.object_mask(target))[0]
    if attribute == "background":
        mask = (mask < 1).float()
    return {
        "wanted": wanted,
        "seen": seen,
        **score_edit(wanted, seen, attribute)._asdict(),
        "psnr": round(min(outside_psnr(picture, world.render(scene)[0], mask), 99.0), 3),
    }


def mean_of(values: list[float], name: str) -> dict[str, float]:
    """A mean, called ``name``, of numbers from 0 to 1, with its 95% interval over edits."""
    interval = mean_interval(values)
    return {name: interval.mean, "low": max(0.0, interval.low), "high": min(1.0, interval.high)}


def percent(interval: dict[str, float]) -> str:
    """A share with its interval, in percent."""
    share, low, high = (100 * interval[key] for key in ("share", "low", "high"))
    return f"{share:.1f}% [{low:.1f}, {high:.1f}]"
