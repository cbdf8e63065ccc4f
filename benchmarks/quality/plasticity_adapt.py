"""Adaptations of a generator with every arm of ``benchmarks.quality.plasticity``, done and judged.

Adaptation ``i`` asks every sample of the embedded generator for one value of one attribute, attributes in
turn: from "an object" to, say, "an object on a green background". All arms and strengths visit the same
latents in the same order. The judge (``geokernels.world.judge``), which uses no trained model, reads samples
that the adaptation never visited, before and after:

  reached   of the samples that did not show the asked value already (and could: no object has the colour
            of its background), the share that shows it now
  kept      share of their other four attributes that read as before
  right     share of them with both the asked value and all others

Where "kinds" is asked, both texts stand in sentences that name a kind of object each ("a striped {}", "a
{} ..."), so that the changes of the text span a subspace as the samples' changes do.
"""

import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from geokernels import world
from geokernels.models import load_generator
from geokernels.pipelines import Adaptation, AdaptationConfig
from geokernels.pipelines.adapt.nada_config import LEARNING_RATES

from .edits import as_stored
from .plasticity_edits import readings
from .quick_clip import quick_clip

SAMPLES = 40
ORDER = ("colour", "background", "texture", "shape", "size")
LOST = {"reached": 0.0, "kept": 0.0, "right": 0.0}  # of a network that draws what no picture holds
OF_KINDS = ("background", "shape")  # what can be asked in sentences of kinds, by the grammar's order of words

_models = None  # generator and encoder of a process


def asked(index: int, seed: int, order: tuple[str, ...] = ORDER) -> tuple[str, str, str, str]:
    """Attribute, value, source and target text of adaptation ``index``."""
    attribute = order[index % len(order)]
    values = world.ATTRIBUTES[attribute]
    turns = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed)).tolist()
    value = values[turns[index // len(order) % len(values)]]
    return attribute, value, "an object", world.describe({attribute: value})


def kinds(attribute: str) -> tuple[str, ...]:
    """Sentences that name one value each of the attributes that are not asked, and end in what is."""
    named = ("size", "texture", "colour")
    words = [value for name in named if name != attribute for value in world.ATTRIBUTES[name]]
    return tuple(f"{'an' if word[0] in 'aeiou' else 'a'} {word} {{}}" for word in words)


def score(before: list[dict], after: list[dict], attribute: str, value: str) -> dict[str, float]:
    """Shares of the samples that could be asked for ``value``."""
    opposite = {"colour": "background", "background": "colour"}.get(attribute)
    shown = {attribute, opposite} - {None}
    pairs = [(a, b) for a, b in zip(before, after) if all(a[name] != value for name in shown)]
    there = [b[attribute] == value for _, b in pairs]
    others = [[a[name] == b[name] for name in a if name != attribute] for a, b in pairs]
    return {
        "samples": len(pairs),
        "reached": sum(there) / len(pairs),
        "kept": sum(map(sum, others)) / sum(map(len, others)),
        "right": sum(a and all(b) for a, b in zip(there, others)) / len(pairs),
    }


def seen(run: Adaptation, w: Tensor) -> list[dict]:
    """What the judge reads in the pictures of codes."""
    return world.judge(as_stored(run.pictures(w))).names()


def judged(run: Adaptation, w: Tensor, before: list[dict], attribute: str, value: str) -> dict[str, float]:
    """What a run has come to, of the samples of codes."""
    return score(before, seen(run, w), attribute, value)


def start_worker() -> None:
    """Load the models once a process."""
    global _models
    torch.set_num_threads(1)
    _models = load_generator(), quick_clip()


def settings(base: AdaptationConfig, arm: dict, factor: float) -> AdaptationConfig:
    """``base`` as an arm has it, with a learning rate ``factor`` times as high."""
    return replace(base, **arm, learning_rate=factor * LEARNING_RATES[base.train])


def run_adaptation(task: tuple) -> dict:
    """One adaptation with every arm at every strength: a line of the results."""
    index, seed, stage = task
    model, encoder = _models
    base, order = stage.config, ORDER
    if stage.ask == "kinds":
        order = OF_KINDS
    attribute, value, *texts = asked(index, seed, order)
    if stage.ask == "kinds":  # the sentences have the articles
        base = replace(base, templates=kinds(attribute))
        texts = [text.removeprefix("an ").removeprefix("a ") for text in texts]
    unseen = torch.Generator().manual_seed(seed + index + 2**40)
    z = torch.randn(SAMPLES, model.config.style_dim, generator=unseen)
    with torch.no_grad():
        w = model.mapping(z)

    found: dict = {}
    prepared, before = None, []
    clock = time.process_time()
    for arm, changes in stage.arms.items():
        found[arm] = {}
        for factor in stage.strengths:
            how = {"config": settings(base, changes, factor), "prepared": prepared}
            how["generator"] = torch.Generator().manual_seed(seed * 1_000_003 + index)
            run = Adaptation(model, [encoder], *texts, **how)
            if prepared is None:
                prepared, before = run.prepared, seen(run, w)
            read = partial(judged, run, w, before, attribute, value)
            found[arm][f"{factor:g}"] = readings(run, stage.readings, read, LOST)
    return {
        "index": index,
        "attribute": attribute,
        "value": value,
        "found": found,
        "processor_seconds": round(time.process_time() - clock, 1),
    }
