"""The demonstration: what the package does with its embedded models, small, judged, in one page."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from .._files import read_json, write_json, write_text
from ..environment import machine, peak_memory_mib, versions
from ..media.pictures import fit, gif, grid, strip, write_bytes, write_picture
from ..models import load_diffusion, load_generator
from ..models.clip import ClipEncoder
from ..pipelines import ClipInversionConfig
from ..report.page import details, page, section
from .demo_models import (
    Drawn,
    Walk,
    draw_unseen,
    drawn_section,
    left_out,
    line_of_prompts,
    walk_in_w,
    walk_section,
)
from .demo_morphs import LOSSES, Edit, card, facts_of, morph_scenes, summary
from .folder import RECORD, RunFolder
from .held_folder import OWNER

BEGUN = "demo.partial.json"
SHOWN = 9  # pictures of a walk in its strip


@dataclass(frozen=True)
class DemoConfig:
    """How much is shown.

    Attributes:
        attributes: What the morphs change, one scene each.
        morph: How each is run; the loss is replaced by either.
        walk: Pictures on the walk in w.
        line: Pictures between two prompts.
        prompts: Prompts drawn.
        steps: Of each diffusion sampling.
        guidance: Scale of its classifier-free guidance.
    """

    attributes: tuple[str, ...] = ("colour", "background", "colour", "shape")
    morph: ClipInversionConfig = field(default_factory=ClipInversionConfig)
    walk: int = 33
    line: int = 9
    prompts: int = 12
    steps: int = 20
    guidance: float = 3.0

    @property
    def total(self) -> int:
        """Steps of all parts together: optimisation's, and twice diffusion's."""
        return len(self.attributes) * len(LOSSES) * self.morph.steps + 2 * self.steps


@dataclass
class Demo:
    """What a demonstration found; a part that could not run is the sentence that says why."""

    edits: list[Edit]
    walk: Walk
    line: Walk | str
    drawn: Drawn | str


class DemoFolder(RunFolder):
    """Where a demonstration is written, which cannot be continued; ``path`` need not exist yet."""

    command = "demo"
    checkpoint = BEGUN
    names = (
        r"\d-[a-z]+-[a-z]+(-frames\.png|\.png|\.gif)",
        r"(walk|prompts)(-frames\.png|\.gif)",
        r"(samples|overview)\.png",
        r"report\.html",
    )

    def earlier(self) -> bool:
        """Whether an earlier demonstration is there.

        Raises:
            ValueError: If the folder holds anything else.
        """
        if not self.path.is_dir() or not any(path.name != OWNER for path in self.path.iterdir()):
            return False
        # of one that was killed while it was written, there is only the latter
        found = [read_json(self.path / name) for name in (RECORD, BEGUN) if (self.path / name).is_file()]
        if not (found and all(isinstance(one, dict) and one.get("command") == self.command for one in found)):
            raise ValueError(
                f"--out must be new, empty or an earlier demo, {self.path} holds something else; "
                "choose another folder, or add --overwrite"
            )
        return True


def run_demo(
    encoder: ClipEncoder,
    folder: DemoFolder,
    *,
    seed: int,
    config: DemoConfig | None = None,
    on_step: Callable[[str, str], None] = lambda name, value: None,
) -> Demo:
    """Morph drawn scenes, walk through the generator, draw prompts, judge all of it, and write the report.

    Args:
        encoder: The world's CLIP.
        folder: Claimed already.
        seed: Chooses scenes, edits, views, codes, prompts and noise.
        config: How much is shown.
        on_step: Called after each of ``config.total`` steps with what is being done and how it goes; the
            steps of parts that are left out are not taken.
    """
    config, start = config or DemoConfig(), time.perf_counter()
    edits = morph_scenes(encoder, config.attributes, config.morph, seed=seed, on_step=on_step)
    walk = walk_in_w(load_generator(), pictures=config.walk, seed=seed)
    demo = Demo(edits, walk, *_draw(config, seed, on_step))
    write_demo(demo, folder, seed=seed, encoder=encoder.name, seconds=time.perf_counter() - start)
    return demo


def _draw(config: DemoConfig, seed: int, on_step) -> tuple[Walk, Drawn] | tuple[str, str]:
    """The parts that need the diffusion pipeline, or why there is none."""
    try:
        pipeline = load_diffusion("world")
    except (ImportError, FileNotFoundError) as error:
        return str(error), str(error)
    how = {"steps": config.steps, "guidance": config.guidance, "seed": seed}
    line = line_of_prompts(
        pipeline, pictures=config.line, **how, on_step=lambda: on_step("between two prompts", "")
    )
    return line, draw_unseen(
        pipeline, pictures=config.prompts, **how, on_step=lambda: on_step("unseen prompts", "")
    )


def write_demo(demo: Demo, folder: DemoFolder, *, seed: int, encoder: str, seconds: float) -> None:
    """Write pictures, animations, ``report.html`` and ``run.json``; an earlier demonstration goes."""
    if folder.replaces:
        folder.replace()
    # until run.json is there, this says whose folder it is
    write_json(folder.file(BEGUN), {"command": folder.command})
    names = []
    for i, edit in enumerate(demo.edits):
        for loss, morph in edit.morphs.items():
            names += _write_frames(folder, f"{i + 1}-{edit.attribute}-{loss}", morph.frames, morph.frames)
            write_picture(folder.file(f"{i + 1}-{edit.attribute}-{loss}.png"), morph.frames[-1])
            names.append(f"{i + 1}-{edit.attribute}-{loss}.png")
    for name, walk in (("walk", demo.walk), ("prompts", demo.line)):
        if isinstance(walk, Walk):
            chosen = [round(i * (len(walk.frames) - 1) / (SHOWN - 1)) for i in range(SHOWN)]
            names += _write_frames(folder, name, list(walk.frames), list(walk.frames[chosen]))
    if isinstance(demo.drawn, Drawn):
        write_picture(folder.file("samples.png"), grid(demo.drawn.pictures))
        names.append("samples.png")
    write_picture(folder.file("overview.png"), overview(demo))
    names.append("overview.png")
    record = {
        "command": "demo",
        "seed": seed,
        "encoder": encoder,
        "seconds": round(seconds, 2),
        "peak_memory_mib": peak_memory_mib(),
        "machine": machine("cpu"),
        "versions": versions(),
        "edits": [facts_of(edit) for edit in demo.edits],
        "walk": demo.walk.facts(),
        "between_prompts": _facts_or_reason(demo.line),
        "prompts": _facts_or_reason(demo.drawn),
    }
    write_text(folder.file("report.html"), demo_page(demo, record))
    folder.end(record, [*names, "report.html"])


def overview(demo: Demo, *, columns: int = 6, side: int = 192) -> Tensor:
    """A row of each part: morphs, each before and after; the walk; the line of prompts; prompts drawn."""
    pairs = [frame for edit in demo.edits for frame in (edit.source, edit.morphs["geodesic"].frames[-1])]
    rows = [pairs[:columns]]
    for part in (demo.walk, demo.line):
        if isinstance(part, Walk):
            last = len(part.frames) - 1
            rows.append([part.frames[round(i * last / (columns - 1))] for i in range(columns)])
    if isinstance(demo.drawn, Drawn):
        rows.append(list(demo.drawn.pictures[:columns]))
    blank = torch.ones_like(demo.edits[0].source)
    padded = chain(*([*row, *[blank] * (columns - len(row))] for row in rows))
    return grid([fit(shown, side) for shown in padded], columns=columns, gap=8)


def _write_frames(folder: DemoFolder, stem: str, frames: list, shown: list) -> list[str]:
    """Write an animation and a strip; returns their names."""
    write_picture(folder.file(f"{stem}-frames.png"), strip(shown, height=128))
    write_bytes(folder.file(f"{stem}.gif"), gif(frames))
    return [f"{stem}-frames.png", f"{stem}.gif"]


def _facts_or_reason(part: Walk | Drawn | str):
    return {"left_out": part} if isinstance(part, str) else part.facts()


def demo_page(demo: Demo, record: dict) -> str:
    """The report, for somebody who has never heard of any of this."""
    count = len(demo.edits)
    small = f"{count} pictures are an illustration; benchmarks/quality/morph.py measures hundreds."
    facts = {"seed": record["seed"], "CLIP": record["encoder"], "machine": record["machine"]["cpu"]}
    facts |= {"threads": record["machine"]["threads"], "peak memory": f"{record['peak_memory_mib']:.0f} MiB"}
    return page(
        "A picture, moved by a sentence",
        LEAD,
        [
            section("What the judge found", summary(demo.edits), note=small),
            *(card(i, edit) for i, edit in enumerate(demo.edits)),
            walk_section("A walk through a generator", demo.walk, WALK),
            _part("Between two prompts", demo.line, LINE),
            _part("Prompts it has never read", demo.drawn, PROMPTS),
            section(
                "The run",
                f"<p>Everything above took {record['seconds']:.0f} seconds.</p>",
                details("Where and how", facts),
                details("Versions", record["versions"]),
            ),
        ],
    )


def _part(heading: str, part: Walk | Drawn | str, lead: str) -> str:
    if isinstance(part, str):
        return left_out(heading, part)
    return (walk_section if isinstance(part, Walk) else drawn_section)(heading, part, lead)


LEAD = (
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
    "guiding. Below the morphs, two models that were trained on such scenes draw their own: a StyleGAN2 "
    "generator and a latent diffusion pipeline.</p>"
)
WALK = (
    "The generator draws a picture from a code w. Here w goes in a straight line from one random code to "
    "another; no text and no loss take part. Under each picture stands what the judge reads in it, and "
    "nothing of what it cannot name."
)
LINE = (
    "The diffusion pipeline draws a picture from noise and the embedding of a prompt. Here the noise stays, "
    "and each row of the embedding moves in a straight line from the one prompt to the same row of the "
    "other. This is the plain method, which pays no heed to what the rows stand for. Under each picture "
    "stands what the judge reads."
)
PROMPTS = (
    "The diffusion pipeline draws prompts whose combination of attributes it was never trained on. Under "
    "each prompt stands what the judge reads in the picture: ✓ is as asked, ✗ is not."
)
