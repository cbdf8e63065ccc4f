"""The folder of a run: claimed before, and finished after, so that nothing is lost or half written."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from .._checks import reason_of
from .._files import read_json
from .._sealed import load_sealed, save_sealed
from ..pipelines.running import require_same_facts
from .record import circumstances

RECORD = "run.json"
REMEDY = "start again with --overwrite"
MADE, FACTS = "made", "facts"  # entries of a checkpoint: where it was made, and of what
NAMES = ("picture", "clip", "masks")  # facts that are names of files, whose contents are compared elsewhere


@dataclass(frozen=True)
class RunFolder:
    """Where one run is written; ``path`` need not exist yet."""

    path: Path
    command: ClassVar[str]  # whose run it is
    checkpoint: ClassVar[str] = "checkpoint.pt"

    def claim(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder whose contents would be lost, or that has nothing to resume.

        Raises:
            ValueError: With the remedy.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--out must be a folder, {self.path} is a file")
        finished, begun = (self.path / RECORD).exists(), (self.path / self.checkpoint).exists()
        if resume and not begun:
            state = "is finished" if finished else "holds no checkpoint"
            raise ValueError(f"--resume needs an interrupted run in --out, {self.path} {state}")
        if not resume and not overwrite and (finished or begun):
            remedy = "--overwrite to replace it" if finished else "--resume to continue it, or --overwrite"
            kind = "a finished" if finished else "an interrupted"
            raise ValueError(f"--out must not hold another run, {self.path} has {kind} one; add {remedy}")
        self.path.mkdir(parents=True, exist_ok=True)
        if overwrite and not resume:
            self.clear()

    def clear(self) -> None:
        """Remove what tells of an earlier run."""
        for name in (RECORD, self.checkpoint):
            (self.path / name).unlink(missing_ok=True)

    def save(self, state: dict, facts: dict) -> None:
        """Write the checkpoint of a run of ``facts``, whole or not at all."""
        kept = {**state, FACTS: facts, MADE: circumstances()}
        save_sealed(self.path / self.checkpoint, kept, kind=self.command)

    def load(self, device: str) -> dict:
        """Read the checkpoint; no code in it is run.

        Raises:
            ValueError: If it is damaged, or another command's.
        """
        path = self.path / self.checkpoint
        state = load_sealed(path, kind=self.command, remedy=REMEDY, device=device)
        warn_of_other_circumstances(state.pop(MADE))
        return state

    @contextmanager
    def continuing(self, state: dict, facts: dict) -> Iterator[None]:
        """Refuse a checkpoint of another run of the command, or whose entries are not as they were written.

        Args:
            state: As it was loaded.
            facts: What ``run.json`` will say besides the settings; a file may have got another name.

        Raises:
            ValueError: Also in place of what Python and torch raise of such entries.
        """
        try:
            yield
            theirs, ours = (
                {key: value for key, value in of.items() if key not in NAMES} for of in (state[FACTS], facts)
            )
            require_same_facts(theirs, ours)
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{self.path / self.checkpoint} does not hold what this version of geokernels writes "
                f"({reason_of(error)}); {REMEDY}"
            ) from error

    def finished(self) -> dict:
        """The record of a finished run."""
        return read_json(self.path / RECORD)


def warn_of_other_circumstances(before: dict) -> None:
    """Warn where a run that is continued was begun elsewhere: what it ends with may differ in rounding."""
    now = circumstances()
    differ = [name for name in now if before.get(name) != now[name]]
    if differ:
        then, here = (", ".join(f"{name} {of.get(name)}" for name in differ) for of in (before, now))
        warnings.warn(
            f"the run was begun with {then} and continues with {here}: its result may differ in rounding "
            "from that of a run in one piece",
            stacklevel=3,
        )
