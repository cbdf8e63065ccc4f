"""How large pictures and clips may be: looked at in their headers, before anything is decoded."""

# Millions of pixels of one picture: photographs of telephones have up to 50, and files of some kilobytes can
# unpack to gigabytes.
MOST_MEGAPIXELS = 64.0
CLIP_SHARE = 16  # so many times the bound of one picture may all frames of a clip hold


def require_pixels(what: str, name: str, size: tuple[int, int], most_megapixels: float) -> None:
    """Refuse a picture of more than so many millions of pixels."""
    width, height = size
    megapixels = width * height / 1e6
    if not megapixels <= most_megapixels:
        raise ValueError(
            f"{what} must have at most {most_megapixels:g} megapixels, {name} has {megapixels:.1f} "
            f"({width} x {height}); make it smaller, or lift the bound (--most-megapixels)"
        )


def require_clip_pixels(
    what: str, name: str, frames: int, size: tuple[int, int], most_megapixels: float
) -> None:
    """Refuse ``frames`` frames of more pixels than a clip may hold."""
    width, height = size
    if frames * width * height / 1e6 > CLIP_SHARE * most_megapixels:
        raise ValueError(
            f"{what} must have at most {CLIP_SHARE * most_megapixels:g} megapixels in all its frames, "
            f"{name} has more (frames of {width} x {height}); make it shorter or smaller, or lift the bound "
            f"(--most-megapixels, a {CLIP_SHARE}th of it)"
        )
