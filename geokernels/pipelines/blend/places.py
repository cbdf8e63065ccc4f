"""Where two pictures lie in the frames of a film, and how pictures are read between their pixels."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # height, width
WHOLE = slice(None)  # all rows of a frame


class Places(NamedTuple):
    """Two pictures in the middle of the smallest frame that holds either.

    Nothing is scaled or cut, so that the first and the last frame hold the given pictures to the bit.

    Attributes:
        size: Height and width of the frames.
        first: x and y of the first picture's first pixel.
        second: Likewise of the second picture.
        sizes: Heights and widths of both.
    """

    size: Size
    first: tuple[int, int]
    second: tuple[int, int]
    sizes: tuple[Size, Size]

    @classmethod
    def of(cls, first: Size, second: Size) -> "Places":
        """For pictures of these heights and widths."""
        size = max(first[0], second[0]), max(first[1], second[1])
        at = [((size[1] - width) // 2, (size[0] - height) // 2) for height, width in (first, second)]
        return cls(size, *at, (first, second))

    @property
    def filled(self) -> bool:
        """Whether both pictures fill the frames."""
        return self.sizes[0] == self.sizes[1]

    def outline(self, t: float, like: Tensor, rows: slice = WHOLE) -> Tensor:
        """How much of each pixel lies within the frame's outline at ``t``, ``(1, H, W)``, or of some rows.

        It is the first picture's edge at 0, the second one's at 1, and on straight ways in between.
        """
        sides = []
        for axis in (1, 0):  # x, then y
            (begin, length), (end, last) = (
                (at[1 - axis], size[axis]) for at, size in zip((self.first, self.second), self.sizes)
            )
            low, high = begin + t * (end - begin), begin + length + t * (end + last - begin - length)
            at = torch.arange(self.size[axis], dtype=like.dtype, device=like.device)
            sides.append((torch.minimum(at + 1, at.new_tensor(high)) - at.clamp(min=low)).clamp(0, 1))
        across, down = sides
        return (down[rows, None] * across)[None]


def pixels(like: Tensor) -> Tensor:
    """The places of the pixels of ``like`` (C, H, W), ``(H, W, 2)`` as x and y."""
    y, x = (torch.arange(side, dtype=like.dtype, device=like.device) for side in like.shape[-2:])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def sample(values: Tensor, at: Tensor, *, mode: str = "bilinear", beyond: str = "border") -> Tensor:
    """``(C, H, W)`` at places ``(h, w, 2)`` in its pixels; beyond the edge as at it, or by reflection."""
    sides = torch.tensor([max(side - 1, 1) for side in values.shape[:0:-1]], dtype=at.dtype, device=at.device)
    grid = (2 * at / sides - 1)[None]
    return F.grid_sample(values[None], grid, mode=mode, padding_mode=beyond, align_corners=True)[0]
