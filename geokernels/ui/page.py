"""The page: a form for each command, the runs, and one run as it goes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from . import panel
from .forms import PICTURE, Form
from .inputs import component
from .line import Line
from .look import SHOW
from .shelf import FAILED, GOING, STOPPED, Shelf

LOOK_EVERY = 1.0  # seconds
UNSEEN = {"show_progress": "hidden", "api_visibility": "private"}
CACHE = (3600, 86400)  # seconds between two looks for what was handed in and is not used, and its age
RUNS = "runs"
RESUME, AGAIN = "Resume", "Run again"  # by whether there is something to go on from
PLAIN = {"apply_default_css": False}


class Page:
    """The page of some forms.

    Args:
        forms: Of the commands.
        line: Where runs wait.
        examples: Pictures by the name by which the forms' examples call them.
        about: What all of it is for, in a sentence.
    """

    def __init__(self, forms: Sequence[Form], line: Line, examples: Mapping[str, Path], about: str):
        self.line, self.examples = line, examples

        with gr.Blocks(title="geokernels", analytics_enabled=False, delete_cache=CACHE) as self.blocks:
            gr.HTML(f"<h1>geokernels</h1><p>{panel.text(about)}</p>", elem_id="head", **PLAIN)
            self.shown, self.seen = gr.Textbox(visible=False), gr.State(())
            starts = []
            with gr.Row():
                with gr.Column(scale=6, min_width=320), gr.Tabs(elem_id="commands"):
                    for form in forms:
                        with gr.Tab(form.command, id=form.command):
                            starts += self._form(form)
                    with gr.Tab(RUNS, id=RUNS) as tab:
                        self.browser = gr.HTML(elem_id="browser", **PLAIN)
                with gr.Column(scale=5, min_width=320, elem_id="run"):
                    self.standing = gr.HTML(panel.NOTHING, elem_id="standing", elem_classes="of-run", **PLAIN)
                    with gr.Row():
                        self.cancel = gr.Button("Cancel", elem_id="cancel", visible=False, size="sm")
                        self.resume = gr.Button(RESUME, elem_id="resume", visible=False, size="sm")
                    self.result = gr.HTML(elem_id="result", elem_classes="of-run", **PLAIN)
            self.timer = gr.Timer(LOOK_EVERY)
            self._wire(starts, tab)

    def _form(self, form: Form) -> list[tuple]:
        """The form of a command; gives each button that begins a run, what it calls, and with what."""
        gr.Markdown(form.about)
        with gr.Row(elem_classes="examples"):
            examples = [gr.Button(_named(example), size="sm") for example in form.examples]
        parts = {}
        first = [field for field in form.fields if field.first]
        with gr.Row():
            for field in (field for field in first if field.kind == PICTURE):
                parts[field.name] = component(field, form.command)
        for field in (field for field in first if field.kind != PICTURE):
            parts[field.name] = component(field, form.command)
        with gr.Accordion("More options", open=False, elem_id=f"{form.command}-more"):
            for field in form.fields:
                if not field.first:
                    parts[field.name] = component(field, form.command)
        button = gr.Button(f"Run {form.command}", variant="primary", elem_id=f"{form.command}-run")
        refusal = gr.HTML(elem_id=f"{form.command}-refusal")
        names, components = list(parts), list(parts.values())

        def begin(*values) -> tuple[str, str]:
            try:
                return self.line.add(form, dict(zip(names, values, strict=True))), ""
            except ValueError as error:
                return gr.skip(), panel.refusal(str(error))

        started = [(button.click, begin, components, refusal)]
        for example, press in zip(form.examples, examples, strict=True):
            filled = press.click(
                _filling(self._values(example), names), None, components, concurrency_limit=None, **UNSEEN
            )
            started.append((filled.then, begin, components, refusal))
        return started

    def _values(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """An example, with its pictures."""
        return {name: str(self.examples.get(value, value)) for name, value in example.items()}

    def _wire(self, starts: list[tuple], tab) -> None:
        """What happens when."""
        looks = [self.shown, self.seen]
        changes = [self.standing, self.cancel, self.resume, self.result, self.browser, self.timer, self.seen]
        how = {"concurrency_limit": None, **UNSEEN}
        for event, begin, components, refusal in starts:
            begun = event(begin, components, [self.shown, refusal], **how)
            begun.then(None, self.shown, None, js=SHOW, **UNSEEN).then(self._look, looks, changes, **how)
        self.timer.tick(self._look, looks, changes, queue=False, **UNSEEN)
        for button, act in ((self.cancel, self.line.cancel), (self.resume, self.line.resume)):
            button.click(_only(act), self.shown, None, **how).then(self._look, looks, changes, **how)
        tab.select(self._look, looks, changes, **how)
        self.blocks.load(_shown_by_address, None, self.shown, **how).then(self._look, looks, changes, **how)

    def _look(self, name: str, seen: tuple) -> list:
        """The run that is shown, as it stands now; nothing of it that the page shows already."""
        shelf: Shelf = self.line.shelf
        asked = shelf.find(name)
        if asked is None:
            going, now = False, (panel.NOTHING, "", False, False)
        else:
            going = asked.state in GOING
            now = (
                panel.standing(asked, shelf, self.line.before(name)),
                panel.result(asked, shelf),
                going,
                asked.state in (STOPPED, FAILED) and (RESUME if shelf.begun(name) else AGAIN),
            )
        now = (*now, panel.browser(shelf, name or ""))
        before = seen or (None,) * len(now)
        changed = [gr.skip() if a == b else b for a, b in zip(before, now, strict=True)]
        standing, result, cancel, resume, browser = changed
        buttons = [_button(cancel), _button(resume)]
        return [standing, *buttons, result, browser, gr.Timer(active=going), now]


def _named(example: Mapping[str, Any]) -> str:
    """What an example is called."""
    texts = [value for value in example.values() if isinstance(value, str)]
    said = [text for text in texts if not text.endswith(".png")] or [
        text.removesuffix(".png") for text in texts
    ]
    return f"Run an example: {' → '.join(said)}".replace("\n", " → ")


def _filling(example: Mapping[str, Any], names: Sequence[str]) -> Callable[[], list]:
    """What fills in a form."""
    return lambda: [example.get(name, gr.skip()) for name in names]


def _only(act: Callable[[str], None]) -> Callable[[str], None]:
    """An act that gives the page nothing."""

    def run(name: str) -> None:
        act(name)

    return run


def _button(value):
    """A button as it is to be: gone for False, shown for True, or called so; what need not change stays."""
    if isinstance(value, str):
        return gr.Button(value, visible=True)
    return gr.Button(visible=value) if isinstance(value, bool) else value


def _shown_by_address(request: gr.Request) -> str:
    """The run that the page's address names."""
    return str(request.query_params.get("run", ""))
