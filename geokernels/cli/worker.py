"""The other side of :mod:`geokernels.runs.worker`: runs the jobs of a batch, one after another.

``python -P -m geokernels.cli.worker``: a line of JSON on stdin for each job, and one on stdout for its end.
Models stay loaded from job to job, as long as jobs succeed: what was in use when one failed is not trusted.
"""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import typer

from . import app, ended
from .console import BAD_INPUT, warn
from .faults import FAULT
from .kept import Kept, keeping
from .watched import watched

ERROR = "Error: "  # what sentences begin with


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    busy = threading.Event()
    # whoever started the batch may ignore it, as shells have what runs in the background do, and Ray's
    # processes hold it back
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    threading.Thread(target=_listen, args=(requests, busy), daemon=True).start()
    with keeping() as kept:
        while request := requests.get():
            busy.set()
            answer = _run(kept, **json.loads(request))
            busy.clear()
            print(json.dumps(answer), file=answers, flush=True)
            if answer["ends"]:
                return


def _listen(requests: queue.SimpleQueue, busy: threading.Event) -> None:
    """Take requests; where there can be none any more, the job that runs is stopped as a scheduler would."""
    # without a buffer, whose lock would be held when this process ends
    with open(0, "rb", buffering=0, closefd=False) as given:
        for request in given:
            requests.put(request.decode())
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
    requests.put("")


def _run(kept: Kept, words: Sequence[str], log: str, watch: str | None = None) -> dict:
    """Run a job; says how it ended, why, and whether this process ends with it."""
    with open(log, "ab") as file:
        begins = file.tell()
        _print_to(file.fileno())
    with watched(None if watch is None else Path(watch)):
        code = _code_of(words)
    _print_to(None)
    if code:
        kept.clear()
    kept.next()
    return {"code": code, "reason": _reason(log, begins) if code else "", "ends": code not in (0, BAD_INPUT)}


def _print_to(file: int | None) -> None:
    """Have everything that is printed, by libraries in C as well, go to a file; None for nowhere."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    to = os.open(os.devnull, os.O_WRONLY) if file is None else file
    for number in (1, 2):
        os.dup2(to, number)
    if file is None:
        os.close(to)


def _code_of(words: Sequence[str]) -> int:
    """The exit code of a command."""
    code: object = FAULT

    def run() -> None:
        nonlocal code
        try:
            code = typer.main.get_command(app).main(
                list(words), prog_name="geokernels", standalone_mode=False
            )
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            warn(f"{ERROR}{error.format_message()}")
            code = BAD_INPUT

    try:
        ended(run, words)
    except SystemExit as stopped:
        code = stopped.code
    return code if isinstance(code, int) else int(code is not None)


def _reason(log: str, begins: int) -> str:
    """The last sentence that a job printed of what is wrong, or the last line."""
    with open(log, "rb") as file:
        file.seek(begins)
        lines = file.read().decode(errors="replace").split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    wrong = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    return [*(lines[-1:] or ["it said nothing"]), *wrong][-1]


if __name__ == "__main__":
    main()
