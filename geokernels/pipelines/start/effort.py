"""What a search may cost: pictures that are shown to the encoders, counted and told of."""

from collections.abc import Callable

from torch import Tensor

from ..guidance.clip import Likeness
from ..run import Tell

Judge = Callable[[Tensor, Tensor], Likeness]  # of pictures (n, 3, h, w), given the source (1, 3, h, w)


class Encodings:
    """How many pictures were encoded.

    Args:
        tell: Told of every look how many there were by then.
        what: The phrase that says what for.
        total: How many there will be, or may be at most.
    """

    def __init__(self, tell: Tell, what: str, total: int):
        self._tell, self._what, self.total, self.done = tell, what, total, 0

    def add(self, count: int) -> None:
        """Count some more."""
        self.done += count
        self._tell(self._what, self.done, self.total, unit="encodings")


class Effort:
    """A judge of pictures that counts what it encodes; the source counts every time that it is shown.

    Args:
        judge: What to ask.
        most: How many pictures it may be shown; the search is to plan by what is :attr:`left`.
        tell: Told after every look how many there were.
    """

    def __init__(self, judge: Judge, most: int, tell: Tell):
        self._judge, self.encodings = judge, Encodings(tell, "searching a first guess", most)

    @property
    def left(self) -> int:
        """How many more pictures may be shown."""
        return self.encodings.total - self.encodings.done

    def __call__(self, pictures: Tensor, source: Tensor) -> Likeness:
        """Judge pictures.

        Raises:
            RuntimeError: If they are more than may be shown.
        """
        if len(pictures) + 1 > self.left:
            raise RuntimeError(
                f"a search must show at most {self.encodings.total} pictures, it has planned more"
            )
        found = self._judge(pictures, source)
        self.encodings.add(len(pictures) + 1)
        return found
