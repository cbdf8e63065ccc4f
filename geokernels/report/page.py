"""What every report page is made of: plain HTML with everything inlined, so that one file opens offline.

A page is built from a record, as ``run.json`` holds it, and from the bytes of PNG and GIF files. What every
report shows (:func:`run_section`, :func:`loss_sections`, :func:`guided`, the template) is changed here alone.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

TEMPLATE = Path(__file__).parent / "templates" / "page.html"
SHOWN = 10  # frames of a film
PICTURE_SIDE, FILM_SIDE = 448, 128  # longest sides, in pixels, that a picture and a film's frame need
WIDTH, HEIGHT, MARGIN = 640, 220, 8  # of a chart, in its own units
OWN_SCALES = "Each curve is scaled to its own range; the numbers are its first and its last value."
# what the steps of a stage are, where not just steps
UNITS = {"samples": "samples", "edits": "results", "jobs": "jobs"}
NAMES = {"invert": "the inversion", "adapt": "the adaptation", "atlas": "the atlas", "edit": "the edit"}
INKS = tuple(f"var(--ink-{i})" for i in range(1, 9))


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """A whole document; ``title`` is text, ``lead`` and ``sections`` are HTML."""
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=text(title), lead=lead, sections="\n".join(sections)
    )


def run_section(
    record: Mapping, *facts: tuple[str, str], settings: Mapping[str, object] | None = None, note: str = ""
) -> str:
    """The last card of every page: what the run cost, what it was told, and what it ran on.

    Args:
        record: As in ``run.json``.
        facts: Names, and values as HTML, of what the command has to say besides.
        settings: All of them; those of every stage if not given.
        note: Text under the title.
    """
    unfolding = {"Every setting": settings} if settings else _settings(record)
    unfolding["Versions"] = record["versions"]
    return section(
        "The run",
        table(("what", "value"), [*facts, *_common_facts(record)]),
        *(details(heading, values) for heading, values in unfolding.items()),
        note=note,
    )


def _common_facts(record: Mapping) -> list[tuple[str, str]]:
    """What every run has to say of itself."""
    machine, seeds = record["machine"], record["seeds"]
    facts = [_speed(record, stage) for stage in record["steps"]]
    facts.append(("time in all", lasted(record)))
    facts.append(("peak memory", f"{record['peak_memory_mib']:.0f} MiB"))
    if record["encoders"]:
        facts.append(("CLIP", _encoders(record)))
    if seeds:
        facts.append(("seed" if len(seeds) == 1 else "seeds", ", ".join(map(str, seeds))))
    facts.append(("machine", text(machine["gpu"] or f"{machine['cpu']}, threads: {machine['threads']}")))
    return facts


def _speed(record: Mapping, stage: str) -> tuple[str, str]:
    """How many steps a stage took, and how fast."""
    count, seconds = record["steps"][stage], record["seconds"][stage]
    slow = count and seconds > count
    speed = f"{seconds / count:.3g} s each" if slow else f"{count / max(seconds, 1e-9):.3g} a second"
    steps = "steps" if len(record["steps"]) == 1 else f"steps of {_name(stage)}"
    return text(UNITS.get(stage, steps)), f"{count} ({speed})"


def _settings(record: Mapping) -> dict[str, Mapping]:
    """The settings of every stage, by the heading under which they unfold."""
    config = record["config"]
    if len(config) == 1:
        return {"Every setting": next(iter(config.values()))}
    return {f"Every setting of {_name(stage)}": values for stage, values in config.items()}


def _name(stage: str) -> str:
    """A stage as sentences call it."""
    return NAMES.get(stage, stage)


def _encoders(record: Mapping) -> str:
    return text(", ".join(record["encoders"]))


def loss_sections(record: Mapping) -> list[str]:
    """A card for each stage that minimised anything: its losses over its steps."""
    stages = [stage for stage, terms in record["terms"].items() if terms]
    sections = []
    for stage in stages:
        heading = "Losses" if len(stages) == 1 else f"Losses of {_name(stage)}"
        curves = chart(record["history"][stage], record["terms"][stage])
        sections.append(section(heading, curves, note=OWN_SCALES))
    return sections


def asked(prompt: str, role: str) -> str:
    """A prompt as leads quote it; ``role`` is ``from`` or ``to``."""
    return f"<strong class={role}>“{text(prompt)}”</strong>"


def lasted(record: Mapping) -> str:
    """How long a run took."""
    return f"{record['seconds']['total']:.1f} seconds"


def guided(record: Mapping, stage: str) -> str:
    """The end of a lead: by what a stage of a run was guided, and how long the run took."""
    loss = text(record["config"][stage]["loss"])
    return f"guided by CLIP ({_encoders(record)}) with the {loss} loss. This took {lasted(record)}."


def text(value: object) -> str:
    """Text made safe for HTML."""
    return html.escape(str(value))


def section(heading: str, *parts: str, note: str = "") -> str:
    """A titled card; ``note`` is text under the title."""
    small = f"<p class=note>{text(note)}</p>" if note else ""
    return f"<section><h2>{text(heading)}</h2>{small}{''.join(parts)}</section>"


def figure(data: bytes, alt: str, caption: str = "") -> str:
    """An inlined PNG or GIF; ``caption`` is HTML."""
    kind = "gif" if data.startswith(b"GIF8") else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{text(alt)}">{below}</figure>'


def row(*figures: str) -> str:
    """Figures side by side, wrapping on narrow screens."""
    return f"<div class=row>{''.join(figures)}</div>"


def film(frames: Sequence[bytes], alt: str, *, labels: Sequence[str] = (), wide: bool = False) -> str:
    """At most ``SHOWN`` of the frames, first and last among them, in a line that scrolls where it must.

    ``wide`` frames are pictures side by side, and get twice the room.
    """
    labels = labels or [""] * len(frames)
    count = min(SHOWN, len(frames))
    chosen = sorted({round(i * (len(frames) - 1) / max(count - 1, 1)) for i in range(count)})
    shown = [figure(frames[i], f"{alt}, frame {i + 1} of {len(frames)}", text(labels[i])) for i in chosen]
    kind = "film wide" if wide else "film"
    return f'<div class="{kind}" tabindex=0>{"".join(shown)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML."""
    top = "".join(f"<th scope=col>{text(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th scope=row>{cells[0]}</th>{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>"
        for cells in rows
    )
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def details(summary: str, values: Mapping[str, object]) -> str:
    """Facts that unfold on a click."""
    rows = [(text(key), f"<code>{text(value)}</code>") for key, value in values.items()]
    return f"<details><summary>{text(summary)}</summary>{table(('what', 'value'), rows)}</details>"


