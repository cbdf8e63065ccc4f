"""``geokernels ui``."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from .batch import begin_worker
from .console import extras, say, sentences, warn
from .options import out_option

LOOPBACK = "127.0.0.1"


def ui(
    out: Annotated[Path, out_option("Folder for the runs; nothing outside it is served.")] = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; by this one others cannot reach the page.")
    ] = LOOPBACK,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")
    ] = 7860,
    share: Annotated[
        bool,
        typer.Option("--share", help="Let others reach the page by an address that Gradio's servers give."),
    ] = False,
    most_upload: Annotated[
        int, typer.Option(min=1, max=4096, help="Refuse larger files, in MiB, before they are taken.")
    ] = 64,
) -> None:
    """Serve a page with a form for each command, and the runs that were made by it.

    Runs wait in line, one at a time, in a process that keeps models loaded. Ctrl-C stops the page; the run
    that goes on is stopped after its step, and a button of the page continues it another time.
    """
    with sentences(ui), extras():
        from ..ui.served import is_open, served
        from . import ABOUT
        from .forms import forms

        opened = is_open(host, share)
        how = {"about": ABOUT, "host": host, "port": port, "share": share, "most_upload": most_upload}
        with served(forms(shared=opened), begin_worker, out, **how) as address:
            if opened:
                warn(
                    "Warning: whoever reaches this page can run commands on this computer, and see all runs "
                    f"in {out}."
                )
            say(f"The page is at {address}. Ctrl-C stops it.")
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
            say("The page is stopped.")
