"""The results of an evaluation: lines of a file, of which memory holds where each begins."""

from array import array
from collections.abc import Iterator, Sequence

from .lines import Lines

NONE = -1  # where a result that there is not would begin


class Results:
    """A result for each edit and method, in whatever order they are made.

    Args:
        lines: Where they are kept.
    """

    def __init__(self, lines: Lines):
        self.lines = lines
        self.count = 0
        self._begun = False
        self.expect([], [])

    def expect(self, keys: Sequence[str], labels: Sequence[str]) -> None:
        """Name the edits and the methods that there may be results of, in their order."""
        self.keys = {key: i for i, key in enumerate(keys)}
        self.labels = {label: j for j, label in enumerate(labels)}
        self._begins = array("q", [NONE]) * (len(self.keys) * len(self.labels))

    def read(self) -> Iterator[dict]:
        """Take back what an earlier run left, result by result.

        Raises:
            ValueError: If a line is damaged, or says what another has said.
            LookupError: If there is one of an edit or a method that was not named.
        """
        self._begun = True
        for begins, row in self.lines:
            self._note(row, begins)
            yield row

    def begin(self) -> None:
        """Make the file, without lines, unless an earlier run's goes on."""
        if not self._begun:
            self.lines.replace([])
            self._begun = True

    def add(self, row: dict) -> None:
        """Keep a result."""
        self.begin()
        self._note(row, self.lines.append(row))

    def get(self, key: str, label: str) -> dict:
        """A result that there is."""
        return self.lines.at(self._begins[self._place(key, label)])

    def has(self, key: str, label: str) -> bool:
        """Whether there is a result."""
        return self._begins[self._place(key, label)] != NONE

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict]:
        """The results in the order of the edits, and of the methods."""
        for begins in self._begins:
            if begins != NONE:
                yield self.lines.at(begins)

    def _place(self, key: str, label: str) -> int:
        return self.keys[key] * len(self.labels) + self.labels[label]

    def _note(self, row: dict, begins: int) -> None:
        place = self._place(row["key"], row["method"])
        if self._begins[place] != NONE:
            raise ValueError(
                f"{self.lines.path} must have one line of {row['key']} by {row['method']}, it has two; "
                f"{self.lines.remedy}"
            )
        self._begins[place] = begins
        self.count += 1
