"""The page of a blend: which places of two pictures were matched, how surely, and the film between them."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

from .page import INKS, chart, figure, film, lasted, page, row, run_section, section, table, text

GAP = 0.04  # between the two pictures, as a share of their height
HEAD = ("path length", "smoothness", "largest step")


class ShownMatch(NamedTuple):
    """A place of the first picture and its partner in the second, in pixels, as x and y."""

    first: tuple[float, float]
    second: tuple[float, float]
    confidence: float | None  # None for what the user fixed


class ShownBlend(NamedTuple):
    """The pictures of a blend, as files of PNG and GIF hold them."""

    first: bytes
    second: bytes
    confidence_first: bytes
    confidence_second: bytes
    animation: bytes
    frames: Sequence[bytes]
    labels: Sequence[str]  # a word for each frame
    sides: tuple[tuple[int, int], tuple[int, int]]  # width and height of both pictures
    matches: Sequence[ShownMatch]


def blend_page(record: dict, shown: ShownBlend) -> str:
    """The page of one blend; ``record`` as in ``run.json``."""
    first, second = record["first"], record["second"]
    by = record["diffusion"]
    moved = "both pictures moved to where their places meet"
    if by is not None:
        moved = f"their latents moved to where their places meet; {text(by['model'])} drew what comes between"
    lead = (
        f"<p>A film of <strong>{text(first)}</strong> becoming <strong>{text(second)}</strong>. Places of "
        f"the two that look alike were matched by optimal transport, and {moved}. This took "
        f"{lasted(record)}.</p>"
    )
    width, height = record["size"]
    return page(
        f"{first} → {second}",
        lead,
        [
            section(
                "The film",
                row(
                    figure(shown.first, f"The first picture: {first}", text(first)),
                    figure(shown.animation, f"Animation from {first} to {second} and back", "there and back"),
                    figure(shown.second, f"The last picture: {second}", text(second)),
                ),
                film(shown.frames, f"From {first} to {second}", labels=shown.labels),
            ),
            _matches_section(record, shown),
            _path_section(record),
            run_section(record, ("frames", f"{width} x {height} pixels"), *_model_facts(record)),
        ],
    )


def _model_facts(record: dict) -> list[tuple[str, str]]:
    """Which model drew the frames in between, from which level of noise, and of which texts."""
    by, config = record["diffusion"], record["config"]["blend"]
    if by is None:
        return []
    said = [f"“{text(prompt)}”" if prompt else "nothing" for prompt in by["prompts"]]
    facts = [("model", f"{text(by['model'])} ({text(by['pipeline'])}, {text(by['dtype'])})")]
    facts.append(("drawn from", f"noise at {config['level']:g} of {config['steps']} steps"))
    if any(by["prompts"]):
        facts.append(("texts, from and to", " → ".join(said)))
    return facts


def _matches_section(record: dict, shown: ShownBlend) -> str:
    """Lines between the pictures, and how sure either map is, everywhere."""
    matches = record["matches"]
    means = [f"{100 * value:.0f}% on average" for value in matches["confidence"]]
    facts = [
        ("places that would have been folded over, and were smoothed", f"{100 * matches['folded']:.2g}%")
    ]
    if matches["fixed"]:
        missed = f"held to within {matches['missed']:.2g} pixels"
        facts.append((f"pairs fixed with --match: {len(matches['fixed'])}", missed))
    if record["masked"]:
        facts.append(("matched inside of their masks alone", text(", ".join(record["masked"]))))
    return section(
        "What was matched",
        _lines(shown),
        row(
            *(
                figure(data, f"Confidence of the matches of {name}", f"confidence, {mean}")
                for data, name, mean in zip(
                    (shown.confidence_first, shown.confidence_second),
                    (record["first"], record["second"]),
                    means,
                )
            )
        ),
        table(("what", "value"), facts),
        note="A line leads from a place of the first picture to its partner, the darker the surer; thick "
        "lines are fixed by hand. The maps below are white where a match is sure and black where there is "
        "none: there the pictures fade into each other, and their colours move.",
    )


def _lines(shown: ShownBlend) -> str:
    """Both pictures side by side, of one height, with a line for each match."""
    height = max(side[1] for side in shown.sides)
    scales = [height / side[1] for side in shown.sides]
    widths = [side[0] * scale for side, scale in zip(shown.sides, scales)]
    start = widths[0] + GAP * height
    pictures = [
        f'<image x="{x:.1f}" y="0" width="{width:.1f}" height="{height}" href="{_address(data)}"/>'
        for x, width, data in zip((0.0, start), widths, (shown.first, shown.second))
    ]
    lines = []
    for i, match in enumerate(shown.matches):
        (x, y), (u, v) = match.first, match.second
        ends = f'x1="{(x + 0.5) * scales[0]:.1f}" y1="{(y + 0.5) * scales[0]:.1f}"'
        ends += f' x2="{start + (u + 0.5) * scales[1]:.1f}" y2="{(v + 0.5) * scales[1]:.1f}"'
        by_hand = match.confidence is None
        look = f'stroke="{INKS[i % len(INKS)]}" stroke-width="{height / (120 if by_hand else 300):.2f}"'
        look += "" if by_hand else f' stroke-opacity="{match.confidence:.2f}"'
        lines.append(f"<line {ends} {look}/>")
    label = f"{len(shown.matches)} matches between the two pictures"
    size = f"0 0 {start + widths[1]:.1f} {height}"
    shape = f'viewBox="{size}" width="100%" role="img" aria-label="{label}"'
    return f"<svg {shape}>{''.join(pictures + lines)}</svg>"


def _address(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _path_section(record: dict) -> str:
    """How even the steps of the film are."""
    path, score = record["path"], record["path"]["score"]
    cells = (f"{score['length']:.3f}", f"{score['smoothness']:.3f}", f"{score['worst_step']:.2f} x mean")
    note = (
        "A step is the distance of two neighbouring frames by their details at every scale. Smoothness is 1 "
        "minus the Gini coefficient of the steps: 1 where all are equal."
    )
    curve = chart([[d] for d in path["distances"]], ["step"], one_scale=True, what="Distance of neighbours")
    return section("How even the steps are", table(HEAD, [cells]), curve, note=note)
