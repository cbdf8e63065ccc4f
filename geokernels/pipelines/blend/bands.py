"""Frames made in bands of rows: what is computed on the way is as large as a band, whatever the frame is."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .frames import Scene, as_bytes
from .warp import origins_of

PIXELS = 2**20  # of a band, where rows are not longer
MULTIPLE = 64  # of rows: bands begin where vectors of 8 or 16 numbers do, so that they round as one frame


class _Rows(NamedTuple):
    """Where some rows of a frame are from, in the place of the motion by which that was found."""

    places: tuple[Tensor, Tensor]

    def origins(self, t: float, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See :meth:`geokernels.pipelines.blend.warp.Motion.origins`."""
        return self.places


def frame_of(scene: Scene, t: float, colours: Callable[[Scene, slice], Tensor] | None = None) -> Tensor:
    """The frame at ``t`` in [0, 1] as files hold it, ``(3, H, W)`` or ``(4, H, W)`` uint8, on the CPU.

    The same to the bit as in one piece.

    Args:
        scene: What it is made of.
        t: Its time.
        colours: From the scene of some rows, and which they are, to colours that stand in place of its own.
    """
    H, W = scene.places.size
    offsets = None if t in (0, 1) else scene.motion.offsets(t)[:, :H, :W]
    height, bands = rows_of_band(W), []
    for top in range(0, H, height):
        rows, part = slice(top, min(top + height, H)), scene
        if offsets is not None:
            part = scene._replace(motion=_Rows(origins_of(offsets[:, rows], top)))
        bands.append(as_bytes(*part.frame(t, rows, colours and colours(part, rows))))
    return torch.cat(bands, 1)


def rows_of_band(width: int) -> int:
    """How many rows of so many pixels are made at once."""
    return max(PIXELS // width // MULTIPLE, 1) * MULTIPLE
