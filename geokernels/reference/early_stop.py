"""Leaving a loop of steps once no problem of a batch goes on, without waiting for a device to say so.

On the CPU a look costs nothing. On a GPU whether any problem goes on is copied to pinned memory every few
steps, behind the steps themselves, and looked at once it is there; until then further steps are launched. So
steps of problems that have stopped must change nothing: then results do not depend on when the news comes, to
the bit. Where none can come, the loop runs to its end.
"""

import torch
from torch import Tensor

from .._checks import values_can_be_read
from .._torch_internals import is_wrapped

EVERY = 4  # steps between two questions, each of which is two more launches


def news_can_come(going: Tensor) -> bool:
    """Whether a GPU can be asked: not for a tracer or a transform, nor while a graph is captured."""
    if torch.compiler.is_compiling() or type(going) is not Tensor or not going.is_cuda or is_wrapped(going):
        return False
    with torch.cuda.device_of(going):
        return not torch.cuda.is_current_stream_capturing()


class News:
    """Whether any of ``going`` is not zero, on its way from a GPU."""

    def __init__(self, going: Tensor):
        self._any = torch.empty((), dtype=torch.bool, device="cpu", pin_memory=True)
        self._event = torch.cuda.Event()
        with torch.cuda.device_of(going):
            self._any.copy_(going.any(), non_blocking=True)
            self._event.record()

    def read(self) -> bool | None:
        """What the GPU has said, or None as long as it has not."""
        return bool(self._any) if self._event.query() else None


class Watch:
    """Sees a loop to its end, asked once a step."""

    def __init__(self) -> None:
        self._steps = 0
        self._news: News | None = None

    def ended(self, going: Tensor) -> bool:
        """Whether no problem is known to go on, by what is not zero in ``going`` after a step."""
        if torch.compiler.is_compiling():
            return False
        if values_can_be_read(going):
            return not bool(going.any())
        if self._news is not None:
            said = self._news.read()
            if said is None:
                return False
            self._news = None
            if not said:
                return True
        self._steps += 1
        if self._steps % EVERY == 0 and news_can_come(going):
            self._news = News(going)
        return False
