"""Edits of pictures with every loss at every strength, for ``benchmarks.quality.plasticity``.

Edit ``i`` is that of ``benchmarks.quality.morph``: a random scene, object colour and background in
turn to another value. All losses and strengths start from the same first guess, which is searched for once,
and see the same views.
"""

import time
from dataclasses import replace

import torch

from geokernels import world
from geokernels.models import load_clip
from geokernels.pipelines import ClipInversion, ClipInversionConfig, LayerEdit, LayerEditConfig
from geokernels.pipelines.guidance.terms import MAIN
from geokernels.pipelines.morph.picture import PictureConfig

from .edits import attribute_of, draw, judge_edit
from .fronts import LOSSES, START

UNIT = "edits"
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
STRENGTH = "A strength multiplies every weight that pulls towards the text, against those that hold back."
METHODS = {"clip-inversion": ClipInversionConfig, "text2live": LayerEditConfig}
PULLS = {
    "clip-inversion": ("reach_weight",),
    "text2live": ("spherical", "screen"),
}  # beside the loss's own term

_encoder = None  # of a process


def start_worker() -> None:
    """Load the model once a process."""
    global _encoder
    torch.set_num_threads(1)
    _encoder = load_clip()


def settings(config: PictureConfig, method: str, loss: str, factor: float) -> PictureConfig:
    """``config`` guided by ``loss``, ``factor`` times as strong."""
    config = replace(config, loss=loss, strength=None)
    pulls = {name: factor * getattr(config, name) for name in PULLS[method]}
    return replace(config, strength=factor * config.weight(MAIN[loss]), **pulls)


def tasks(count: int, seed: int, config: PictureConfig, method: str, strengths: tuple[float, ...]) -> list:
    """The edits to do."""
    return [(i, seed, config, method, strengths) for i in range(count)]


def run_edit(task: tuple[int, int, PictureConfig, str, tuple[float, ...]]) -> dict:
    """One edit with every loss at every strength."""
    index, seed, config, method, strengths = task
    attribute = attribute_of(index, index + 1)
    scene, target = draw(seed, index, attribute)
    source = world.render(scene)[0]
    texts = world.caption(scene)[0], world.caption(target)[0]

    def judged(picture: torch.Tensor) -> dict:
        said = judge_edit(picture, scene, target, attribute)
        return {key: float(said[key]) for key in ("reached", "kept", "psnr")}

    def begin(loss: str, factor: float) -> ClipInversion | LayerEdit:
        chosen = settings(config, method, loss, factor)
        chance = torch.Generator().manual_seed(seed * 1_000_003 + index)
        if method == "text2live":
            return LayerEdit(source, [_encoder], *texts, config=chosen, generator=chance)
        how = {"config": chosen, "generator": chance, "prepared": prepared}
        return ClipInversion(source, [_encoder], *texts, **how)

    scores, prepared, clock = {}, None, time.process_time()
    if method == "clip-inversion":
        first = begin(LOSSES[0], 1.0)
        prepared = first.prepared
        scores[START] = {"1": judged(_guessed(first))}
    seconds = {"prepare": time.process_time() - clock}
    for loss in LOSSES:
        scores[loss], clock = {}, time.process_time()
        for factor in strengths:
            run = begin(loss, factor)
            while not run.done:
                run.step()
            scores[loss][f"{factor:g}"] = judged(run.picture())
        seconds[loss] = (time.process_time() - clock) / len(strengths)
    return {
        "index": index,
        "attribute": attribute,
        "from": texts[0],
        "to": texts[1],
        "found": scores,
        "processor_seconds": {name: round(spent, 2) for name, spent in seconds.items()},
    }


def _guessed(run: ClipInversion) -> torch.Tensor:
    """What a run starts from: its first guess as it was found, or the source where there is none."""
    if run.start is None:
        return run.full[0]
    return run.full[0].lerp(run.start.colour[0], run.start.opacity[0])
