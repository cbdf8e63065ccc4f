"""Films, written: H.264 in mp4, with the sound of the clip that they are made of."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from .._files import replacing
from .clips import TICKS, TO_VIDEO, require_av
from .pictures import in_bytes

# Of x264. The same frames give the same file, on every machine: by one thread, and without what it has for
# some instruction sets alone, of which that for AVX-512 reads memory that nothing was written to.
ENCODER = {
    "crf": "14",  # 0 loses nothing, 51 is worst
    "threads": "1",
    "x264-params": "cpu-independent=1",
}
# Frames that x264 looks ahead, and the pixels of a frame, those of full HD, up to which it does: it holds all
# of them, and of larger ones looks at fewer ahead.
AHEAD, WHOLE = 40, 2**21

BT709, LIMITED = 1, 1  # colours of films, and that they use 16 to 235 of a byte, by FFmpeg's numbers


@dataclass(frozen=True)
class Sound:
    """The sound of a clip, carried over as it is stored.

    Attributes:
        path: The clip.
        frames: How many of its frames are shown; the sound ends with them, if there were more.
        warn: Told, in a sentence, what cannot be carried over.
    """

    path: Path
    frames: int
    warn: Callable[[str], None] = warnings.warn


@contextmanager
def mp4_writer(
    path: str | Path, *, sound: Sound | None = None
) -> Iterator[Callable[[Tensor, Fraction], None]]:
    """Write frames as H.264, one at a time, so that memory does not grow with the clip.

    Sides that are odd, which H.264 of the common kind cannot have, are made even by repeating the last row or
    column.

    Args:
        path: Where; replaced whole when all are written.
        sound: What is heard, or None; what mp4 cannot hold is left out, and said.

    Yields:
        A function that takes a frame, ``(3, H, W)`` in [0, 1], and when it is shown, in seconds, rising.
    """
    av = require_av()
    with (
        replacing(path) as partial,
        av.open(str(partial), "w", format="mp4") as file,
        _track(file, sound) as heard,
    ):
        stream = file.add_stream("libx264")
        codec = stream.codec_context
        stream.pix_fmt, codec.time_base = "yuv420p", Fraction(1, TICKS)
        # said, because players guess by the size of untold ones
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = LIMITED

        def add(frame: Tensor, time: Fraction) -> None:
            H, W = frame.shape[-2:]
            data = np.pad(in_bytes(frame.float()), ((0, H % 2), (0, W % 2), (0, 0)), mode="edge")
            if not codec.is_open:
                stream.height, stream.width = data.shape[:2]
                codec.options = encoder_of(stream.width * stream.height)
            picture = av.VideoFrame.from_ndarray(data, format="rgb24")
            picture = picture.reformat(
                format="yuv420p", interpolation=TO_VIDEO, dst_colorspace=BT709, dst_color_range=LIMITED
            )
            picture.pts, picture.time_base = round(time * TICKS), Fraction(1, TICKS)
            file.mux(stream.encode(picture))
            heard(time)

        yield add
        file.mux(stream.encode())
        heard(None)


def encoder_of(pixels: int) -> dict[str, str]:
    """The settings of x264 for frames of so many pixels."""
    if pixels <= WHOLE:
        return dict(ENCODER)
    ahead = max(1, AHEAD * WHOLE // pixels)
    return {**ENCODER, "x264-params": f"{ENCODER['x264-params']}:rc-lookahead={ahead}"}


@contextmanager
def _track(file, sound: Sound | None) -> Iterator[Callable[[Fraction | None], None]]:
    """A function that writes what is heard until a time, or until the end, into ``file``."""
    if sound is None or sound.path.is_dir():
        yield lambda time: None
        return
    av = require_av()
    with av.open(str(sound.path)) as source:
        into = {}
        for stream in source.streams.audio:
            codec = stream.codec_context and stream.codec_context.codec.canonical_name
            if codec in file.supported_codecs:
                into[stream.index] = file.add_stream_from_template(stream)
            else:
                name = f"the sound of {sound.path.name} ({codec or 'of an unknown kind'})"
                sound.warn(f"{name} cannot be put into an mp4 as it is, and is left out")
        if not into:
            yield lambda time: None
            return
        packets = _heard(source, into, *_span(sound))
        waiting = next(packets, None)

        def until(time: Fraction | None) -> None:
            nonlocal waiting
            while waiting is not None and (time is None or waiting[0] <= time):
                file.mux(waiting[1])
                waiting = next(packets, None)

        yield until


def _heard(source, into: dict, start: Fraction, end: Fraction | None) -> Iterator[tuple]:
    """When each packet of sound is heard, from the first frame on, and the packet, on its new stream."""
    packets = source.demux(*(source.streams[index] for index in into))
    while True:
        try:
            packet = next(packets, None)
        except require_av().error.FFmpegError:
            return  # the clip is cut off, which was said when its frames were read
        if packet is None:
            return
        if packet.dts is None or not packet.size:
            continue
        base = packet.time_base
        time, shift = (packet.pts * base) - start, round(start / base)
        if time + (packet.duration or 0) * base < 0 or (end is not None and time >= end):
            continue
        packet.pts, packet.dts, packet.stream = (
            packet.pts - shift,
            packet.dts - shift,
            into[packet.stream.index],
        )
        yield time, packet


def _span(sound: Sound) -> tuple[Fraction, Fraction | None]:
    """When the first frame is shown, and, where not all of them are used, the first that is not."""
    with require_av().open(str(sound.path)) as source:
        stream, shown = source.streams.video[0], []
        try:
            shown = [
                packet.pts * packet.time_base for packet in source.demux(stream) if packet.pts is not None
            ]
        except require_av().error.FFmpegError:
            pass  # cut off
    shown.sort()
    if not shown:
        return Fraction(0), None
    return shown[0], shown[sound.frames] if len(shown) > sound.frames else None
