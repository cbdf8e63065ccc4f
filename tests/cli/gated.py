"""The process that runs jobs, which waits behind the first step of those for which there is a gate.

A gate is a file ``gate-NAME`` beside this one's copy; at it the file becomes ``at-NAME``, and says which
processes wait.
"""

import os
import signal
from pathlib import Path

from geokernels.cli import worker
from geokernels.runs import loop

GATES = Path(__file__).parent


def gate(name):
    """Wait for a signal, if there is a gate for the job of this name."""
    closed = GATES / f"gate-{name}"
    if closed.exists():
        closed.write_text(f"{os.getppid()} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')!r}")
        closed.rename(GATES / f"at-{name}")
        signal.pause()


def begin_gated(self, **how):
    begin(self, **how)
    shown = self.on_step

    def on_step(*seen):
        shown(*seen)
        gate(self.job.folder.path.name)

    self.on_step = on_step


begin, loop._Driver.begin = loop._Driver.begin, begin_gated

if __name__ == "__main__":
    worker.main()
