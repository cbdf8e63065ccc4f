"""The demonstration: what the package does with its embedded models, small, judged, in one page."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from .._files import read_json, write_json, write_text
from ..media.pictures import fit, gif, grid, png, strip, write_bytes, write_picture
from ..models import load_diffusion, load_generator
from ..models.clip import ClipEncoder
from ..pipelines import Blend, BlendConfig, ClipInversionConfig
from ..pipelines.blend.frames import over_white
from ..pipelines.run_state import plain
from ..report.demo import Shown, ShownEdit, ShownMorph, ShownWalk, demo_page
from ..report.page import FILM_SIDE, PICTURE_SIDE
from ..world.captions import reading
from .demo_blend import blend_photographs, facts_of_blend
from .demo_models import (
    Drawn,
    Walk,
    draw_unseen,
    line_of_prompts,
    walk_in_w,
)
from .demo_morphs import LOSSES, Edit, facts_of, morph_scenes
from .folder import RECORD, RunFolder
from .held_folder import OWNER
from .record import assemble

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
        blend: Of two photographs.
    """

    attributes: tuple[str, ...] = ("colour", "background", "colour", "shape")
    morph: ClipInversionConfig = field(default_factory=lambda: ClipInversionConfig(recipe="world"))
    walk: int = 33
    line: int = 9
    prompts: int = 12
    steps: int = 20
    guidance: float = 3.0
    blend: BlendConfig = field(default_factory=lambda: BlendConfig(recipe="world"))

    @property
    def total(self) -> int:
        """Steps of all parts together: frames, optimisation's, and twice diffusion's."""
        return self.blend.frames + len(self.attributes) * len(LOSSES) * self.morph.steps + 2 * self.steps


@dataclass
class Demo:
    """What a demonstration found; a part that could not run is the sentence that says why."""

    blend: Blend | str
    edits: list[Edit]
    walk: Walk
    line: Walk | str
    drawn: Drawn | str


class Parts(NamedTuple):
    """All parts together, as the one stage that a record speaks of; nothing of their losses is kept."""

    index: int
    facts: dict
    terms: tuple[str, ...] = ()
    history: Tensor = torch.empty(0, 0, dtype=torch.float32)


class DemoFolder(RunFolder):
    """Where a demonstration is written, which cannot be continued; ``path`` need not exist yet."""

    command = "demo"
    checkpoint = BEGUN
    names = (
        r"blend(-frames\.png|\.gif)",
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
        kept = [read_json(self.path / name) for name in (RECORD, BEGUN) if (self.path / name).is_file()]
        if not (kept and all(isinstance(one, dict) and one.get("command") == self.command for one in kept)):
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
    blend = blend_photographs(config.blend, on_step)
    edits = morph_scenes(encoder, config.attributes, config.morph, seed=seed, on_step=on_step)
    walk = walk_in_w(load_generator(), pictures=config.walk, seed=seed)
    demo = Demo(blend, edits, walk, *_draw(config, seed, on_step))
    seconds = time.perf_counter() - start
    write_demo(demo, folder, seed=seed, encoder=encoder.name, config=config, seconds=seconds)
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


def write_demo(
    demo: Demo, folder: DemoFolder, *, seed: int, encoder: str, config: DemoConfig, seconds: float
) -> None:
    """Write pictures, animations, ``report.html`` and ``run.json``; an earlier demonstration goes."""
    if folder.replaces:
        folder.replace()
    # until run.json is there, this says whose folder it is
    write_json(folder.file(BEGUN), {"command": folder.command})
    names = []
    if isinstance(demo.blend, Blend):
        film = _film(demo.blend)
        write_picture(folder.file("blend-frames.png"), strip(_spread(film), height=128))
        write_bytes(folder.file("blend.gif"), _there_and_back(film))
        names += ["blend-frames.png", "blend.gif"]
    for i, edit in enumerate(demo.edits):
        for loss, morph in edit.morphs.items():
            names += _write_frames(folder, f"{i + 1}-{edit.attribute}-{loss}", morph.frames, morph.frames)
            write_picture(folder.file(f"{i + 1}-{edit.attribute}-{loss}.png"), morph.frames[-1])
            names.append(f"{i + 1}-{edit.attribute}-{loss}.png")
    for name, walk in (("walk", demo.walk), ("prompts", demo.line)):
        if isinstance(walk, Walk):
            names += _write_frames(folder, name, list(walk.frames), _spread(list(walk.frames)))
    if isinstance(demo.drawn, Drawn):
        write_picture(folder.file("samples.png"), grid(demo.drawn.pictures))
        names.append("samples.png")
    write_picture(folder.file("overview.png"), overview(demo))
    names.append("overview.png")
    facts = {
        "seeds": [seed],
        "encoders": [encoder],
        "photographs": facts_of_blend(demo.blend),
        "morphs": [facts_of(edit) for edit in demo.edits],
        "walk": demo.walk.facts(),
        "between_prompts": _facts_or_reason(demo.line),
        "drawn": _facts_or_reason(demo.drawn),
    }
    stages = {"demo": Parts(config.total, {"config": plain(config)})}
    record = assemble(folder.command, facts, stages=stages, config={}, seconds={"demo": seconds})
    write_text(folder.file("report.html"), demo_page(record, shown_of(demo)))
    folder.end(record, [*names, "report.html"])


def shown_of(demo: Demo) -> Shown:
    """The pictures of the page."""
    return Shown(
        _shown_blend(demo.blend) if isinstance(demo.blend, Blend) else None,
        [_shown_edit(edit) for edit in demo.edits],
        _shown_walk(demo.walk),
        _shown_walk(demo.line) if isinstance(demo.line, Walk) else None,
        _large(demo.drawn.pictures) if isinstance(demo.drawn, Drawn) else None,
    )


def _shown_blend(run: Blend) -> ShownWalk:
    film = _film(run)
    labels = [f"t = {t:.2f}" for t in run.times.tolist()]
    return ShownWalk(*_large([film[0], film[-1]]), _there_and_back(film), _small(film), labels)


def _there_and_back(film: list[Tensor]) -> bytes:
    return gif(film, longest=384, hold=700, each=80, back=True)


def _film(run: Blend) -> list[Tensor]:
    return [over_white(frame)[0] for frame in run.made]


def _spread(frames: list[Tensor]) -> list[Tensor]:
    """Evenly chosen ones, for a strip."""
    return [frames[round(i * (len(frames) - 1) / (SHOWN - 1))] for i in range(SHOWN)]


def _shown_edit(edit: Edit) -> ShownEdit:
    morphs = {
        loss: ShownMorph(*_large(morph.frames[-1:]), gif(morph.frames), _small(morph.frames))
        for loss, morph in edit.morphs.items()
    }
    return ShownEdit(*_large([edit.source, edit.drawn]), morphs)


def _shown_walk(walk: Walk) -> ShownWalk:
    frames = list(walk.frames)
    ends = _large([frames[0], frames[-1]])
    return ShownWalk(*ends, gif(frames), _small(frames), [reading(seen) for seen in walk.seen])


def _large(pictures: Iterable[Tensor]) -> list[bytes]:
    return [png(picture, longest=PICTURE_SIDE) for picture in pictures]


def _small(pictures: Iterable[Tensor]) -> list[bytes]:
    return [png(picture, longest=FILM_SIDE) for picture in pictures]


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
