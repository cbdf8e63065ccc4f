"""The page of the demonstration, for somebody who has never heard of any of this."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .page import badge, figure, film, page, row, run_section, section, table, text

NONE = "none of these"  # said of an attribute that the judge cannot name


class ShownMorph(NamedTuple):
    """What one loss made of a picture, as files of PNG and GIF hold it."""

    after: bytes
    animation: bytes
    frames: Sequence[bytes]


class ShownEdit(NamedTuple):
    """One edit of one scene."""

    source: bytes
    drawn: bytes  # the target, by the renderer
    morphs: Mapping[str, ShownMorph]  # by loss


class ShownWalk(NamedTuple):
    """A straight line between two points of a latent space."""

    start: bytes
    end: bytes
    animation: bytes
    frames: Sequence[bytes]
    labels: Sequence[str]  # what the judge reads in each of them


class Shown(NamedTuple):
    """The pictures of a demonstration; None for a part that was left out, whose reason is in the record."""

    blend: ShownWalk | None  # between two photographs
    edits: Sequence[ShownEdit]
    walk: ShownWalk
    line: ShownWalk | None  # between two prompts
    drawn: Sequence[bytes] | None  # a picture a prompt


def demo_page(record: dict, shown: Shown) -> str:
    """The report; ``record`` as in ``run.json``."""
    edits = record["morphs"]
    small = f"{len(edits)} pictures are an illustration; benchmarks/quality/morph.py measures hundreds."
    return page(
        "A picture, moved by a sentence",
        LEAD,
        [
            _blend_section(record["photographs"], shown.blend),
            section("What the judge found", _summary(edits), note=small),
            *(_edit_section(i, edit, pictures) for i, (edit, pictures) in enumerate(zip(edits, shown.edits))),
            _walk_section("A walk through a generator", record["walk"], shown.walk, WALK),
            _walk_section("Between two prompts", record["between_prompts"], shown.line, LINE),
            _prompts_section("Prompts it has never read", record["drawn"], shown.drawn),
            run_section(record),
        ],
    )


def _blend_section(facts: Mapping, shown: ShownWalk | None) -> str:
    """Two photographs, and the film between them."""
    heading = "One photograph becomes another"
    if shown is None:
        return _left_out(heading, facts["left_out"])
    first, second = facts["first"], facts["second"]
    pictures = row(
        figure(shown.start, f"The first photograph: {first}", text(first)),
        figure(shown.animation, f"Animation from {first} to {second} and back", "there and back"),
        figure(shown.end, f"The last photograph: {second}", text(second)),
    )
    strip = film(shown.frames, "on the way", labels=shown.labels)
    note = f"{len(facts['fixed'])} pairs of places were given by hand, such as eyes, nose and mouth."
    return section(heading, f"<p>{BLEND}</p>", pictures, strip, f"<p class=note>{note}</p>")


def _summary(edits: Sequence[Mapping]) -> str:
    """How each loss fared, as a table."""
    rows = []
    for loss in edits[0]["morphs"]:
        morphs = [edit["morphs"][loss] for edit in edits]
        count = len(morphs)
        total = {key: sum(m[key] for m in morphs) for key in ("reached", "kept", "right", "psnr", "seconds")}
        rows.append(
            (
                text(f"{loss} loss"),
                f"{total['reached']} of {count}",
                f"{100 * total['kept'] / count:.0f}%",
                f"{total['right']} of {count}",
                f"{total['psnr'] / count:.1f} dB",
                f"{total['seconds'] / count:.1f} s",
            )
        )
    head = (
        "",
        "asked change made",
        "other attributes kept",
        "all right at once",
        "untouched region, PSNR",
        "time a picture",
    )
    return table(head, rows)


def _edit_section(index: int, edit: Mapping, shown: ShownEdit) -> str:
    """One edit: what was asked, what came of it, what the judge saw."""
    before, after = edit["from"], edit["to"]
    results = [
        figure(
            pictures.after,
            f"After the {loss} loss: {after}",
            f"<b>{loss}</b> loss, {edit['morphs'][loss]['seconds']:.1f} s",
        )
        for loss, pictures in shown.morphs.items()
    ]
    pictures = row(
        figure(shown.source, f"Source picture: {before}", "the source"),
        *results,
        figure(shown.morphs["geodesic"].animation, "Animation of the geodesic morph", "geodesic, on the way"),
        figure(shown.drawn, f"Drawn by the renderer: {after}", "for comparison: drawn from the target text"),
    )
    films = [
        f"<p class=note>{loss} loss, from the source to the last step</p>"
        + film(pictures.frames, f"{loss} loss: {after}")
        for loss, pictures in shown.morphs.items()
    ]
    attribute = edit["attribute"]
    note = f"Asked for: another {'object ' if attribute == 'colour' else ''}{attribute}."
    return section(f"{index + 1}. {before} → {after}", pictures, *films, _readings(edit), note=note)


def _readings(edit: Mapping) -> str:
    """What the judge sees before and after, an attribute a row."""
    morphs, rows = edit["morphs"], []
    for name, wanted in edit["wanted"].items():
        asked = f"<b>{text(wanted)}</b>" if name == edit["attribute"] else text(wanted)
        seen = [morph["seen"][name] for morph in morphs.values()]
        marks = (badge(value or NONE, value == wanted) for value in seen)
        rows.append((text(name), text(edit["seen_before"][name] or NONE), asked, *marks))
    return table(
        ("", "judge sees before", "should be after", *(f"{loss}: sees after" for loss in morphs)), rows
    )


def _walk_section(heading: str, walk: Mapping, shown: ShownWalk | None, lead: str) -> str:
    """A walk: both ends, the animation, a film with the judge's reading under each picture."""
    if shown is None:
        return _left_out(heading, walk["left_out"])
    start, end = walk["ends"]
    pictures = row(
        figure(shown.start, f"Start of the walk: {start}", f"start: {text(start)}"),
        figure(shown.animation, "Animation of the walk", "on the way"),
        figure(shown.end, f"End of the walk: {end}", f"end: {text(end)}"),
    )
    strip = film(shown.frames, "on the way", labels=shown.labels)
    steps, largest = len(shown.frames) - 1, walk["largest_over_mean_step"]
    note = f"The largest of {steps} steps is {largest:.1f} times the mean step."
    return section(heading, f"<p>{lead}</p>", pictures, strip, f"<p class=note>{note}</p>")


