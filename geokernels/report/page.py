"""Pieces of a report page: plain HTML with everything inlined, so that one file opens offline."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import torch
from torch import Tensor

from ..media.pictures import fit, png

TEMPLATE = Path(__file__).parent / "templates" / "page.html"
SHOWN = 10  # frames of a film
WIDTH, HEIGHT = 640, 220  # of a chart, in its own units
INKS = ("var(--ink-1)", "var(--ink-2)", "var(--ink-3)", "var(--ink-4)", "var(--ink-5)", "var(--ink-6)")


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """A whole document; ``title`` is text, ``lead`` and ``sections`` are HTML."""
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=text(title), lead=lead, sections="\n".join(sections)
    )


def text(value: object) -> str:
    """Text made safe for HTML."""
    return html.escape(str(value))


def section(heading: str, *parts: str, note: str = "") -> str:
    """A titled card; ``note`` is text under the title."""
    small = f"<p class=note>{text(note)}</p>" if note else ""
    return f"<section><h2>{text(heading)}</h2>{small}{''.join(parts)}</section>"


def figure(data: bytes, alt: str, caption: str = "", *, kind: str = "png", name: str = "") -> str:
    """An inlined picture; ``caption`` is HTML."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="{name}"><img src="{source}" alt="{text(alt)}">{below}</figure>'


def picture(rgb: Tensor, alt: str, caption: str = "", *, longest: int = 448) -> str:
    """An inlined picture of at most ``longest`` pixels a side; small ones are enlarged crisply."""
    return figure(png(fit(rgb, longest)), alt, caption)


def row(*figures: str) -> str:
    """Figures side by side, wrapping on narrow screens."""
    return f"<div class=row>{''.join(figures)}</div>"


def film(frames: Sequence[Tensor], alt: str, *, labels: Sequence[str] = ()) -> str:
    """At most ``SHOWN`` of the frames, first and last among them, in a line that scrolls where it must."""
    labels = labels or [""] * len(frames)
    count = min(SHOWN, len(frames))
    chosen = sorted({round(i * (len(frames) - 1) / max(count - 1, 1)) for i in range(count)})
    shown = [
        figure(png(fit(frames[i], 128)), f"{alt}, frame {i + 1} of {len(frames)}", text(labels[i]))
        for i in chosen
    ]
    return f'<div class="film" tabindex=0>{"".join(shown)}</div>'


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


def chart(history: Tensor, terms: Sequence[str], *, one_scale: bool = False, what: str = "Loss terms") -> str:
    """Curves of every term over the steps, each on its own scale from its least to its largest value.

    With ``one_scale`` all share one, from 0.
    """
    lines, keys = [], []
    for i, (name, values) in enumerate(zip(terms, history.T)):
        low, high = values.min().item(), values.max().item()
        if one_scale:
            low, high = 0.0, history.max().item()
        if len(values) < 2 or high == low:
            continue
        x = torch.linspace(0, WIDTH, len(values), dtype=torch.float32)
        y = HEIGHT - 8 - (values - low) / (high - low) * (HEIGHT - 16)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist()))
        ink = INKS[i % len(INKS)]
        lines.append(f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="2"/>')
        ends = f"{values[0].item():.3g} → {values[-1].item():.3g}"
        keys.append(f'<li><i style="background:{ink}"></i>{text(name.replace("_", " "))} <b>{ends}</b></li>')
    label = f"{what} over {len(history)} steps"
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(lines)}</svg>'
    return f"<div class=chart>{drawing}<ul>{''.join(keys)}</ul></div>"


def badge(value: str, good: bool | None) -> str:
    """A value marked right, wrong, or neither."""
    kind, sign = {True: ("good", " ✓"), False: ("bad", " ✗"), None: ("plain", "")}[good]
    return f"<span class='badge {kind}'>{text(value)}{sign}</span>"
