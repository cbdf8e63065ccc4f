"""The demonstration's morphs: scenes are drawn, moved with both losses, and judged."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import world
from ..metrics import EditScore, outside_psnr, score_edit
from ..models.clip import ClipEncoder
from ..pipelines import ClipInversion, ClipInversionConfig
from .frames import kept_steps
from .morph import KEPT

LOSSES = ("geodesic", "directional")


@dataclass(frozen=True)
class Morphed:
    """One picture after one loss."""

    frames: list[Tensor]
    seen: dict[str, str | None]
    score: EditScore
    psnr: float
    seconds: float


@dataclass(frozen=True)
class Edit:
    """One edit of one scene, and what came of it."""

    attribute: str
    source: Tensor  # (3, H, W)
    drawn: Tensor  # the target, by the renderer
    texts: tuple[str, str]
    before: dict[str, str | None]
    wanted: dict[str, str]
    morphs: dict[str, Morphed]


def morph_scenes(
    encoder: ClipEncoder,
    attributes: tuple[str, ...],
    config: ClipInversionConfig,
    *,
    seed: int,
    on_step: Callable[[str, str], None],
) -> list[Edit]:
    """Change one attribute of a drawn scene for each of ``attributes``, with each loss.

    Args:
        encoder: The world's CLIP.
        attributes: What is changed, scene by scene.
        config: Settings for both losses; the loss itself is replaced.
        seed: Chooses scenes, edits and views.
        on_step: Called after each step with what is being done and how it goes.
    """
    chance = torch.Generator().manual_seed(seed)
    scenes = world.sample_scenes(len(attributes), generator=chance)
    edits = []
    for i, attribute in enumerate(attributes):
        target = world.edit(scenes[i], attribute, generator=chance)
        edits.append(_edit(encoder, scenes[i], target, attribute, seed + i, config, on_step))
    return edits


def _edit(encoder, scene, target, attribute, seed, config, on_step) -> Edit:
    source, drawn = world.render(scene)[0], world.render(target)[0]
    texts = world.caption(scene)[0], world.caption(target)[0]
    wanted, mask = target.names()[0], world.object_mask(scene)[0]
    if attribute == "shape":
        mask = torch.maximum(mask, world.object_mask(target)[0])
    morphs = {}
    for loss in LOSSES:
        start = time.perf_counter()
        run = ClipInversion(
            source,
            [encoder],
            *texts,
            config=replace(config, loss=loss),
            generator=torch.Generator().manual_seed(seed),
        )
        frames, kept = [source], kept_steps(run.steps, KEPT)
        while not run.done:
            run.step()
            if run.index in kept:
                frames.append(run.picture())
            on_step(f"{attribute}, {loss} loss", f"loss {run.loss:.3f}")
        seconds = time.perf_counter() - start
        seen = world.judge(frames[-1][None]).names()[0]
        psnr = _clear_psnr(frames[-1], source, mask, attribute)
        morphs[loss] = Morphed(frames, seen, score_edit(wanted, seen, attribute), psnr, seconds)
    return Edit(attribute, source, drawn, texts, world.judge(source[None]).names()[0], wanted, morphs)


def _clear_psnr(picture: Tensor, source: Tensor, mask: Tensor, attribute: str) -> float:
    """PSNR where nothing was to change: outside the object, or inside it where the background was asked."""
    if attribute == "background":
        mask = (mask < 1).float()
    return min(outside_psnr(picture, source, mask), 99.0)


def facts_of(edit: Edit) -> dict:
    """What ``run.json`` says of an edit."""
    morphs = {
        loss: {"seen": m.seen, **m.score._asdict(), "psnr": round(m.psnr, 2), "seconds": round(m.seconds, 2)}
        for loss, m in edit.morphs.items()
    }
    return {
        "attribute": edit.attribute,
        "from": edit.texts[0],
        "to": edit.texts[1],
        "seen_before": edit.before,
        "wanted": edit.wanted,
        "morphs": morphs,
    }
