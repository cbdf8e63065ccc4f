"""One run at a time, in a process that keeps models loaded; the others wait in line."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..runs.worker import INTERRUPTED, Worker
from .forms import PICTURE, Form
from .shelf import FAILED, FINISHED, LOG, RUNNING, STOPPED, WAITING, Asked, Shelf

NOT_BEGUN = "it had not begun"


class Line:
    """The line of a page.

    Args:
        shelf: Where runs are kept.
        worker: Makes what runs them.
    """

    def __init__(self, shelf: Shelf, worker: Callable[[], Worker]):
        self.shelf, self._worker = shelf, worker()
        self._waiting: list[str] = []  # the first is the next
        self._running: str | None = None
        self._cancelled: set[str] = set()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def add(self, form: Form, values: dict[str, Any]) -> str:
        """Have a command run.

        Args:
            form: Of the command.
            values: What the page gives, by parameter; pictures are paths.

        Returns:
            The run's name.

        Raises:
            ValueError: If the command would refuse it at once; says why.
        """
        name = self.shelf.begin(form.command)
        try:
            taken = {
                field.name: str(self.shelf.take(name, field.name, Path(values[field.name])))
                for field in form.fields
                if field.kind == PICTURE and values.get(field.name)
            }
            said = form.said(values | taken)
            words = form.words(said)
            form.check(words)
            self._join(self.shelf.add(form.command, said, words, name))
        except BaseException:
            self.shelf.drop(name)
            raise
        return name

    def resume(self, name: str) -> None:
        """Have a run that was stopped, or that failed, go on from where it was."""
        asked = self.shelf.find(name)
        if asked is not None and asked.state in (STOPPED, FAILED):
            self._join(asked._replace(state=WAITING, reason=""))

    def cancel(self, name: str) -> None:
        """Have a run stop after its step, or not begin."""
        with self._changed:
            if name in self._waiting:
                self._waiting.remove(name)
                self.shelf.end(self.shelf.find(name), STOPPED, NOT_BEGUN)
            elif name == self._running:
                self._cancelled.add(name)

    def before(self, name: str) -> int | None:
        """How many runs are before one that waits; None of one that does not."""
        with self._changed:
            if name not in self._waiting:
                return None
            return self._waiting.index(name) + (self._running is not None)

    def close(self) -> None:
        """Stop what runs after its step, and let the process end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self.shelf.after_a_restart()  # those that wait

    def _join(self, asked: Asked) -> None:
        with self._changed:
            if self._closed or asked.name in (*self._waiting, self._running):
                return
            self.shelf.write(asked)
            self._waiting.append(asked.name)
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    break
                name = self._running = self._waiting.pop(0)
                asked = self.shelf.find(name)._replace(state=RUNNING)
                self.shelf.write(asked)
            state, reason = self._run(asked)
            with self._changed:
                self._running = None
                self._cancelled.discard(name)
                self.shelf.end(asked, state, reason)
        self._worker.close()

    def _run(self, asked: Asked) -> tuple[str, str]:
        """Run it; says how it ended, and why."""
        place, kept = self.shelf.of(asked.name), self.shelf.kept(asked.name)
        again = ["--resume"] if self.shelf.begun(asked.name) else []

        def check() -> None:
            if self._closed or asked.name in self._cancelled:
                raise KeyboardInterrupt

        try:
            outcome = self._worker.run(
                [asked.command, f"--out={place}", *again, *asked.words], kept / LOG, check, kept
            )
        except Exception as error:  # whatever it is, the line goes on
            return FAILED, f"it could not be started: {error}"
        if outcome.code == INTERRUPTED:
            return STOPPED, outcome.reason
        return (FAILED, outcome.reason) if outcome.code else (FINISHED, "")
