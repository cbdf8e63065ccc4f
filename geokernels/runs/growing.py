"""A folder whose run writes what it makes line by line, as it comes, and may go on with more in the end."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .._files import write_text
from .._sealed import read_sealed_json
from ..pipelines.run_state import require_format
from .folder import RunFolder
from .lines import Lines


@dataclass
class GrowingFolder(RunFolder):
    """Where such a run is written."""

    listed: ClassVar[str]  # name of the file of lines
    last: ClassVar[str]  # of a finished run, what it is continued from besides the lines
    tables: ClassVar[tuple[str, ...]]  # other files that no record lists before the end

    @property
    def lines(self) -> Lines:
        """What was made so far."""
        return Lines(self.path / self.listed, self.command, self.again)

    @property
    def kept(self) -> Path:
        """Of a finished run as well, what it may be continued from."""
        stopped = self.path / self.checkpoint
        return self.path / self.last if self._record() is not None and not stopped.exists() else stopped

    def keep_last(self) -> None:
        """Keep the checkpoint, which goes in the end, under its lasting name."""
        text = (self.path / self.checkpoint).read_text("utf-8")
        write_text(self.file(self.last), text)

    def read_last(self) -> dict:
        """What a finished run is continued from, besides the lines.

        Raises:
            ValueError: If it is damaged, or of another version.
        """
        state = read_sealed_json(self.path / self.last, kind=self.command, remedy=self.again)
        require_format(state, remedy=self.again)
        return state

    def clear(self, keep: Collection[Path] = ()) -> None:
        """Remove an earlier run with the files that no record lists before its end."""
        begun = self.begins()
        super().clear(keep)
        for name in (self.listed, self.last, *self.tables) if begun else ():
            (self.path / name).unlink(missing_ok=True)

    def _read(self, device: str = "cpu") -> dict:
        """The checkpoint; damaged lines are refused with it, before anything is loaded or computed."""
        state = super()._read(device)
        for _ in self.lines:
            pass
        return state
