"""The server of the page: Gradio's, behind :mod:`geokernels.ui.door`."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from socket import SOCK_STREAM, getaddrinfo, socket

import torch

from ..media.pictures import write_picture
from ..runs.held_folder import HeldFolder
from ..runs.worker import Worker
from ..world import ATTRIBUTES, render, sample_scenes
from .door import LOOPBACK, Door
from .forms import Form
from .line import Line
from .shelf import KEPT, Shelf

EXAMPLES = {"circle.png": ("circle", "red"), "triangle.png": ("triangle", "green")}
HANDED_IN = "handed-in"  # folder of what browsers send, until a run takes it


def is_open(host: str, share: bool) -> bool:
    """Whether others than this computer's user reach a page."""
    return share or host not in LOOPBACK


@contextmanager
def served(
    forms: Sequence[Form],
    worker: Callable[[], Worker],
    out: Path,
    *,
    about: str,
    host: str = LOOPBACK[0],
    port: int = 7860,
    share: bool = False,
    most_upload: int = 64,
) -> Iterator[str]:
    """While this lasts, a page is served; gives its address. In the end a run that goes on is stopped.

    Args:
        forms: Of the commands.
        worker: Makes what runs them.
        out: Where runs are written, and all that is served.
        about: What all of it is for, in a sentence.
        host: Address to listen on.
        port: To listen on; 0 for any that is free.
        share: Whether Gradio's servers make it reachable for whoever has the address that they give.
        most_upload: Largest file that is taken, in MiB.

    Raises:
        ValueError: If another page writes to ``out``, or it cannot be a folder.
        OSError: If the port is taken.
    """
    port = _port(host, port)
    place = HeldFolder(out.absolute())
    place.require_place()
    with place.hold() as folder:
        out = folder.path.resolve()
        # before Gradio is imported, which asks once
        os.environ.update(GRADIO_TEMP_DIR=str(out / KEPT / HANDED_IN), GRADIO_ANALYTICS_ENABLED="False")
        shelf = Shelf(out)
        shelf.after_a_restart()
        line = Line(shelf, worker)
        try:
            from .look import CSS, theme
            from .page import Page

            hosts = None if is_open(host, share) else LOOPBACK
            blocks = Page(forms, line, _examples(out), about).blocks
            _, local, shared = blocks.launch(
                server_name=host,
                server_port=port,
                share=share,
                allowed_paths=[str(out)],
                max_file_size=most_upload * 2**20,
                app_kwargs={"middleware": [(Door, (), {"hosts": hosts})]},
                theme=theme(),
                css_paths=CSS,
                prevent_thread_lock=True,
                quiet=True,
                inbrowser=False,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                num_workers=0,
                pwa=False,
                root_path="",
            )
            try:
                yield shared or local
            finally:
                blocks.close(verbose=False)
        finally:
            line.close()


def _port(host: str, port: int) -> int:
    """A port that is free: the one that is asked for, or any for 0.

    Raises:
        ValueError: If it is taken, or there is no such address here.
    """
    try:
        family, *_, address = getaddrinfo(host, port, type=SOCK_STREAM)[0]
    except OSError:
        raise ValueError(f"host must be an address of this computer, got {host!r}") from None
    with socket(family, SOCK_STREAM) as asked:
        try:
            asked.bind(address)
        except OSError as error:
            raise ValueError(f"port must be free on {host}, {port} is not: {error.strerror}") from None
        return asked.getsockname()[1]


def _examples(out: Path) -> dict[str, Path]:
    """Pictures to try the page with, of the rendered world."""
    scene = sample_scenes(1, generator=torch.Generator().manual_seed(3))
    paths = {name: out / KEPT / "examples" / name for name in EXAMPLES}
    for name, (shape, colour) in EXAMPLES.items():
        said = {"shape": shape, "colour": colour, "background": "white", "size": "large", "texture": "plain"}
        of = {key: torch.tensor([ATTRIBUTES[key].index(value)]) for key, value in said.items()}
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        write_picture(paths[name], render(replace(scene, **of))[0])
    return paths
