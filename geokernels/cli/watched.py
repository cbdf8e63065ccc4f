"""How far a command has come, in files, for whoever watches it from another process; nothing unless asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import write_json
from ..runs.worker import PREVIEW, PROGRESS

if TYPE_CHECKING:
    from torch import Tensor

    from .console import Seen

EVERY, PICTURE_EVERY = 0.3, 1.0  # seconds between two looks, and between two pictures
SIDE = 384  # longest side of the picture

_WATCHED: list[_Watched] = []


class _Watched:
    """A folder that is told of the command that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pictures = folder, 0
        self.said_at = self.shown_at = -PICTURE_EVERY
        self.unsaid: tuple | None = None

    def note(self, label: str, seen: Seen, preview: Callable[[], Tensor | None] | None) -> None:
        now = time.monotonic()
        if now - self.said_at < EVERY and seen.done != seen.total:
            self.unsaid = label, seen, preview
            return
        self.said_at, self.unsaid = now, None
        with suppress(OSError):  # no run ends because its progress cannot be told
            if preview is not None and now - self.shown_at >= PICTURE_EVERY:
                self._show(preview(), now)
            write_json(self.folder / PROGRESS, {"label": label, **seen._asdict(), "pictures": self.pictures})

    def end(self) -> None:
        """Say how far it came when it ended."""
        if self.unsaid is not None:
            self.said_at = -PICTURE_EVERY
            self.note(*self.unsaid)

    def _show(self, picture: Tensor | None, now: float) -> None:
        if picture is not None:
            from ..media.pictures import png, write_bytes

            write_bytes(self.folder / PREVIEW, png(picture, longest=SIDE))
            self.pictures, self.shown_at = self.pictures + 1, now


@contextmanager
def watched(folder: Path | None) -> Iterator[None]:
    """While commands run, keep in ``folder`` how far they have come; None for nowhere.

    :data:`geokernels.runs.worker.PROGRESS` holds what a terminal shows (``label``, ``done``, ``total``,
    ``loss``, ``speed``, ``unit``) and the number of ``pictures`` so far, of which ``PREVIEW`` is the last.
    """
    if folder is None:
        yield
        return
    _WATCHED.append(_Watched(folder))
    try:
        yield
    finally:
        _WATCHED.pop().end()


def note(label: str, seen: Seen, preview: Callable[[], Tensor | None] | None = None) -> None:
    """Tell whoever watches; called often."""
    if _WATCHED:
        _WATCHED[-1].note(label, seen, preview)
