"""Pictures: read from any kind of file, written as PNG and GIF, fitted to a size and laid side by side."""

import io
import math
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms
from torch import Tensor

from .._files import replacing
from .bounds import MOST_MEGAPIXELS
from .picture_files import decoded, unbounded

BAND = 256  # rows of a picture that are converted at a time


@dataclass(frozen=True)
class Picture:
    """A picture as the pipelines take it.

    Attributes:
        rgb: ``(3, H, W)`` float32 in [0, 1], sRGB, over white where the file is transparent.
        alpha: ``(1, H, W)`` in [0, 1], or None where the file has no transparency.
    """

    rgb: Tensor
    alpha: Tensor | None = None


def read_picture(path: str | Path, *, most_megapixels: float = MOST_MEGAPIXELS) -> Picture:
    """Read PNG, JPEG, WebP or whatever else Pillow knows: grey, palette, 16 bits, CMYK, alpha, EXIF-rotated.

    The picture is turned upright; an embedded colour profile is followed to sRGB (a damaged one is ignored,
    as browsers do). Transparent pixels are laid over white, and the transparency is kept beside them.

    Args:
        path: The file; HEIC too, where pillow-heif is installed.
        most_megapixels: Refuse more millions of pixels, by the header, before they are decoded.

    Raises:
        ValueError: If there is no such file, or it is no picture, truncated, animated, too large, or of
            numbers whose range nothing tells.
    """
    image = decoded(path, what="picture", most_megapixels=most_megapixels)
    return _to_tensors(image, Path(path).name)


def write_picture(path: str | Path, rgb: Tensor, alpha: Tensor | None = None) -> None:
    """Write a PNG; with ``alpha``, what lies over white in ``rgb`` is made transparent again.

    Args:
        path: Where; replaced whole.
        rgb: ``(3, H, W)`` in [0, 1].
        alpha: ``(1, H, W)`` in [0, 1], or None.
    """
    with replacing(path) as partial:
        to_image(rgb, alpha).save(partial, format="PNG")


def write_layer(path: str | Path, colour: Tensor, opacity: Tensor) -> None:
    """Write a PNG that other programs can lay over a picture.

    Args:
        path: Where; replaced whole.
        colour: ``(3, H, W)`` in [0, 1], as it is before any mixing.
        opacity: ``(1, H, W)`` in [0, 1].
    """
    with replacing(path) as partial:
        Image.fromarray(in_bytes(torch.cat([colour, opacity]))).save(partial, format="PNG")


def write_frame(path: str | Path, frame: Tensor) -> None:
    """Write ``(3, H, W)`` bytes, or ``(4, H, W)`` with opacity last, as a PNG, quickly: it is larger.

    Args:
        path: Where; replaced whole.
        frame: uint8, on the CPU.
    """
    with replacing(path) as partial:
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(partial, format="PNG", compress_level=1)


def write_grey(path: str | Path, grey: Tensor) -> None:
    """Write ``(1, H, W)`` in [0, 1] as a PNG of one channel; replaced whole."""
    with replacing(path) as partial:
        Image.fromarray(in_bytes(grey)[..., 0]).save(partial, format="PNG")


def chequered(like: Tensor, *, side: int = 8) -> Tensor:
    """The grey squares that stand for transparency, of the size of ``like`` (..., H, W): ``(3, H, W)``."""
    H, W = like.shape[-2:]
    y, x = torch.arange(H)[:, None] // side, torch.arange(W) // side
    return (0.8 + 0.12 * ((x + y) % 2).float()).expand(3, H, W)


def to_image(rgb: Tensor, alpha: Tensor | None = None) -> Image.Image:
    """A Pillow image of 8 bits a channel; see :func:`write_picture`."""
    return Image.fromarray(in_bytes(rgb if alpha is None else torch.cat([uncovered(rgb, alpha), alpha])))


def uncovered(rgb: Tensor, alpha: Tensor) -> Tensor:
    """The colours of a picture before it was laid over white; where nothing of it is seen, those that are."""
    rgb = rgb.to(alpha.device)
    return torch.where(alpha > 0, (rgb - (1 - alpha)) / alpha.clamp(min=1 / 255), rgb)


def png(rgb: Tensor, *, longest: int | None = None) -> bytes:
    """The bytes of a PNG file; with ``longest``, of the picture as :func:`fit` makes it."""
    buffer = io.BytesIO()
    to_image(rgb if longest is None else fit(rgb, longest)).save(buffer, format="PNG")
    return buffer.getvalue()


def through_jpeg(rgb: Tensor, quality: int) -> Tensor:
    """What a JPEG file of this quality keeps of a picture ``(3, H, W)`` in [0, 1]."""
    buffer = io.BytesIO()
    to_image(rgb).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as image:
        pixels = torch.from_numpy(np.array(image))
    return (pixels.permute(2, 0, 1).float() / 255).to(rgb.device)


