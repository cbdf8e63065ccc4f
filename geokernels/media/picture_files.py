"""Picture files, opened: bounded by what their header says, whole, and upright."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from .bounds import MOST_MEGAPIXELS, require_pixels

HEIF = ("heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1")  # brands, by which such files begin


def decoded(path: str | Path, *, what: str, most_megapixels: float = MOST_MEGAPIXELS) -> Image.Image:
    """The picture in a file, decoded and upright.

    Args:
        path: PNG, JPEG, WebP or whatever else Pillow knows; HEIC where pillow-heif is installed.
        what: What the picture is to the caller, for messages.
        most_megapixels: Refuse more, before they are decoded.

    Raises:
        ValueError: If there is no such file, or it is no picture, truncated, animated, or too large.
    """
    with _opened(path, what) as image:
        require_pixels(what, Path(path).name, image.size, most_megapixels)
        frames = getattr(image, "n_frames", 1)
        # a photograph of a telephone may carry previews and depth behind it, which is MPO's way
        if frames > 1 and image.format != "MPO":
            raise ValueError(f"{what} must be a single picture, {Path(path).name} has {frames} frames")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image


def size_of(path: str | Path, *, what: str) -> tuple[int, int]:
    """Width and height of the picture in a file, as it is upright; nothing is decoded.

    Raises:
        ValueError: If there is no such file, or it is no picture.
    """
    with _opened(path, what) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return image.size[::-1] if turned else image.size


def animated(path: Path) -> bool:
    """Whether a file is an animation that Pillow reads and FFmpeg does not."""
    if path.suffix.lower() not in (".webp", ".avif"):
        return False
    with _opened(path, "clip") as image:
        return getattr(image, "n_frames", 1) > 1


@contextmanager
def animation(path: Path) -> Iterator[Image.Image]:
    """An animation, at its first frame; what goes wrong while it is read is said of the clip."""
    with _opened(path, "clip") as image:
        yield image


@contextmanager
def _opened(path: str | Path, what: str) -> Iterator[Image.Image]:
    """A picture file whose header is read; whatever goes wrong inside is one sentence."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{what} must be a file, got {str(path)!r}, which is not one")
    _know_heif(path, what)
    try:
        with unbounded(), Image.open(path) as image:
            yield image
    except UnidentifiedImageError:
        raise ValueError(f"{what} must be PNG, JPEG, WebP or the like, {path.name} is none of them") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{what} must be a whole file, {path.name} is damaged: {error}") from None


@contextmanager
def unbounded() -> Iterator[None]:
    """Lift Pillow's bound of a picture's size: ours says how to lift it."""
    bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = bound


def _know_heif(path: Path, what: str) -> None:
    """Let Pillow read HEIC, where a file is of that kind.

    Raises:
        ValueError: With the remedies, where it cannot be taught.
    """
    with open(path, "rb") as file:
        start = file.read(12)
    if start[4:8] != b"ftyp" or start[8:].decode("latin1") not in HEIF:
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ValueError(
            f"{what} must be PNG, JPEG, WebP or the like, {path.name} is HEIC: pip install pillow-heif to "
            f"have it read, or convert it (heif-convert {path.name} {path.stem}.jpg)"
        ) from None
    register_heif_opener()
