"""What a search may cost: pictures that are shown to the encoders, counted and told of."""

from collections.abc import Callable

from torch import Tensor

from ..guidance.clip import Likeness
from ..run import Tell

Judge = Callable[[Tensor, Tensor], Likeness]  # of pictures (n, 3, h, w), given the source (1, 3, h, w)


class Effort:
    """A judge of pictures that counts what it encodes; the source counts every time that it is shown.

    Args:
        judge: What to ask.
        most: How many pictures it may be shown; the search is to plan by what is :attr:`left`.
        tell: Told after every look how many there were.
    """

    def __init__(self, judge: Judge, most: int, tell: Tell):
        self._judge, self.most, self._tell, self.spent = judge, most, tell, 0

    @property
    def left(self) -> int:
        """How many more pictures may be shown."""
        return self.most - self.spent

    def __call__(self, pictures: Tensor, source: Tensor) -> Likeness:
        """Judge pictures.

        Raises:
            RuntimeError: If they are more than may be shown.
        """
        if len(pictures) + 1 > self.left:
            raise RuntimeError(f"a search must show at most {self.most} pictures, it has planned more")
        found = self._judge(pictures, source)
        self.spent += len(pictures) + 1
        self._tell("searching a first guess", self.spent, self.most, unit="encodings")
        return found
