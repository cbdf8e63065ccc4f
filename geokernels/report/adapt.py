"""The page of an adaptation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .page import asked, figure, guided, loss_sections, page, row, run_section, section, table, text

ROWS = 4  # samples that the strip follows
JUDGE = (
    "Shares of the samples, read by image analysis without any trained model: how many show what was asked "
    "for before and after, and how many show the same as before."
)
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
        f"<p>The generator “{text(record['model'])}” was trained to draw {asked(after, 'to')} where it drew "
        f"{asked(before, 'from')}, {guided(record, 'adapt')} It was given these two texts and no pictures to "
        "imitate.</p>"
    )
    samples = row(
        figure(shown.before, f"Samples before: {before}", "before"),
        figure(shown.after, f"The same latents after: {after}", "after"),
        figure(shown.animation, f"Animation from {before} to {after}", "on the way"),
    )
    along = figure(shown.strip, f"{ROWS} samples over the steps")
    sections = [section("Samples", samples, note="Random latents, none of which it was trained on.")]
    if record["judged"]:
        sections.append(section("The judge", _verdict(record["judged"]), note=JUDGE))
    if shown.real:
        real = [figure(data, f"The real picture, {name}", name) for data, name in zip(shown.real, REAL)]
        sections.append(section("A real picture", row(*real)))
    sections += [
        section("On the way", along, note=f"Each row is one latent. Columns: {', '.join(shown.labels)}."),
        *loss_sections(record),
        run_section(record, ("trained from", _start(record["start"]))),
    ]
    return page(f"{before} → {after}", lead, sections)


def _start(start: Mapping | None) -> str:
    """Where training began: at the generator given, or where transport of its codes leads."""
    if start is None:
        return "the generator as it was"
    if start["taken"]:
        return f"the generator with its codes moved by transport (cosine {start['cosine']:.2f})"
    return f"the generator as it was (with its codes moved by transport: cosine {start['cosine']:.2f})"


def _verdict(judged: Mapping[str, Mapping]) -> str:
    """What the judge reads in the samples before and after, an attribute a row."""
    rows = []
    for name, shares in judged.items():
        before, after, kept = (f"{shares[key]:.0%}" for key in ("before", "after", "kept"))
        wanted = (text(shares["asked"]), before, after) if shares["asked"] else ("", "", "")
        rows.append((text(name), *wanted, kept))
    return table(("attribute", "asked for", "before", "after", "kept"), rows)
