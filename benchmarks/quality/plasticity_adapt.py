"""Adaptations of a generator with every loss at every strength, for ``benchmarks.quality.plasticity``.

Adaptation ``i`` asks every sample of the embedded generator for one value of one attribute, attributes in
turn: from "an object" to, say, "an object on a green background". Each is run with every loss at every
strength, from the same latents, the same start and the same samples. The judge
(``geokernels.world.judge``), which uses no trained model, reads samples that the adaptation never visited,
before and after:

  reached   of the samples that did not show the asked value already (and could: no object has the colour
            of its background), the share that shows it now
  kept      share of their other four attributes that read as before
"""

import time
from dataclasses import replace

import torch

from geokernels import world
from geokernels.models import load_clip, load_generator
from geokernels.pipelines import Adaptation, AdaptationConfig
from geokernels.pipelines.adapt.nada import LEARNING_RATES
from geokernels.pipelines.run import Prepared

from .fronts import LOSSES, START

UNIT = "adaptations"
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
STRENGTH = "A strength is a multiple of the learning rate: Adam divides the weight of a loss out."
SAMPLES = 48
ORDER = ("colour", "background", "texture", "shape", "size")

_models = None  # generator and encoder of a process


def asked(index: int, seed: int) -> tuple[str, str, str, str]:
    """Attribute, value, source and target text of adaptation ``index``."""
    attribute = ORDER[index % len(ORDER)]
    values = world.ATTRIBUTES[attribute]
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed)).tolist()
    value = values[order[index // len(ORDER) % len(values)]]
    return attribute, value, "an object", world.describe({attribute: value})


def score(before: list[dict], after: list[dict], attribute: str, value: str) -> dict[str, float]:
    """Shares of the samples that could be asked for ``value``."""
    opposite = {"colour": "background", "background": "colour"}.get(attribute)
    shown = {attribute, opposite} - {None}
    pairs = [(a, b) for a, b in zip(before, after) if all(a[name] != value for name in shown)]
    others = [a[name] == b[name] for a, b in pairs for name in a if name != attribute]
    return {
        "samples": len(pairs),
        "reached": sum(b[attribute] == value for _, b in pairs) / len(pairs),
        "kept": sum(others) / len(others),
    }


def start_worker() -> None:
    """Load the models once a process."""
    global _models
    torch.set_num_threads(1)
    _models = load_generator(), load_clip()


def tasks(count: int, seed: int, config: AdaptationConfig, strengths: tuple[float, ...]) -> list:
    """The adaptations to do."""
    return [(i, seed, config, strengths) for i in range(count)]


def run_adaptation(task: tuple[int, int, AdaptationConfig, tuple[float, ...]]) -> dict:
    """One adaptation with every loss at every strength."""
    index, seed, config, strengths = task
    model, encoder = _models
    attribute, value, *texts = asked(index, seed)
    unseen = torch.Generator().manual_seed(seed + index + 2**40)
    z = torch.randn(SAMPLES, model.config.style_dim, generator=unseen)
    with torch.no_grad():
        w = model.mapping(z)

    def begin(loss: str, factor: float, prepared: Prepared | None = None) -> Adaptation:
        settings = replace(config, loss=loss, learning_rate=factor * LEARNING_RATES[config.train])
        chance = torch.Generator().manual_seed(seed * 1_000_003 + index)
        how = {"config": settings, "generator": chance, "prepared": prepared}
        return Adaptation(model, [encoder], *texts, **how)

    def judged(run: Adaptation) -> dict[str, float]:
        # what a file would hold
        pictures = (run.pictures(w) * 255).round() / 255
        return score(before, world.judge(pictures).names(), attribute, value)

    first = begin(LOSSES[0], 1.0)
    before = world.judge((first.pictures(w) * 255).round() / 255).names()
    clock = time.process_time()
    prepared = first.prepared
    scores = {START: {"1": judged(first)}}
    seconds = {"prepare": time.process_time() - clock}
    for loss in LOSSES:
        scores[loss], clock = {}, time.process_time()
        for factor in strengths:
            run = begin(loss, factor, prepared)
            while not run.done:
                run.step()
            scores[loss][f"{factor:g}"] = judged(run)
        seconds[loss] = (time.process_time() - clock) / len(strengths)
    return {
        "index": index,
        "attribute": attribute,
        "value": value,
        "start": first.start and {"cosine": first.start.cosine, "taken": first.started},
        "found": scores,
        "processor_seconds": {name: round(spent, 2) for name, spent in seconds.items()},
    }
