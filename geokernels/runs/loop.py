"""What every run does alike while it takes its steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def interrupts_between_steps() -> Iterator[Callable[[], None]]:
    """Hold what asks a run to stop back until the function given is called, so that no step is cut in half.

    That is Ctrl-C, the SIGTERM of schedulers and of machines that are taken away, and the SIGHUP of a
    terminal that is closed; one that is ignored, as under nohup, stays ignored. A second one acts at once.
    Outside the main thread signals cannot be held back, and are left alone.
    """
    pressed = False

    def note(number, frame):
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = {}
    try:
        for number in STOPPING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    except ValueError:
        yield check
        return
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