def gif(
    frames: Iterable[Tensor],
    *,
    longest: int = 256,
    hold: int = 1200,
    each: int = 90,
    back: bool = False,
) -> bytes:
    """The bytes of an endless GIF that rests on its first and last frame.

    Args:
        frames: ``(3, H, W)`` in [0, 1], of one size, gone through once.
        longest: Longest side; larger frames are shrunk, frames below half of it are enlarged crisply.
        hold: Milliseconds on the first and last frame.
        each: Milliseconds on the others.
        back: Whether the frames in between are shown once more, on the way back to the first.
    """
    # no dithering: it would double the file for a grain that nobody sees
    threads, images = torch.get_num_threads(), []
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for frame in frames:  # of which files may hold more than memory does
            waiting.append(pool.submit(_paletted, fit(frame, longest)))
            if len(waiting) > threads:
                images.append(waiting.popleft().result())
        images += [image.result() for image in waiting]
    times = [hold, *[each] * (len(images) - 2), hold][: len(images)]
    if back:
        images, times = [*images, *images[-2:0:-1]], [*times, *times[-2:0:-1]]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0, disposal=1)
    return buffer.getvalue()


def _paletted(rgb: Tensor) -> Image.Image:
    return to_image(rgb).quantize(255, dither=Image.Dither.NONE)


def strip(frames: Iterable[Tensor], *, height: int = 160, gap: int = 6) -> Tensor:
    """Frames of one size side by side on white, ``(3, height, ...)``."""
    shown = [fit(frame, height, side="height") for frame in frames]
    spacer = shown[0].new_ones(3, shown[0].shape[1], gap)
    parts = [part for frame in shown for part in (spacer, frame)][1:]
    return torch.cat(parts, 2)


def grid(pictures: Sequence[Tensor], *, columns: int | None = None, gap: int = 2) -> Tensor:
    """Pictures of one size in rows on white, ``(3, ..., ...)``; about as many columns as rows if not told."""
    columns = columns or math.ceil(len(pictures) ** 0.5)
    first = pictures[0]
    padded = [*pictures, *[torch.ones_like(first)] * (-len(pictures) % columns)]
    lines = [
        torch.cat([F.pad(p, (0, gap, 0, gap), value=1.0) for p in padded[i : i + columns]], 2)
        for i in range(0, len(padded), columns)
    ]
    return torch.cat(lines, 1)[:, :-gap, :-gap] if gap else torch.cat(lines, 1)


def fit(rgb: Tensor, size: int, *, side: str = "longest") -> Tensor:
    """Shrink smoothly to ``size``, or enlarge by a whole factor, so that small pictures stay crisp."""
    H, W = rgb.shape[-2:]
    now = H if side == "height" else max(H, W)
    if now >= size:
        shape = [max(1, round(n * size / now)) for n in (H, W)]
        shrunk = F.interpolate(rgb[None], shape, mode="bilinear", antialias=True, align_corners=False)
        return shrunk[0].clamp(0, 1)
    return rgb.repeat_interleave(size // now, -1).repeat_interleave(size // now, -2)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data``; replaced whole."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def _to_tensors(image: Image.Image, name: str) -> Picture:
    if image.mode == "F":
        raise ValueError(
            f"picture must hold 8 or 16 bits a channel, {name} holds floating-point numbers{_range(image)}"
        )
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError(f"picture must hold 8 or 16 bits a channel, {name} holds 32{_range(image)}")
    if image.mode.startswith("I"):
        grey = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
        return Picture(grey.clamp(0, 1).expand(3, -1, -1).contiguous())
    if not (image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info):
        return Picture(_planes(_to_srgb(image, image)))
    clear = image.convert("RGBA")
    alpha, colours = _planes(clear.getchannel("A")), _planes(_to_srgb(image, clear))
    return Picture(colours.mul_(alpha).add_(1 - alpha), alpha)


def _range(image: Image.Image) -> str:
    low, high = image.getextrema()
    return f" from {low:g} to {high:g}"


def _planes(image: Image.Image) -> Tensor:
    """Channels of 8 bits as ``(C, H, W)`` in [0, 1]; by bands, so that nothing else of this size is held."""
    (width, height), channels = image.size, len(image.getbands())
    planes = torch.empty(channels, height, width, dtype=torch.float32)
    for top in range(0, height, BAND):
        with unbounded():
            rows = np.array(image.crop((0, top, width, min(top + BAND, height))))
        planes[:, top : top + BAND] = torch.from_numpy(rows.reshape(*rows.shape[:2], channels)).permute(
            2, 0, 1
        )
    return planes.div_(255)


def _to_srgb(image: Image.Image, plain: Image.Image) -> Image.Image:
    """``image`` by its colour profile; where none fits, ``plain``, its colours as they stand."""
    profile = image.info.get("icc_profile")
    plain = plain if plain.mode == "RGB" else plain.convert("RGB")
    if not profile:
        return plain
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        fits = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
        colours = image if fits.get(image.mode) == source.profile.xcolor_space else plain
        return ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return plain


def in_bytes(planes: Tensor) -> np.ndarray:
    """Of ``(C, H, W)`` in [0, 1], ``(H, W, C)`` of 8 bits; by bands, as :func:`_planes`."""
    data = torch.empty(*planes.shape[1:], len(planes), dtype=torch.uint8)
    for top in range(0, planes.shape[1], BAND):
        rows = planes[:, top : top + BAND].detach().cpu()
        data[top : top + BAND] = rows.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    return data.numpy()
