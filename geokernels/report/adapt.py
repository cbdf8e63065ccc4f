"""The folder that an adaptation leaves behind."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._files import write_text
from ..models import Generator, save_generator
from ..models.stylegan2_files import FORMATS
from .folder import RunFolder
from .page import chart, details, figure, page, picture, row, section, table, text
from .pictures import gif, grid, png, write_bytes, write_picture

BEFORE, AFTER, STRIP, ANIMATION, PAGE = "before.png", "after.png", "strip.png", "adapt.gif", "report.html"
REAL = ("real.png", "real-inverted.png", "real-adapted.png")
ROWS = 4  # samples that the strip follows


@dataclass
class AdaptFolder(RunFolder):
    """Where one adaptation is written; ``path`` need not exist yet.

    Attributes:
        format: Ending of the generator's file.
    """

    command = "adapt"
    format: str = ".safetensors"

    names = (
        *map(re.escape, (BEFORE, AFTER, STRIP, ANIMATION, PAGE, *REAL)),
        *(re.escape(f"generator{ending}") for ending in FORMATS),
    )

    def writes(self) -> tuple[str, ...]:
        """The generator in its own format alone."""
        return (*self.names[: -len(FORMATS)], re.escape(self.generator))

    @property
    def generator(self) -> str:
        """Name of the adapted generator's file."""
        return f"generator{self.format}"

    def keep(self, model: Generator) -> None:
        """Write the generator alone."""
        save_generator(model, self.file(self.generator))

    def finish(
        self,
        record: dict,
        model: Generator,
        frames: Sequence[Tensor],
        labels: Sequence[str],
        real: Sequence[Tensor] = (),
    ) -> None:
        """Write generator, pictures, animation, page and, last, ``run.json``; then the checkpoint goes.

        Args:
            record: Everything for ``run.json`` but the checksums.
            model: The adapted generator.
            frames: The samples at each kept step, ``(n, 3, h, w)``; the first are the frozen generator's.
            labels: A word for each frame.
            real: The given picture, its inversion, and what the adapted generator makes of it; or nothing.
        """
        self.keep(model)
        grids = [grid(list(frame)) for frame in frames]
        write_picture(self.file(BEFORE), grids[0])
        write_picture(self.file(AFTER), grids[-1])
        write_picture(self.file(STRIP), metamorphosis(frames))
        write_bytes(self.file(ANIMATION), gif(grids, longest=512, each=250))
        for name, shown in zip(REAL, real):
            write_picture(self.file(name), shown)
        write_text(self.file(PAGE), adapt_page(record, frames, labels, real))
        names = [self.generator, BEFORE, AFTER, STRIP, ANIMATION, PAGE, *REAL[: len(real)]]
        self.end(record, names)


def metamorphosis(frames: Sequence[Tensor], *, rows: int = ROWS) -> Tensor:
    """Samples over the steps: a row a sample, a column a kept step, ``(3, ..., ...)``."""
    return grid([frame[i] for i in range(min(rows, len(frames[0]))) for frame in frames], columns=len(frames))


def adapt_page(
    record: dict, frames: Sequence[Tensor], labels: Sequence[str], real: Sequence[Tensor] = ()
) -> str:
    """The page of one adaptation."""
    before, after = record["from"], record["to"]
    lead = (
        f"<p>The generator {text(record['generator'])} was moved from "
        f"<strong class=from>“{text(before)}”</strong> to <strong class=to>“{text(after)}”</strong>, guided "
        f"by CLIP ({text(', '.join(record['encoders']))}) with the {text(record['config']['loss'])} loss, in "
        f"{record['seconds']:.1f} seconds. No picture was shown to it.</p>"
    )
    grids = [grid(list(frame)) for frame in frames]
    samples = row(
        picture(grids[0], f"Samples before: {before}", "before"),
        picture(grids[-1], f"The same latents after: {after}", "after"),
        figure(
            gif(grids, longest=384, each=250), f"Animation from {before} to {after}", "on the way", kind="gif"
        ),
    )
    along = figure(png(metamorphosis(frames)), f"{ROWS} samples over the steps", text(" · ".join(labels)))
    losses = chart(torch.tensor(record["history"], dtype=torch.float32), record["terms"])
    sections = [
        section("Samples", samples, note="Latents that the adaptation never visited."),
        section("Metamorphosis", along, note="Each row is one latent; each column a kept step."),
        section("Losses", losses, note="Each curve on its own scale."),
        section(
            "The run",
            _facts(record),
            details("Every setting", record["config"]),
            details("Versions", record["versions"]),
        ),
    ]
    if real:
        names = ("given", "inverted", "by the adapted generator")
        shown = [picture(p, f"The real picture, {name}", name) for p, name in zip(real, names)]
        sections.insert(1, section("A real picture", row(*shown)))
    if record.get("judged"):
        sections.insert(1, section("The judge", _verdict(record["judged"])))
    return page(f"{before} → {after}", lead, sections)


def _facts(record: Mapping) -> str:
    start = record["start"]
    found = (
        f"cosine {start['cosine']:.2f}, {'taken' if start['taken'] else 'left'}"
        if start
        else "not looked for"
    )
    facts = [
        ("steps", text(record["config"]["steps"])),
        ("time", f"{record['seconds']:.1f} s ({record['steps_per_second']:.1f} steps/s)"),
        ("peak memory", f"{record['peak_memory_mib']:.0f} MiB"),
        ("start by transport of codes", found),
        ("seed", text(record["seed"])),
        ("machine", text(record["machine"]["gpu"] or record["machine"]["cpu"])),
    ]
    return table(("what", "value"), facts)


def _verdict(judged: Mapping[str, Mapping]) -> str:
    rows = []
    for name, found in judged.items():
        before, after, kept = (f"{found[key]:.0%}" for key in ("before", "after", "kept"))
        asked = (text(found["asked"]), before, after) if found["asked"] else ("", "", "")
        rows.append((text(name), *asked, kept))
    return table(("attribute", "asked", "as asked before", "as asked after", "as it was"), rows)
