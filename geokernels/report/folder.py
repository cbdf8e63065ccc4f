"""The folder of a run: claimed before, and finished after, so that nothing is lost or half written."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from .._checks import reason_of
from .._files import read_json, replacing

RECORD = "run.json"


@dataclass(frozen=True)
class RunFolder:
    """Where one run is written; ``path`` need not exist yet."""

    path: Path
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

    def save(self, state: dict) -> None:
        """Write the checkpoint, whole or not at all."""
        with replacing(self.path / self.checkpoint) as partial:
            torch.save(state, partial)

    def load(self, device: str) -> dict:
        """Read the checkpoint; no code in it is run.

        Raises:
            ValueError: If it is damaged.
        """
        try:
            return torch.load(self.path / self.checkpoint, map_location=device, weights_only=True)
        except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError and more
            raise ValueError(
                f"{self.path / self.checkpoint} is damaged ({reason_of(error)}); start again with --overwrite"
            ) from None

    def finished(self) -> dict:
        """The record of a finished run."""
        return read_json(self.path / RECORD)
