"""The demonstration: scenes are drawn, morphed with both losses, and judged."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .. import world
from ..metrics import EditScore, outside_psnr, score_edit
from ..models.clip import ClipEncoder
from ..pipelines import ClipInversion, ClipInversionConfig
from .driver import frame_steps
from .files import write_json, write_text
from .page import badge, details, figure, film, page, picture, row, section, table, text
from .pictures import gif, strip, write_bytes, write_picture
from .record import checksums, machine, peak_memory_mib, versions

ATTRIBUTES = ("colour", "background", "colour", "shape")
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


def run_demo(
    encoder: ClipEncoder,
    out: Path,
    *,
    seed: int,
    config: ClipInversionConfig | None = None,
    on_step: Callable[[str, ClipInversion], None] = lambda name, inversion: None,
) -> list[Edit]:
    """Morph a few drawn scenes with each loss, judge them, and write the report to ``out``.

    Args:
        encoder: The world's CLIP.
        out: Folder to write to.
        seed: Chooses scenes, edits and views.
        config: Settings for both losses; the loss itself is replaced.
        on_step: Called after each step with what is being done.
    """
    start = time.perf_counter()
    chance = torch.Generator().manual_seed(seed)
    scenes = world.sample_scenes(len(ATTRIBUTES), generator=chance)
    edits = []
    for i, attribute in enumerate(ATTRIBUTES):
        scene = scenes[i]
        target = world.edit(scene, attribute, generator=chance)
        edits.append(_edit(encoder, scene, target, attribute, seed + i, config, on_step))
    write_demo(edits, out, seed=seed, encoder=encoder.name, seconds=time.perf_counter() - start)
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
            config=replace(config or ClipInversionConfig(), loss=loss),
            generator=torch.Generator().manual_seed(seed),
        )
        frames, kept = [source], frame_steps(run.config.steps)
        while not run.done:
            run.step()
            if run.index in kept:
                frames.append(run.picture())
            on_step(f"{attribute}, {loss} loss", run)
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


def write_demo(edits: list[Edit], out: Path, *, seed: int, encoder: str, seconds: float) -> None:
    """Write pictures, animations, ``report.html`` and ``run.json``."""
    names = []
    for i, edit in enumerate(edits):
        for loss, morph in edit.morphs.items():
            stem = f"{i + 1}-{edit.attribute}-{loss}"
            write_picture(out / f"{stem}.png", morph.frames[-1])
            write_picture(out / f"{stem}-frames.png", strip(morph.frames, height=128))
            write_bytes(out / f"{stem}.gif", gif(morph.frames))
            names += [f"{stem}.png", f"{stem}-frames.png", f"{stem}.gif"]
    record = {
        "command": "demo",
        "seed": seed,
        "encoder": encoder,
        "seconds": round(seconds, 2),
        "peak_memory_mib": peak_memory_mib(),
        "machine": machine("cpu"),
        "versions": versions(),
        "edits": [_facts(edit) for edit in edits],
    }
    write_text(out / "report.html", demo_page(edits, record))
    write_json(out / "run.json", {**record, "sha256": checksums(out, [*names, "report.html"])})


def _facts(edit: Edit) -> dict:
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


def demo_page(edits: list[Edit], record: dict) -> str:
    """The report, for somebody who has never heard of any of this."""
    lead = (
        "<p>A CLIP model places pictures and sentences in one space. To <em>morph</em> a picture is to "
        "change it until its place there has moved as the text moved: here from a sentence that describes "
        "the picture to one in which a single word differs. The picture should follow that word and keep "
        "everything else.</p>"
        "<p>Two losses steer the change. The <strong>directional</strong> loss compares two directions along "
        "a straight line. The <strong>geodesic</strong> loss compares them along the path that turns the "
        "subspace of the picture's changes into that of the text's. Both start from the recolouring of a "
        "part of the picture, or the new outline of its object, that is found to move it most nearly as the "
        "text asks, if any does.</p>"
        "<p>All pictures come from geokernels' rendered world: scenes drawn by code, so that it is known "
        "what is in them. A <strong>judge</strong> reads shape, colours, size and texture off each picture "
        "by image analysis alone. It uses no CLIP, so it cannot be persuaded by the model that did the "
        "guiding.</p>"
    )
    small = (
        f"{len(edits)} pictures are an illustration; benchmarks/stability_plasticity.py measures hundreds."
    )
    facts = {"seed": record["seed"], "CLIP": record["encoder"], "machine": record["machine"]["cpu"]}
    facts |= {"threads": record["machine"]["threads"], "peak memory": f"{record['peak_memory_mib']:.0f} MiB"}
    return page(
        "A picture, moved by a sentence",
        lead,
        [
            section("What the judge found", _summary(edits), note=small),
            *(_card(i, edit) for i, edit in enumerate(edits)),
            section(
                "The run",
                f"<p>Everything above took {record['seconds']:.0f} seconds.</p>",
                details("Where and how", facts),
                details("Versions", record["versions"]),
            ),
        ],
    )


def _summary(edits: list[Edit]) -> str:
    rows = []
    for loss in LOSSES:
        morphs = [edit.morphs[loss] for edit in edits]
        count, scores = len(morphs), [m.score for m in morphs]
        rows.append(
            (
                text(f"{loss} loss"),
                f"{sum(s.reached for s in scores)} of {count}",
                f"{100 * sum(s.kept for s in scores) / count:.0f}%",
                f"{sum(s.right for s in scores)} of {count}",
                f"{sum(m.psnr for m in morphs) / count:.1f} dB",
                f"{sum(m.seconds for m in morphs) / count:.1f} s",
            )
        )
    head = (
        "",
        "asked change made",
        "other attributes kept",
        "all right at once",
        "untouched region, PSNR",
        "a picture",
    )
    return table(head, rows)


def _card(index: int, edit: Edit) -> str:
    before, after = edit.texts
    shown = row(
        picture(edit.source, f"Source picture: {before}", "the source"),
        *(
            picture(m.frames[-1], f"After the {loss} loss: {after}", f"<b>{loss}</b> loss, {m.seconds:.1f} s")
            for loss, m in edit.morphs.items()
        ),
        figure(
            gif(edit.morphs["geodesic"].frames),
            "Animation of the geodesic morph",
            "geodesic, on the way",
            kind="gif",
        ),
        picture(edit.drawn, f"Drawn by the renderer: {after}", "for comparison: drawn from the target text"),
    )
    films = "".join(
        f"<p class=note>{loss} loss, from the source to the last step</p>"
        + film(m.frames, f"{loss} loss: {after}")
        for loss, m in edit.morphs.items()
    )
    rows = []
    for name, wanted in edit.wanted.items():
        asked = f"<b>{text(wanted)}</b>" if name == edit.attribute else text(wanted)
        seen = [m.seen[name] for m in edit.morphs.values()]
        rows.append(
            (
                text(name),
                text(edit.before[name] or "none of these"),
                asked,
                *(badge(value or "none of these", value == wanted) for value in seen),
            )
        )
    judged = table(
        ("", "judge sees before", "should be after", *(f"{loss}: sees after" for loss in edit.morphs)), rows
    )
    heading = f"{index + 1}. {before} → {after}"
    return section(
        heading,
        shown,
        films,
        judged,
        note=f"Asked: another {'object ' if edit.attribute == 'colour' else ''}{edit.attribute}.",
    )
