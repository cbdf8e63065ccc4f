"""The folder that a morph leaves behind."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import lay_over
from ..media.pictures import chequered, fit, gif
from ..pipelines import Layers
from .page import chart, details, figure, film, page, picture, row, section, table, text


def morph_page(
    record: dict,
    source: Tensor,
    result: Tensor,
    frames: Sequence[Tensor],
    labels: Sequence[str],
    layers: Layers | None = None,
) -> str:
    """The page of one morph."""
    before, after = record["from"], record["to"]
    lead = (
        f"<p>The picture was moved along the direction from <strong class=from>“{text(before)}”</strong> to "
        f"<strong class=to>“{text(after)}”</strong>, guided by CLIP "
        f"({text(', '.join(record['encoders']))}) with the "
        f"{text(record['config']['loss'])} loss, in {record['seconds']:.1f} seconds.</p>"
    )
    history = torch.tensor(record["history"], dtype=torch.float32)
    pictures = row(
        picture(source, f"The picture before: {before}", "before"),
        picture(result, f"The picture after: {after}", "after"),
        figure(gif(frames), f"Animation from {before} to {after}", "on the way", kind="gif"),
    )
    facts = [
        ("steps", text(record["config"]["steps"])),
        ("time", f"{record['seconds']:.1f} s ({record['steps_per_second']:.1f} steps/s)"),
        ("peak memory", f"{record['peak_memory_mib']:.0f} MiB"),
        ("picture", f"{source.shape[2]} x {source.shape[1]} pixels"),
        ("seed", text(record["seed"])),
        ("machine", text(record["machine"]["gpu"] or record["machine"]["cpu"])),
    ]
    return page(
        f"{before} → {after}",
        lead,
        [
            section("Before and after", pictures),
            *([] if layers is None else [layer_section(layers)]),
            section("On the way", film([fit(f, 128) for f in frames], after, labels=labels)),
            section("Losses", chart(history, record["terms"]), note="Each curve on its own scale."),
            section(
                "The run",
                table(("what", "value"), facts),
                details("Every setting", record["config"]),
                details("Versions", record["versions"]),
            ),
        ],
    )


def layer_section(layers: Layers) -> str:
    """The edit by itself, and how much of it covers the picture."""
    alone = lay_over(layers.edit, layers.alpha, chequered(layers.edit))
    kept = (layers.alpha == 0).float().mean().item()
    return section(
        "The edit layer",
        row(
            picture(alone, "The edit by itself, over chequers where it is transparent", "the edit"),
            picture(
                layers.alpha.expand(3, -1, -1), "The opacity of the edit, white where it covers", "alpha"
            ),
        ),
        note=f"{kept:.1%} of the picture is not touched by it.",
    )
