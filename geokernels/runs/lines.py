"""A file of sealed lines, each written as it comes: what was begun goes on behind the last whole one.

Nothing of it is held in memory, however long it gets.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .._files import replacing
from .._sealed import SEAL, seal, unseal

BENCHMARK = "benchmark"  # kind of the lines of the benchmarks


@dataclass(frozen=True)
class Lines:
    """A file of sealed lines, which need not be there yet.

    Attributes:
        path: Where.
        kind: Of what the lines are.
        remedy: What to do if one is damaged, for messages.
    """

    path: Path
    kind: str
    remedy: str

    def append(self, content: dict) -> int:
        """Write a line behind the others; returns where it begins.

        Raises:
            OSError: If it cannot be written; what there is of it is a line cut short.
        """
        try:
            # no link is followed that was put there since the folder was claimed
            with open(self.path, "ab", opener=_open) as file:
                begins = file.tell()
                file.write(self.line_of(content))
        except OSError as error:
            raise OSError(f"{self.path} could not be written: {error.strerror}") from error
        return begins

    def replace(self, contents: Iterable[dict]) -> None:
        """Write these lines in place of all that there are, whole or not at all."""
        with replacing(self.path) as partial, partial.open("wb") as file:
            file.writelines(map(self.line_of, contents))

    def line_of(self, content: dict) -> bytes:
        """A line."""
        return (json.dumps(seal(content, kind=self.kind)) + "\n").encode()

    def __iter__(self) -> Iterator[tuple[int, dict]]:
        """Where each whole line begins, and what it says.

        Raises:
            ValueError: If one is damaged, or of another kind.
        """
        for number, (begins, line) in enumerate(self._whole(), 1):
            name = f"line {number} of {self.path}"
            try:
                content = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{name} is damaged: {error}; {self.remedy}") from error
            yield begins, unseal(content, name, kind=self.kind, remedy=self.remedy)

    def at(self, begins: int) -> dict:
        """What the line that begins there says; it was checked when it was read or written."""
        with self.path.open("rb") as file:
            file.seek(begins)
            content = json.loads(file.readline())
        content.pop(SEAL)
        return content

    def salvaged(self) -> Iterator[dict]:
        """What lines say as far as they can be read, whether they are as they were written or not."""
        for _, line in self._whole():
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                yield content

    def mend(self) -> None:
        """Remove a line that was cut short, as whoever was killed while writing leaves it."""
        end = 0
        for begins, line in self._whole():
            end = begins + len(line)
        if self.path.is_file() and self.path.stat().st_size > end:
            os.truncate(self.path, end)

    def _whole(self) -> Iterator[tuple[int, bytes]]:
        """Where each line begins that has an end, and the line."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            begins = 0
            for line in file:
                if line.endswith(b"\n"):
                    yield begins, line
                begins += len(line)


def _open(path: str, how: int) -> int:
    return os.open(path, how | os.O_NOFOLLOW, 0o666)
