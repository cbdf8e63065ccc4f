"""How the page looks: in the fonts of whoever looks, light or dark as their system is."""

from pathlib import Path

import gradio as gr

CSS = Path(__file__).with_name("page.css")
SYSTEM = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

# the run that is shown stands in the address, so that a reload shows it again; a phone is taken to it
SHOW = """(name) => {
  if (!name) return;
  const here = new URL(window.location);
  here.searchParams.set("run", name);
  window.history.replaceState(null, "", here);
  if (window.innerWidth < 800) document.getElementById("run")?.scrollIntoView({ behavior: "smooth" });
}"""


def theme() -> gr.themes.Base:
    """Gradio's plainest, with no font that would have to be fetched."""
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", radius_size="md", font=list(SYSTEM), font_mono=list(MONO)
    )
