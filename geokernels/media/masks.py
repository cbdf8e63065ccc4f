"""Masks, read as what they say: palette indices, two levels, labels, transparency, or shades of grey.

    palette           DAVIS, VOC: 0 is ground, every other index an object
    two values        whatever they are (0 and 1, 0 and 255, two colours): the brighter is the object
    small whole numbers, up to 31    labels of several objects: 0 is ground
    transparency      of a picture whose opacity varies: the opacity
    shades of grey    8 or 16 bits, or floats in [0, 1]: how much of a pixel is the object's

Anything else, a photograph say, is refused, and so is a mask that says nothing.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .bounds import MOST_MEGAPIXELS
from .picture_files import decoded

LABELS = 32  # whole numbers below are labels, of a picture that holds no others
GREY = 16  # of 255: how far the channels of a grey picture may be apart, as JPEG leaves them
COLOURED = 0.001  # share of pixels that may be further apart
LOSSY = ("JPEG", "MPO")  # formats after which equal values are no longer equal
LEAST = 1e-4  # share of the picture that both object and ground must have


def read_mask(path: str | Path, *, what: str = "mask", most_megapixels: float = MOST_MEGAPIXELS) -> Tensor:
    """Read a mask; the module says what is understood.

    Args:
        path: A picture file.
        what: What the mask is to the caller, for messages.
        most_megapixels: Refuse more millions of pixels, by the header.

    Returns:
        How much of each pixel is the object's, ``(1, H, W)`` float32 in [0, 1].

    Raises:
        ValueError: If the file is no picture or no mask, or the mask is all object, all ground or nearly so.
    """
    mask = mask_in(path, what=what, most_megapixels=most_megapixels)
    require_object_and_ground(mask, what, Path(path).name)
    return mask


def mask_in(path: str | Path, *, what: str, most_megapixels: float = MOST_MEGAPIXELS) -> Tensor:
    """The same of a mask that may be empty or full."""
    image = decoded(path, what=what, most_megapixels=most_megapixels)
    return torch.from_numpy(_coverage(image, what, Path(path).name))[None]


def mask_of_frame(frame: Tensor, *, what: str, name: str) -> Tensor:
    """The same of a frame ``(3, H, W)`` of a film, which has neither palette nor transparency, and noise."""
    colours = frame.permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
    return torch.from_numpy(_of_colours(colours, what, name, exact=False))[None]


def require_object_and_ground(
    mask: Tensor, what: str, name: str, *, may_be_empty: bool = False, remedy: str = ""
) -> None:
    """Refuse a mask that is all object or all ground, or nearly so; ``remedy`` is what an empty one needs."""
    covered, least = mask.mean(dtype=torch.float64).item(), max(LEAST, 4 / mask.numel())
    if covered > 1 - least:
        raise ValueError(f"{what} must leave some ground, {name} covers {covered:.2%} of the picture")
    if covered < least and not may_be_empty:
        raise ValueError(f"{what} must show an object, {name} covers {covered:.2%} of the picture{remedy}")


def _coverage(image: Image.Image, what: str, name: str) -> np.ndarray:
    """``(H, W)`` float32 in [0, 1]."""
    opacity, exact = _opacity(image), image.format not in LOSSY
    if opacity is not None and opacity.min() < opacity.max():
        return opacity.astype(np.float32) / 255
    if image.mode in ("P", "PA"):
        index = np.array(image.getchannel("P") if image.mode == "PA" else image)
        if _labelled(image, index):
            return (index > 0).astype(np.float32)
    if image.mode in ("1", "L", "LA", "La"):
        return _of_values(np.array(image.convert("L")), 255, what, name, exact=exact)
    if image.mode == "F" or image.mode.startswith("I"):
        return _of_values(np.array(image), 1 if image.mode == "F" else 65535, what, name, exact=True)
    return _of_colours(np.array(image.convert("RGB")), what, name, exact=exact)


def _opacity(image: Image.Image) -> np.ndarray | None:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return np.array(image.convert("RGBA").getchannel("A"))
    return None


def _labelled(image: Image.Image, index: np.ndarray) -> bool:
    """Whether a palette stands for objects: it begins with its darkest colour, and is not grey."""
    colours = np.array(image.getpalette("RGB"), dtype=int).reshape(-1, 3)
    used = np.unique(index)
    shown = colours[used[used < len(colours)]]
    grey = (np.ptp(shown, axis=1) <= GREY).all()
    return not grey and colours[0].sum() <= shown.sum(1).min()


def _of_colours(colours: np.ndarray, what: str, name: str, *, exact: bool) -> np.ndarray:
    """Of ``(H, W, 3)`` bytes: of greys, of two colours, or of a few on black."""
    apart = colours.max(2).astype(int) - colours.min(2)
    if (apart > GREY).mean() <= COLOURED:
        return _of_values(np.rint(colours.mean(2)), 255, what, name, exact=exact)
    packed = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    kinds = np.unique(packed)
    brightness = sum(kinds >> shift & 255 for shift in (0, 8, 16))
    if len(kinds) > 2 and (len(kinds) > LABELS or brightness.min() > 3 * GREY):
        raise ValueError(
            f"{what} must be white where the object is, {name} has {len(kinds)} colours: "
            "give shades of grey, a palette, two colours, or transparency"
        )
    return (packed != kinds[brightness.argmin()]).astype(np.float32)


def _of_values(values: np.ndarray, full: int, what: str, name: str, *, exact: bool) -> np.ndarray:
    """Of numbers of which ``full`` is white; ``exact`` unless a lossy file left noise in them."""
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{what} must hold numbers, {name} holds NaN or infinite values")
    labels = exact and low >= 0 and high < LABELS and full > 1
    if labels or (exact and ((values == low) | (values == high)).all()):
        # of one value alone, it is all ground or all object
        return (values > (0 if labels or low == high else low)).astype(np.float32)
    if low < 0 or high > full:
        raise ValueError(
            f"{what} must lie between 0 and {full}, {name} holds values from {low:g} to {high:g}"
        )
    return (values / full).astype(np.float32)
