"""The folder that diffusion edits leave behind."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..media.pictures import fit, gif, grid
from .page import chart, details, figure, film, page, picture, row, section, table, text

SIDE = 192  # longest side of a picture on the sheet


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