def chart(
    history: Sequence[Sequence[float]],
    terms: Sequence[str],
    *,
    one_scale: bool = False,
    what: str = "Loss terms",
) -> str:
    """Curves of every term over the steps, each on its own scale from its least to its largest value.

    Args:
        history: A row a step, of as many numbers as there are terms.
        terms: Names of the curves.
        one_scale: Whether all curves share one scale, from 0.
        what: What the curves are, for readers who do not see them.
    """
    top = max(map(max, history), default=0.0)
    lines, keys = [], []
    for i, (name, values) in enumerate(zip(terms, zip(*history))):
        low, high = (0.0, top) if one_scale else (min(values), max(values))
        ink, ends = INKS[i % len(INKS)], f"{values[0]:.3g} → {values[-1]:.3g}"
        if high == low:
            ink, ends = "none", f"{low:.3g} throughout"
        elif len(values) > 1:
            lines.append(_curve(values, low, high, ink))
        keys.append(f'<li><i style="background:{ink}"></i>{text(name.replace("_", " "))} <b>{ends}</b></li>')
    label = f"{what} over {len(history)} steps"
    shape = f'viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none"'
    drawing = f'<svg {shape} role="img" aria-label="{label}">{"".join(lines)}</svg>'
    below = f"<p><span>step 1</span><span>step {len(history)}</span></p>"
    return f"<div class=chart>{drawing}{below}<ul>{''.join(keys)}</ul></div>"


def _curve(values: Sequence[float], low: float, high: float, ink: str) -> str:
    """Values between ``low`` and ``high`` as a line from the left edge of a chart to its right."""
    across, up = WIDTH / (len(values) - 1), (HEIGHT - 2 * MARGIN) / (high - low)
    points = " ".join(
        f"{k * across:.1f},{HEIGHT - MARGIN - (value - low) * up:.1f}" for k, value in enumerate(values)
    )
    return f'<polyline points="{points}" stroke="{ink}"/>'


def badge(value: str, good: bool | None) -> str:
    """A value marked right, wrong, or neither."""
    kind, sign = {True: ("good", " ✓"), False: ("bad", " ✗"), None: ("plain", "")}[good]
    return f"<span class='badge {kind}'>{text(value)}{sign}</span>"
