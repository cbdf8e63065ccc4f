"""A run as HTML: where it stands, what it made, what it was asked. What somebody typed is shown as text."""

import html
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ..runs.folder import RECORD
from ..runs.worker import PREVIEW
from .shelf import FAILED, FINISHED, GOING, INPUTS, RUNNING, STOPPED, WAITING, Asked, Shelf

PICTURES, FILMS, REPORT = (".gif", ".png"), (".mp4",), "report.html"
WARNING = "Warning: "
NOTHING = '<p class="quiet">No run is shown. Begin one, or choose one from the runs.</p>'
NONE_YET = '<p class="quiet">There are no runs yet.</p>'
NO_THUMB = '<span class="thumb"></span>'
MOST_LISTED = 200  # runs


def text(value: object) -> str:
    """Text as HTML."""
    return html.escape(str(value))


def address(path: Path, mark: object = "") -> str:
    """Where the page's server has a file; another ``mark`` is another file to a browser."""
    return text(f"gradio_api/file={quote(str(path))}" + (f"?{quote(str(mark))}" if mark != "" else ""))


def standing(asked: Asked, shelf: Shelf, before: int | None) -> str:
    """Where a run stands: its state, how far it has come, its newest picture, and why it ended."""
    parts = [
        f'<h2 id="run-title">{text(asked.command)} <small>{text(asked.name)}</small> '
        f'<span class="state {asked.state}">{asked.state}</span></h2>'
    ]
    if asked.state == WAITING and before is not None:
        parts.append(f"<p>{_place(before)}</p>")
    if asked.state in (RUNNING, STOPPED):
        parts.append(_progress(asked, shelf))
    if asked.state in (FAILED, STOPPED) and asked.reason:
        role = ' role="alert"' if asked.state == FAILED else ""
        parts.append(f'<p class="reason {asked.state}"{role}>{text(asked.reason)}</p>')
    if asked.state == STOPPED:
        parts.append(f'<p class="quiet">What was reached is kept in {text(shelf.of(asked.name))}.</p>')
    return "".join(parts)


def _place(before: int) -> str:
    runs = "one run is" if before == 1 else f"{before} runs are"
    return "It is the next." if not before else f"It waits in line: {runs} before it."


def _progress(asked: Asked, shelf: Shelf) -> str:
    seen = shelf.progress(asked.name)
    if seen is None:
        return "<p>Models are being loaded.</p>" if asked.state == RUNNING else ""
    done, total, pictures = seen.get("done"), seen.get("total"), seen.get("pictures")
    known = isinstance(total, int) and total > 0 and isinstance(done, int)
    bar = f'<progress max="{total}" value="{done}"></progress>' if known else "<progress></progress>"
    count = f"{done} of {total} {seen.get('unit')}" if known else ""
    said = ", ".join(str(part) for part in (count, seen.get("loss"), seen.get("speed")) if part)
    shown = f"{bar if known or asked.state == RUNNING else ''}<p>{text(seen.get('label'))}: {text(said)}</p>"
    if pictures:
        picture = address(shelf.kept(asked.name) / PREVIEW, pictures)
        shown += f'<img class="preview" src="{picture}" alt="the newest picture">'
    return shown


def result(asked: Asked, shelf: Shelf) -> str:
    """What a run made, warned of, and was asked."""
    made = _made(asked, shelf) if asked.state == FINISHED else ""
    log = shelf.log(asked.name) if asked.state not in GOING else ""
    warnings = [line for line in log.splitlines() if line.startswith(WARNING)]
    warned = "".join(f'<p class="warning">{text(line)}</p>' for line in dict.fromkeys(warnings))
    rows = "".join(f"<tr><th>{text(k)}</th><td>{text(_shown(v))}</td></tr>" for k, v in asked.said.items())
    what = f"<details open><summary>What was asked</summary><table>{rows}</table></details>"
    said = f"<details><summary>What it printed</summary><pre>{text(log)}</pre></details>" if log else ""
    return made + warned + what + said


def _shown(value: object) -> str:
    """A value that was asked for: several in a line each, a picture by its name."""
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if isinstance(value, str) and f"/{INPUTS}/" in value:
        return Path(value).name
    return str(value)


def _made(asked: Asked, shelf: Shelf) -> str:
    """The pictures of a finished run, and links to all its files."""
    place, record = shelf.of(asked.name), shelf.record(asked.name) or {}
    files = record.get("files")
    names = sorted(files) if isinstance(files, Mapping) else []
    names = [name for name in names if (place / name).is_file()]
    top = [name for name in names if "/" not in name]
    pictures = "".join(
        f'<figure><img src="{address(place / name)}" alt="{text(name)}"><figcaption>{text(name)}</figcaption>'
        "</figure>"
        for ending in PICTURES
        for name in top
        if name.endswith(ending)
    )
    films = "".join(
        f'<video controls loop src="{address(place / name)}"></video>' for name in top if name.endswith(FILMS)
    )
    report = ""
    if REPORT in names:
        report = f"<p>{_link(place / REPORT, 'The report')} has every setting, and how it went.</p>"
    links = "".join(f"<li>{_link(place / name, name)}</li>" for name in (*names, RECORD))
    listed = f"<details><summary>All {len(names) + 1} files</summary><ul>{links}</ul></details>"
    where = f'<p class="quiet place">In {text(place)}.</p>'
    return f'<div class="made">{films}{pictures}</div>{report}{listed}{where}'


def _link(path: Path, called: str) -> str:
    return f'<a href="{address(path)}" target="_blank" rel="noopener">{text(called)}</a>'


def browser(shelf: Shelf, shown: str) -> str:
    """All runs, the newest first, each a link to itself."""
    runs = shelf.all()
    if not runs:
        return NONE_YET
    items = "".join(_item(asked, shelf, asked.name == shown) for asked in runs[:MOST_LISTED])
    more = f'<p class="quiet">And {len(runs) - MOST_LISTED} more, in {text(shelf.out)}.</p>'
    return f'<ul class="runs">{items}</ul>{more if len(runs) > MOST_LISTED else ""}'


def _item(asked: Asked, shelf: Shelf, shown: bool) -> str:
    picture = shelf.kept(asked.name) / PREVIEW
    image = NO_THUMB
    if picture.is_file():
        image = f'<img class="thumb" src="{address(picture, asked.state)}" alt="">'
    texts = [value for value in asked.said.values() if isinstance(value, str | list)]
    what = " · ".join(" → ".join(_shown(value).split("\n")) for value in texts)
    here = ' aria-current="true"' if shown else ""
    return (
        f'<li><a href="?run={text(asked.name)}"{here}>{image}<span class="what"><b>{text(asked.name)}</b> '
        f'<span class="state {asked.state}">{asked.state}</span><br><span class="quiet">{text(what)}</span>'
        f"</span></a></li>"
    )


def refusal(sentence: str) -> str:
    """Why what was asked for cannot be."""
    return f'<p class="reason failed" role="alert">{text(sentence)}</p>' if sentence else ""
