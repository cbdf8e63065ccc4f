"""How an option is asked for: one component of Gradio's for each kind."""

import gradio as gr

from .forms import CHOICE, NOT_SAID, PATHS, PICTURE, SWITCH, TEXTS, Field

OPTIONAL = "as the command decides"


def component(field: Field, command: str):
    """The component for an option of a command."""
    how = {"label": field.label + (" *" if field.required else ""), "elem_id": f"{command}-{field.name}"}
    if field.kind == PICTURE:
        return _picture(field.about, **how)
    how["info"] = field.about
    if field.kind == SWITCH:
        return gr.Checkbox(value=bool(field.default), **how)
    if field.kind == CHOICE:
        words = [(word, word) for word in field.choices]
        if field.default is None:
            words.insert(0, (OPTIONAL, NOT_SAID))
        return gr.Dropdown(words, value=NOT_SAID if field.default is None else field.default, **how)
    # numbers too: what is no number the command says, and a box of numbers cannot be empty
    several = field.kind in (TEXTS, PATHS)
    how |= {"lines": 2, "max_lines": 6, "placeholder": "One a line."} if several else {"max_lines": 1}
    return gr.Textbox(value=None if field.default is None else str(field.default), **how)


def _picture(about: str, **how) -> gr.Image:
    """A picture as it is handed in: its path. What is wrong with it the command says, in its own words."""
    asked = f"{about}\n\nDrop it here, or click."
    how |= {"sources": ["upload", "clipboard"], "height": 190, "buttons": [], "placeholder": asked}
    picture = gr.Image(type="filepath", image_mode=None, **how)
    # Gradio's own decodes it, and a subclass would have Gradio write a file beside this one
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture
