"""The folder that an adaptation leaves behind."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..media.pictures import gif, grid, png
from .page import chart, details, figure, page, picture, row, section, table, text

ROWS = 4  # samples that the strip follows


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
