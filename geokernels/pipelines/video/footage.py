"""A clip made ready for layered editing: frames, masks, flow and the layers' motion, in memory or on disk."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..._checks import require_shape
from ..._modes import own_modes
from ...models.optical_flow import Flow
from ..morph.picture import require_picture
from .masks import find_masks
from .motion import agreement, track

LEAST_SIDE = 16
FOREGROUND, BACKGROUND = 0, 1  # of whatever has two layers


@dataclass(frozen=True)
class Footage:
    """``T`` frames and what is known of their layers. Arrays are mapped from files where a folder was given.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8.
        masks: How much of each pixel the foreground covers, ``(T, H, W)`` uint8.
        flow: How far each pixel moves until the next frame, in pixels, right and down,
            ``(T - 1, H, W, 2)`` float32.
        trusted: Where the flow back agrees, ``(T - 1, H, W)`` bool.
        back: How far each pixel but those of the first frame moves to the frame before, like ``flow``.
        back_trusted: Where the flow forth agrees with that, like ``trusted``.
        motion: Affine maps of foreground and background from each frame to the middle one,
            ``(2, T, 2, 3)`` float32, in the coordinates of ``layer_motion``.
        checksum: Of the frames.
    """

    frames: np.ndarray
    masks: np.ndarray
    flow: np.ndarray
    trusted: np.ndarray
    back: np.ndarray
    back_trusted: np.ndarray
    motion: Tensor
    checksum: str

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.frames.shape[1:3]

    def frame(self, index: int) -> Tensor:
        """One frame, ``(3, H, W)`` float32 in [0, 1]."""
        return torch.from_numpy(np.array(self.frames[index])).permute(2, 0, 1).float() / 255


@own_modes
def prepare_footage(
    frames: Iterable[Tensor],
    flow: Flow,
    *,
    masks: Iterable[Tensor] | None = None,
    folder: Path | None = None,
    callback: Callable[[str, int, int | None], None] = lambda stage, done, total: None,
) -> Footage:
    """Read a clip once, and find its flow, its masks and how its layers move.

    Args:
        frames: ``(3, H, W)`` in [0, 1], all of one size, at least 16 a side; read one at a time.
        flow: See ``models.optical_flow.load_flow``.
        masks: One ``(1, H, W)`` in [0, 1] a frame, 1 for foreground; None to find them from motion.
        folder: Where arrays are kept in files, so that memory does not grow with the clip; None for memory.
        callback: Called with what is being done, how many frames are, and of how many, if that is known.

    Returns:
        The clip with its flow, its masks and the motion of its layers.

    Raises:
        ValueError: If there are no frames, one has another size or is too small, the masks do not fit, or
            there are none and all frames are equal.
    """
    rooms = _Rooms(folder)
    shown, checksum = _read(frames, rooms, callback)
    T, H, W = shown.shape[:3]
    # before the flow, which would find no motion in them
    if masks is None and T > 1 and all(np.array_equal(shown[0], frame) for frame in shown[1:]):
        raise ValueError(f"masks must be given where nothing moves: all {T} frames are equal")
    covered = rooms.room("masks", (T, H, W), np.uint8)
    if masks is not None:
        _fill(covered, masks)  # before the flow, which takes longer: they may not fit
    ways = [rooms.room(name, (T - 1, H, W, 2), np.float32) for name in ("flow", "back")]
    trusted = [rooms.room(name, (T - 1, H, W), np.bool_) for name in ("trusted", "back_trusted")]
    for t in range(T - 1):
        for way, pair in zip(ways, [(t, t + 1), (t + 1, t)]):
            way[t] = flow(*(np.array(shown[i]) for i in pair))
        both = [torch.from_numpy(np.array(way[t])) for way in ways]
        for sure, pair in zip(trusted, (both, both[::-1])):
            sure[t] = agreement(*pair).numpy()
        callback("flow", t + 1, T - 1)
    if masks is None:
        scratch = rooms.room("scratch", (T, H, W), np.float16)
        find_masks(shown, *ways, trusted[0], masks=covered, scratch=scratch)
    callback("masks", T, T)
    motion = torch.stack([track(ways[0], trusted[0], covered, ground=ground) for ground in (False, True)])
    return Footage(shown, covered, ways[0], trusted[0], ways[1], trusted[1], motion.float(), checksum)


def _read(frames: Iterable[Tensor], rooms: "_Rooms", callback: Callable) -> tuple[np.ndarray, str]:
    """Frames as bytes, and their checksum."""
    digest, size = hashlib.sha256(), None

    def each() -> Iterator[np.ndarray]:
        nonlocal size
        for index, frame in enumerate(frames):
            require_picture(frame)
            now = tuple(frame.shape[1:])
            size = size or now
            if now != size:
                raise ValueError(
                    f"frames must be of one size, the first is {size[1]} x {size[0]} pixels, "
                    f"frame {index} is {now[1]} x {now[0]}"
                )
            if min(now) < LEAST_SIDE:
                raise ValueError(
                    f"frames must be at least {LEAST_SIDE} pixels a side, got {now[1]} x {now[0]}"
                )
            data = (
                frame.mul(255)
                .round()
                .clamp(0, 255)
                .to(torch.uint8)
                .permute(1, 2, 0)
                .contiguous()
                .cpu()
                .numpy()
            )
            digest.update(data.data)
            callback("frames", index + 1, None)
            yield data

    shown = rooms.gather("frames", each())
    if not len(shown):
        raise ValueError("frames must hold at least one frame, got none")
    digest.update(repr(shown.shape).encode())
    return shown, digest.hexdigest()


def _fill(covered: np.ndarray, masks: Iterable[Tensor]) -> None:
    """Take the masks that are given."""
    count, (T, H, W) = 0, covered.shape
    for mask in masks:
        if count < T:
            require_shape(f"mask {count}", mask, (1, H, W), "(1, H, W)")
            covered[count] = mask[0].mul(255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        count += 1
    if count != T:
        raise ValueError(f"masks must be one a frame, {T}, got {count}")


class _Rooms:
    """Where arrays are kept: in files of ``folder``, or in memory."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def room(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """An array to be filled."""
        if self.folder is None or 0 in shape:  # nothing can be mapped from an empty file
            return np.zeros(shape, dtype)
        return np.memmap(self.folder / f"{name}.raw", dtype, "w+", shape=shape)

    def gather(self, name: str, arrays: Iterable[np.ndarray]) -> np.ndarray:
        """An array of however many come, ``(T, ...)``."""
        if self.folder is None:
            chunks = list(arrays)
            return np.stack(chunks) if chunks else np.zeros((0,))
        count, one, path = 0, np.zeros((0,), np.uint8), self.folder / f"{name}.raw"
        with open(path, "wb") as file:
            for one in arrays:
                file.write(one.data)
                count += 1
        return np.memmap(path, one.dtype, "r", shape=(count, *one.shape)) if count else np.zeros((0,))
