"""Frames of 8 bits, one behind the other: held in memory, or each in a file, so that memory holds none."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._files import sha256
from .pictures import write_frame


class HeldFrames(Sequence):
    """Frames in memory.

    Attributes:
        kept: The frames, ``(3, H, W)`` or, with opacity, ``(4, H, W)`` uint8, on the CPU.
    """

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def append(self, frame: Tensor) -> None:
        """Keep a frame behind the others."""
        self.kept.append(frame)

    def take_back(self, kept: Sequence[Tensor]) -> None:
        """Go on behind the frames that :attr:`kept` had."""
        self.kept = [frame.cpu() for frame in kept]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index):
        return self.kept[index]


class FrameFiles(Sequence):
    """The same in files, which are written as frames come and read as often as a frame is asked for.

    Attributes:
        kept: Checksums of the files.

    Args:
        place: Where the frame of a number is.
    """

    def __init__(self, place: Callable[[int], Path]):
        self.place = place
        self.kept: list[str] = []

    def append(self, frame: Tensor) -> None:
        """Write a frame behind the others; one that is there already is replaced."""
        path = self.place(len(self.kept))
        write_frame(path, frame)
        self.kept.append(sha256(path))

    def take_back(self, kept: Sequence[str]) -> None:
        """Go on behind the files whose checksums :attr:`kept` had.

        Raises:
            ValueError: If one is gone, or is not what was written.
        """
        for number, checksum in enumerate(kept):
            path = self.place(number)
            if not path.is_file() or sha256(path) != checksum:
                raise ValueError(
                    f"the stopped run's {path.parent.name}/{path.name} is not what it was; "
                    "start again with --overwrite"
                )
        self.kept = list(kept)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index):
        if isinstance(index, slice):
            raise TypeError("frames in files are read one at a time, got a slice")
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} frames, got number {index}")
        return read_frame(self.place(index % len(self)))


class Lazily(Sequence):
    """What is made of each of a sequence's entries, when it is asked for, and held by nobody.

    Args:
        made: From an entry.
        of: The entries.
    """

    def __init__(self, made: Callable, of: Sequence):
        self.made, self.of = made, of

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index):
        return self.made(self.of[index])


def read_frame(path: Path) -> Tensor:
    """What :func:`geokernels.media.pictures.write_frame` wrote, to the bit, hidden colours included."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1).contiguous()  # sums over planes round by how these lie


def evenly(count: int, most: int) -> list[int]:
    """Numbers of at most ``most`` of ``count`` frames, evenly spread, the first and the last among them."""
    chosen = min(count, most)
    return sorted({round(i * (count - 1) / max(chosen - 1, 1)) for i in range(chosen)})