def _prompts_section(
    heading: str, prompts: Sequence[Mapping] | Mapping, shown: Sequence[bytes] | None
) -> str:
    """Pictures of prompts, with what the judge reads marked right or wrong."""
    if shown is None:
        return _left_out(heading, prompts["left_out"])
    cards = [
        figure(data, one["prompt"], f"{text(one['prompt'])}<br>{_marks(one)}")
        for data, one in zip(shown, prompts)
    ]
    n, attributes = len(prompts), list(prompts[0]["wanted"])
    right = [[one["seen"][a] == one["wanted"][a] for a in attributes] for one in prompts]
    counts = [f"{sum(column)} of {n}" for column in zip(*right)]
    judged = table(("", *attributes, "all five"), [("as asked", *counts, f"{sum(map(all, right))} of {n}")])
    return section(heading, f"<p>{PROMPTS}</p>", judged, row(*cards))


def _marks(prompt: Mapping) -> str:
    seen = prompt["seen"]
    return " ".join(badge(seen[a] or f"no {a}", seen[a] == value) for a, value in prompt["wanted"].items())


def _left_out(heading: str, reason: str) -> str:
    """A part that could not run here, and why."""
    return section(heading, f"<p>This part was left out: {text(reason)}.</p>")


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
BLEND = (
    "No text and no model takes part: places of the two photographs that look alike are matched by optimal "
    "transport, and both pictures are moved to where their places meet. The first and the last frame are the "
    "photographs to the bit. <code>geokernels blend</code> does this with any two pictures."
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
