"""Edits of pictures with every arm of ``benchmarks.quality.plasticity``: what is asked, done and judged.

An edit is a random scene of the rendered world and a pair of texts. What may be asked (``ASKS``):

  one        object colour and background in turn, as in ``benchmarks.quality.morph``
  two        two of object colour, background and texture
  three      all three of them
  order      as one, both texts in an order of words that the world's grammar does not have
  synonyms   as one, the asked colour under a name that the world's CLIP never met ("crimson" for "red")
"""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from geokernels import world
from geokernels.metrics import outside_psnr
from geokernels.models import ClipEncoder
from geokernels.pipelines import ClipInversion, ClipInversionConfig
from geokernels.pipelines.guidance.terms import MAIN
from geokernels.world import Scenes

from .edits import as_stored, attribute_of, draw
from .quick_clip import quick_clip

PAIRS = (("colour", "background"), ("colour", "texture"), ("background", "texture"))
TRIPLE = ("colour", "background", "texture")
SYNONYMS = {
    "red": "crimson", "orange": "tangerine", "yellow": "golden", "green": "emerald",
    "cyan": "turquoise", "blue": "navy", "purple": "violet", "white": "ivory",
}  # fmt: skip

_encoder: ClipEncoder | None = None  # of a process


class Case(NamedTuple):
    """One edit: what there is, what is asked, and in which words."""

    scene: Scenes
    target: Scenes
    asked: tuple[str, ...]
    texts: tuple[str, str]


def start_worker() -> None:
    """Load the model once a process."""
    global _encoder
    torch.set_num_threads(1)
    _encoder = quick_clip()


def case(seed: int, index: int, ask: str) -> Case:
    """The edit of that number; the same for every arm and strength."""
    asked = {"two": PAIRS[index % 3], "three": TRIPLE}.get(ask, (attribute_of(index, index + 1),))
    scene, target = draw(seed, index, *asked)
    before, after = scene.names()[0], target.names()[0]
    if ask == "order":
        return Case(scene, target, asked, (_reordered(before), _reordered(after)))
    words = world.describe(after)
    if ask == "synonyms":
        words = _with_articles(re.sub(rf"\b{after[asked[0]]}\b", SYNONYMS[after[asked[0]]], words))
    return Case(scene, target, asked, (world.describe(before), words))


def _reordered(names: dict[str, str]) -> str:
    words = "a {size} {texture} {shape} of {colour} on a background of {background}"
    return words.format(**names)


def _with_articles(words: str) -> str:
    return re.sub(r"\ban? (?=(\w))", lambda found: "an " if found[1] in "aeiou" else "a ", words)


def judged(picture: Tensor, case: Case) -> dict[str, float]:
    """Shares of the asked attributes reached and of the others kept; whether all are right."""
    stored, wanted = as_stored(picture), case.target.names()[0]
    seen = world.judge(stored[None]).names()[0]
    asked = [seen[name] == wanted[name] for name in case.asked]
    others = [seen[name] == wanted[name] for name in wanted if name not in case.asked]
    found = {"reached": sum(asked) / len(asked), "kept": sum(others) / len(others)}
    found["right"] = float(all(asked) and all(others))
    mask = world.object_mask(case.scene)[0]
    if case.asked == ("background",):
        mask = (mask < 1).float()
    if len(case.asked) == 1:  # of more, no pixel is to stay
        psnr = outside_psnr(stored, world.render(case.scene)[0], mask)
        found["psnr"] = round(min(psnr, 99.0), 3)
    return found


def _look(run: ClipInversion, case: Case) -> dict[str, float]:
    return judged(run.picture(), case)


def settings(base: ClipInversionConfig, arm: dict, factor: float) -> ClipInversionConfig:
    """``base`` as an arm has it, with every weight that pulls towards the text ``factor`` times as large."""
    config = replace(base, **arm)
    strength = factor * config.weight(MAIN[config.loss])
    return replace(config, strength=strength, reach_weight=factor * config.reach_weight)


def readings(
    run, steps: tuple[int, ...], read: Callable[[], dict], lost: dict | None = None
) -> dict[str, dict]:
    """What ``read`` says of a run after each of so many steps.

    Where ``lost`` is given, it is said from the step on that a run refuses because what it made of its
    pictures is far from any.
    """
    found = {}
    for count in steps:
        try:
            while run.index < count:
                run.step()
            found[str(count)] = read()
        except (ValueError, FloatingPointError):
            if lost is None:
                raise
            return found | {str(later): lost for later in steps if later >= count}
    return found


def run_edit(task: tuple) -> dict:
    """One edit with every arm at every strength: a line of the results."""
    index, seed, stage = task
    what = case(seed, index, stage.ask)
    source = world.render(what.scene)[0]
    found: dict = {}
    clock = time.process_time()
    for arm, changes in stage.arms.items():
        found[arm] = {}
        for factor in stage.strengths:
            how = {"config": settings(stage.config, changes, factor)}
            how["generator"] = torch.Generator().manual_seed(seed * 1_000_003 + index)
            run = ClipInversion(source, [_encoder], *what.texts, **how)
            read = partial(_look, run, what)
            found[arm][f"{factor:g}"] = readings(run, stage.readings, read)
    return {
        "index": index,
        "asked": list(what.asked),
        "from": what.texts[0],
        "to": what.texts[1],
        "unknown words": sorted({word for text in what.texts for word in _encoder.unknown_words(text)}),
        "found": found,
        "processor_seconds": round(time.process_time() - clock, 1),
    }
