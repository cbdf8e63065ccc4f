"""The folder that diffusion edits leave behind."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .._files import write_text
from .folder import RunFolder
from .page import chart, details, figure, film, page, picture, row, section, table, text
from .pictures import fit, gif, grid, write_bytes, write_picture

GIVEN, SOURCE, SHEET, INVERSION = "given.png", "source.png", "edits.png", "inversion.pt"
ANIMATION, PAGE = "edit.gif", "report.html"
SIDE = 192  # longest side of a picture on the sheet


class EditFolder(RunFolder):
    """Where edits of one picture are written; ``path`` need not exist yet."""

    command = "edit"
    names = (
        *map(re.escape, (GIVEN, SOURCE, SHEET, INVERSION, ANIMATION, PAGE)),
        r"edit-\d{2,}\.png",
    )

    def clear(self, keep: Collection[Path] = ()) -> None:
        """Remove an earlier run, the inversion of an interrupted one with it."""
        begun = self._record() is not None or self.begins()
        super().clear(keep)
        inversion = self.path / INVERSION
        if begun and inversion.resolve() not in {path.resolve() for path in keep}:
            inversion.unlink(missing_ok=True)

    def finish(
        self,
        record: dict,
        given: Tensor | None,
        source: Tensor,
        edits: Tensor,
        frames: Sequence[Tensor],
        labels,
    ) -> None:
        """Write pictures, animation, page and, last, ``run.json``; then the checkpoint goes.

        Args:
            record: Everything for ``run.json`` but the checksums.
            given: The picture that was inverted, ``(3, H, W)``; None where the source was drawn.
            source: What comes out of the source's noise, ``(3, H, W)``.
            edits: What the edits became, ``(B, 3, H, W)``.
            frames: The edits at each kept step, ``(B, 3, h, w)``; the last are ``edits``.
            labels: A word for each frame.
        """
        names = [SOURCE, SHEET, ANIMATION, PAGE, *(f"edit-{i:02d}.png" for i in range(len(edits)))]
        write_picture(self.file(SOURCE), source)
        if given is not None:
            names.append(GIVEN)
            write_picture(self.file(GIVEN), given)
        shown = [*([] if given is None else [given]), source, *edits]
        write_picture(self.file(SHEET), grid([fit(p, SIDE) for p in shown], columns=len(shown), gap=6))
        for i, edit in enumerate(edits):
            write_picture(self.file(f"edit-{i:02d}.png"), edit)
        write_bytes(self.file(ANIMATION), gif([grid(list(frame)) for frame in frames], longest=512))
        write_text(self.file(PAGE), edit_page(record, given, source, edits, frames, labels))
        if (self.path / INVERSION).exists():
            names.append(INVERSION)
        self.end(record, names)


def edit_page(
    record: dict, given: Tensor | None, source: Tensor, edits: Tensor, frames: Sequence[Tensor], labels
) -> str:
    """The page of the edits of one picture."""
    before, targets = record["from"], record["to"]
    asked = ", ".join(f"<strong class=to>“{text(target)}”</strong>" for target in targets)
    began = "inverted" if record["picture"] else "drawn by the model"
    lead = (
        f"<p>A picture of <strong class=from>“{text(before)}”</strong>, {began}, became {asked} on its way "
        f"out of noise: {text(record['steps'])} DDIM steps of {text(record['model'])}, guided by CLIP "
        f"({text(record['encoder'])}) and the source's features, in {record['seconds']:.1f} seconds.</p>"
    )
    shown = [] if given is None else [picture(given, f"The picture given: {before}", "given")]
    shown.append(picture(source, f"The source out of noise: {before}", "the source, out of its noise again"))
    shown += [picture(edit, f"The edit: {name}", text(name)) for edit, name in zip(edits, targets)]
    history = torch.tensor(
        [[[v or 0.0 for v in edit] for edit in step] for step in record["history"]], dtype=torch.float32
    )
    curves = [chart(history[:, i], record["terms"]) for i in range(len(targets))]
    ways = [
        film([fit(frame[i], 128) for frame in frames], name, labels=labels) for i, name in enumerate(targets)
    ]
    facts = [
        ("steps", text(record["steps"])),
        ("time", f"{record['seconds']:.1f} s ({record['steps_per_second']:.1f} steps/s)"),
        ("peak memory", f"{record['peak_memory_mib']:.0f} MiB"),
        ("picture", f"{source.shape[2]} x {source.shape[1]} pixels"),
        ("precision", text(record["dtype"])),
        ("seed", text(record["seed"])),
        ("machine", text(record["machine"]["gpu"] or record["machine"]["cpu"])),
    ]
    return page(
        f"{before} → {targets[0]}" if len(targets) == 1 else f"Edits of {before}",
        lead,
        [
            section("Before and after", row(*shown)),
            section(
                "On the way",
                *ways,
                figure(
                    gif([grid(list(f)) for f in frames]), "The edits on their way out of noise", kind="gif"
                ),
            ),
            section("Losses", *curves, note="Each curve on its own scale; 0 where a step was not guided."),
            section(
                "The run",
                table(("what", "value"), facts),
                details("Every setting", record["config"]),
                details("Versions", record["versions"]),
            ),
        ],
    )
