"""Clips, read: mp4, GIF, WebP and whatever else FFmpeg or Pillow knows, and folders of frames."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .bounds import MOST_MEGAPIXELS, require_clip_pixels, require_pixels
from .masks import mask_in, mask_of_frame, require_object_and_ground
from .picture_files import animated, animation, size_of
from .pictures import read_picture

TICKS = 90_000  # a second; times of frames are kept in these
# Of swscale, as numbers because older PyAV has no names for all: bicubic; chroma in full, without which
# pictures come out darker; rounding; the same on every machine.
BICUBIC, FULL_CHROMA, ROUNDED, EXACT = 4, 1 << 13, 1 << 18, 1 << 19
TO_VIDEO, TO_PICTURE = BICUBIC | ROUNDED | EXACT, BICUBIC | FULL_CHROMA | ROUNDED | EXACT
HDR = {16: "PQ", 18: "HLG"}  # transfer functions, by their numbers in FFmpeg
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".heic", ".heif", ".avif")
LEAST_FRAMES = 2  # of a clip that is cut off, for a run to go on with


@dataclass(frozen=True)
class VideoSource:
    """A clip on disk, whose frames are read one at a time, as often as they are asked for.

    Attributes:
        path: A video file, or a folder of pictures.
        rate: Frames a second of a folder, which has no times of its own.
        what: What the clip is to the caller, for messages.
        most_megapixels: Refuse frames of more millions of pixels, and clips of 16 times as many.
        warn: Told, in a sentence, what is amiss with a clip that can be used all the same.
    """

    path: Path
    rate: float = 24.0
    what: str = "clip"
    most_megapixels: float = MOST_MEGAPIXELS
    warn: Callable[[str], None] = warnings.warn

    def __post_init__(self):
        if not self.path.exists():
            raise ValueError(
                f"{self.what} must be a video file or a folder of frames, found none at {self.path}"
            )
        if self.path.is_dir() and not self.files():
            raise ValueError(f"{self.what} must be a folder of pictures, {self.path} holds none")

    def files(self) -> list[Path]:
        """Pictures of a folder in the order of their names, numbers in them by value."""
        pictures = [
            p for p in self.path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")
        ]
        return sorted(
            pictures, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name)]
        )

    def size(self) -> tuple[int, int]:
        """Width and height of the first frame, upright; refuses a clip that its header says is too large."""
        if self.path.is_dir():
            first, *rest = self.files()
            size = size_of(first, what=self.what)
            require_pixels(self.what, first.name, size, self.most_megapixels)
            require_clip_pixels(self.what, self.path.name, 1 + len(rest), size, self.most_megapixels)
            return size
        for frame in replace(self, warn=lambda sentence: None).frames():  # it is said when all are read
            return frame.shape[2], frame.shape[1]
        raise ValueError(f"{self.what} must hold at least one frame, {self.path.name} holds none")

    def frames(self) -> Iterator[Tensor]:
        """Frames ``(3, H, W)`` in [0, 1], turned upright.

        Raises:
            ValueError: If one cannot be read, which is named, or the clip is too large.
        """
        return (frame for frame, _ in self.timed())

    def timed(self) -> Iterator[tuple[Tensor, Fraction]]:
        """Frames, and when each is shown, in seconds."""
        for count, (frame, time) in enumerate(self._each(), 1):
            size = (frame.shape[2], frame.shape[1])
            require_clip_pixels(self.what, self.path.name, count, size, self.most_megapixels)
            yield frame, time

    def masks(self, *, may_be_empty: bool = False) -> Iterator[Tensor]:
        """The same as masks ``(1, H, W)``: how much of each pixel is the object's, see :mod:`.masks`.

        Args:
            may_be_empty: Whether the object may be out of sight.

        Raises:
            ValueError: As for frames, and if one is no mask or says nothing.
        """
        for name, mask in self._masks():
            remedy = "; where the object may be out of sight, say --empty-masks"
            require_object_and_ground(mask, self.what, name, may_be_empty=may_be_empty, remedy=remedy)
            yield mask

    def _masks(self) -> Iterator[tuple[str, Tensor]]:
        if self.path.is_dir():
            for file in self.files():
                yield file.name, mask_in(file, what=self.what, most_megapixels=self.most_megapixels)
            return
        for index, frame in enumerate(self.frames()):
            name = f"frame {index} of {self.path.name}"
            yield name, mask_of_frame(frame, what=self.what, name=name)

    def _each(self) -> Iterator[tuple[Tensor, Fraction]]:
        if self.path.is_dir():
            rate = Fraction(self.rate).limit_denominator(1001)
            for i, file in enumerate(self.files()):
                yield read_picture(file, most_megapixels=self.most_megapixels).rgb, i / rate
        elif animated(self.path):
            yield from _animated(self)
        else:
            yield from _decoded(self)


def require_masks(masks: VideoSource, clip: VideoSource, *, may_be_empty: bool = False) -> None:
    """Look at every mask of a clip before anything else is done with either.

    Raises:
        ValueError: If one is no mask, says nothing, or has another size than the clip's frames; names it.
    """
    width, height = clip.size()
    count = 0
    for count, mask in enumerate(masks.masks(may_be_empty=may_be_empty), 1):
        if mask.shape != (1, height, width):
            which = masks.files()[count - 1].name if masks.path.is_dir() else f"frame {count - 1}"
            raise ValueError(
                f"{masks.what} must be as large as the frames, {width} x {height} pixels, "
                f"{which} is {mask.shape[2]} x {mask.shape[1]}"
            )
    if clip.path.is_dir() and count != len(clip.files()):
        raise ValueError(f"{masks.what} must be one a frame, {len(clip.files())}, got {count}")


def _animated(source: VideoSource) -> Iterator[tuple[Tensor, Fraction]]:
    """Frames of an animation that Pillow reads, and when each is shown."""
    time = Fraction(0)
    with animation(source.path) as image:
        given = (source.what, source.path.name)
        require_pixels(*given, image.size, source.most_megapixels)
        require_clip_pixels(*given, image.n_frames, image.size, source.most_megapixels)
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            clear = torch.from_numpy(np.array(image.convert("RGBA"), dtype=np.float32) / 255)
            yield _over_white(clear).permute(2, 0, 1).contiguous(), time
            time += Fraction(image.info.get("duration", 0)).limit_denominator(1000) / 1000


def _decoded(source: VideoSource) -> Iterator[tuple[Tensor, Fraction]]:
    """Frames of a file that FFmpeg reads, and when each is shown; one that is cut off ends early."""
    av, name, what = require_av(), source.path.name, source.what
    try:
        file = av.open(str(source.path))
    except av.error.FFmpegError as error:
        raise ValueError(f"{what} must be a whole video file, {name} is none ({error.strerror})") from None
    with file:
        stream = _stream_of(file, source)
        count, first, end, broken = 0, None, Fraction(0), None
        # of all streams, because the last frame may be shown for as long as there is sound
        packets = file.demux(stream, *file.streams.audio)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream is not stream:
                    continue
                if broken is not None and packet.size:
                    raise ValueError(f"{what} must be a whole video file, {broken}")
                frames = packet.decode()
            except av.error.FFmpegError as error:
                broken = f"frame {count} of {name} cannot be read ({error.strerror})"
                continue
            for frame in frames:
                if frame.is_corrupt:
                    broken = f"frame {count} of {name} is damaged"
                    continue
                if not count and stream.codec_context.color_trc in HDR:
                    kind = HDR[stream.codec_context.color_trc]
                    source.warn(f"{name} is HDR ({kind}), and its colours come out dull: convert it to SDR")
                time = Fraction(frame.pts or 0) * frame.time_base
                first = time if first is None else first
                yield _upright(frame), time - first
                count += 1
        _tell_of_end(source, file, count, end, cut=broken is not None)


def _stream_of(file, source: VideoSource):
    """The stream of pictures of an open file, which is told to stop at damage.

    Raises:
        ValueError: If there is none, or none that can be read, or it is too large by its header.
    """
    what, name = source.what, source.path.name
    if not file.streams.video:
        raise ValueError(f"{what} must be a video, {name} has no pictures")
    stream = file.streams.video[0]
    if stream.codec_context is None:
        raise ValueError(
            f"{what} must be in a codec that FFmpeg can read, {name} is in one that it does not know: "
            "convert it to H.264"
        )
    stream.codec_context.options = {"err_detect": "explode"}
    size = (stream.width, stream.height)
    require_pixels(what, name, size, source.most_megapixels)
    require_clip_pixels(what, name, stream.frames, size, source.most_megapixels)
    return stream


def _tell_of_end(source: VideoSource, file, count: int, end: Fraction, *, cut: bool) -> None:
    """Warn, or refuse, if a file ends before it should."""
    stream, name = file.streams.video[0], source.path.name
    lasts, read = (file.duration or 0) / 1e6, float(end) - (file.start_time or 0) / 1e6
    if not cut and read >= 0.9 * lasts - 0.1:
        return
    of = f" of {stream.frames}" if stream.frames > count else f", at {read:.2f} of {lasts:.2f} s"
    if count < LEAST_FRAMES:
        raise ValueError(
            f"{source.what} must be a whole video file, {name} is cut off after {count} frames{of}"
        )
    source.warn(f"{name} is cut off after {count} frames{of}; only these are used")


def _upright(frame) -> Tensor:
    """The picture of a decoded frame, transparency over white."""
    clear = "a" in frame.format.name.replace("gray", "")
    data = frame.to_ndarray(format="rgba" if clear else "rgb24", interpolation=TO_PICTURE)
    picture = torch.from_numpy(data.astype(np.float32) / 255)
    picture = _over_white(picture) if clear else picture
    return torch.rot90(picture, round(frame.rotation / 90), (0, 1)).permute(2, 0, 1).contiguous()


def _over_white(picture: Tensor) -> Tensor:
    return picture[..., :3] * picture[..., 3:] + 1 - picture[..., 3:]


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
