"""Clips in and out: mp4, GIF and whatever else FFmpeg reads, folders of frames in; mp4 out."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._files import replacing
from .pictures import read_picture

TICKS = 90_000  # a second; times of frames are kept in these
# Of x264. The same frames give the same file, on every machine: by one thread, and without what it has for
# some instruction sets alone, of which that for AVX-512 reads memory that nothing was written to.
ENCODER = {
    "crf": "14",  # 0 loses nothing, 51 is worst
    "threads": "1",
    "x264-params": "cpu-independent=1",
}
# Of swscale, as numbers because older PyAV has no names for all: bicubic; chroma in full, without which
# pictures come out darker; rounding; the same on every machine.
BICUBIC, FULL_CHROMA, ROUNDED, EXACT = 4, 1 << 13, 1 << 18, 1 << 19
TO_VIDEO, TO_PICTURE = BICUBIC | ROUNDED | EXACT, BICUBIC | FULL_CHROMA | ROUNDED | EXACT
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True)
class VideoSource:
    """A clip on disk, whose frames are read one at a time, as often as they are asked for.

    Attributes:
        path: A video file, or a folder of pictures.
        rate: Frames a second of a folder, which has no times of its own.
    """

    path: Path
    rate: float = 24.0

    def __post_init__(self):
        if not self.path.exists():
            raise ValueError(f"clip must be a video file or a folder of frames, found none at {self.path}")
        if self.path.is_dir() and not self.files():
            raise ValueError(f"clip must be a folder of pictures, {self.path} holds none")

    def files(self) -> list[Path]:
        """Pictures of a folder in the order of their names, numbers in them by value."""
        found = [
            p for p in self.path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")
        ]
        return sorted(found, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name)])

    def frames(self) -> Iterator[Tensor]:
        """Frames ``(3, H, W)`` in [0, 1], turned upright.

        Raises:
            ValueError: If one cannot be read; names it.
        """
        return (frame for frame, _ in self.timed())

    def timed(self) -> Iterator[tuple[Tensor, Fraction]]:
        """Frames, and when each is shown, in seconds."""
        if not self.path.is_dir():
            yield from _decoded(self.path)
            return
        for i, file in enumerate(self.files()):
            yield read_picture(file).rgb, i / Fraction(self.rate).limit_denominator(1001)

    def masks(self) -> Iterator[Tensor]:
        """The same as masks ``(1, H, W)``: how white each pixel is."""
        return (frame.mean(0, keepdim=True) for frame in self.frames())


@contextmanager
def mp4_writer(path: str | Path) -> Iterator[Callable[[Tensor, Fraction], None]]:
    """Write frames as H.264, one at a time, so that memory does not grow with the clip.

    Sides that are odd, which H.264 of the common kind cannot have, are made even by repeating the last row or
    column.

    Args:
        path: Where; replaced whole when all are written.

    Yields:
        A function that takes a frame, ``(3, H, W)`` in [0, 1], and when it is shown, in seconds, rising.
    """
    av = require_av()
    with replacing(path) as partial, av.open(str(partial), "w", format="mp4") as file:
        stream = file.add_stream("libx264", options=dict(ENCODER))
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, TICKS)

        def add(frame: Tensor, time: Fraction) -> None:
            H, W = frame.shape[-2:]
            even = F.pad(frame[None].float(), (0, W % 2, 0, H % 2), mode="replicate")[0]
            data = even.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
            if not stream.codec_context.is_open:
                stream.height, stream.width = data.shape[:2]
            picture = av.VideoFrame.from_ndarray(data.cpu().numpy(), format="rgb24")
            picture = picture.reformat(format="yuv420p", interpolation=TO_VIDEO)
            picture.pts, picture.time_base = round(time * TICKS), Fraction(1, TICKS)
            file.mux(stream.encode(picture))

        yield add
        file.mux(stream.encode())


def _decoded(path: Path) -> Iterator[tuple[Tensor, Fraction]]:
    av = require_av()
    index = None
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise ValueError(f"clip must be a video, {path.name} has no pictures")
            stream, index = file.streams.video[0], 0
            stream.codec_context.options = {"err_detect": "explode"}
            first = None
            for frame in file.decode(stream):
                if frame.is_corrupt:
                    raise ValueError(f"frame {index} of {path.name} is damaged")
                time = Fraction(frame.pts or 0) * frame.time_base
                first = time if first is None else first
                yield _upright(frame), time - first
                index += 1
    except av.error.FFmpegError as error:
        what = f"{path.name} is none" if index is None else f"frame {index} of {path.name} cannot be read"
        raise ValueError(f"clip must be a whole video file, {what} ({error.strerror})") from None


def _upright(frame) -> Tensor:
    """The picture of a decoded frame, transparency over white."""
    if "a" in frame.format.name.replace("gray", ""):
        data = frame.to_ndarray(format="rgba", interpolation=TO_PICTURE)
        data = torch.from_numpy(data.astype(np.float32) / 255)
        picture = data[..., :3] * data[..., 3:] + 1 - data[..., 3:]
    else:
        data = frame.to_ndarray(format="rgb24", interpolation=TO_PICTURE)
        picture = torch.from_numpy(data.astype(np.float32) / 255)
    return torch.rot90(picture, round(frame.rotation / 90), (0, 1)).permute(2, 0, 1).contiguous()


def require_av():
    """PyAV, by which video files are read and written.

    Raises:
        ImportError: With the remedy, where it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError('video files need PyAV: pip install "geokernels[video]"') from error
    return av
