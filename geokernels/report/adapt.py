"""The page of an adaptation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .page import (
    OWN_SCALES,
    asked,
    cost,
    figure,
    guided,
    losses,
    origin,
    page,
    row,
    run_section,
    section,
    table,
    text,
)

ROWS = 4  # samples that the strip follows
REAL = ("given", "inverted", "by the adapted generator")  # what is shown of a real picture


class ShownAdaptation(NamedTuple):
    """The pictures of an adaptation, as files of PNG and GIF hold them."""

    before: bytes  # a grid of samples
    after: bytes  # the same latents
    animation: bytes
    strip: bytes  # ``ROWS`` samples over the steps, a row a sample
    labels: Sequence[str]  # a word for each of its columns
    real: Sequence[bytes] = ()  # as ``REAL`` names them, where a real picture was inverted


def adapt_page(record: dict, shown: ShownAdaptation) -> str:
    """The page of one adaptation; ``record`` as in ``run.json``."""
    before, (after,) = record["from"], record["to"]
    lead = (
        f"<p>The generator {text(record['model'])} was moved from {asked(before, 'from')} to "
        f"{asked(after, 'to')}, {guided(record, 'adapt')}. No picture was shown to it.</p>"
    )
    samples = row(
        figure(shown.before, f"Samples before: {before}", "before"),
        figure(shown.after, f"The same latents after: {after}", "after"),
        figure(shown.animation, f"Animation from {before} to {after}", "on the way"),
    )
    along = figure(shown.strip, f"{ROWS} samples over the steps", text(" · ".join(shown.labels)))
    facts = cost(record, "adapt")
    facts += [("start by transport of codes", _start(record["start"])), *origin(record)]
    sections = [section("Samples", samples, note="Latents that the adaptation never visited.")]
    if record["judged"]:
        sections.append(section("The judge", _verdict(record["judged"])))
    if shown.real:
        real = [figure(data, f"The real picture, {name}", name) for data, name in zip(shown.real, REAL)]
        sections.append(section("A real picture", row(*real)))
    sections += [
        section("Metamorphosis", along, note="Each row is one latent; each column a kept step."),
        section("Losses", losses(record, "adapt"), note=OWN_SCALES),
        run_section(record, *facts, settings={"Every setting": record["config"]["adapt"]}),
    ]
    return page(f"{before} → {after}", lead, sections)


def _start(start: Mapping | None) -> str:
    if start is None:
        return "not looked for"
    return f"cosine {start['cosine']:.2f}, {'taken' if start['taken'] else 'left'}"


def _verdict(judged: Mapping[str, Mapping]) -> str:
    """What the judge reads in the samples before and after, an attribute a row."""
    rows = []
    for name, shares in judged.items():
        before, after, kept = (f"{shares[key]:.0%}" for key in ("before", "after", "kept"))
        wanted = (text(shares["asked"]), before, after) if shares["asked"] else ("", "", "")
        rows.append((text(name), *wanted, kept))
    return table(("attribute", "asked", "as asked before", "as asked after", "as it was"), rows)
