"""Masks of every kind mean what their makers meant, or are refused by name; soft ones keep their values."""

import numpy as np
import pytest
import torch
from PIL import Image

from geokernels.media.clips import VideoSource, require_masks
from geokernels.media.masks import read_mask
from geokernels.media.pictures import write_picture

SHAPE = np.zeros((24, 32), bool)
SHAPE[4:15, 6:20] = True
PALETTE = [0, 0, 0, 236, 95, 103, 249, 145, 87, 250, 200, 99]  # as DAVIS begins
OBJECTS = SHAPE.astype(np.uint8)
OBJECTS[8:12, 10:14] = 2


def palette(index, colours=PALETTE):
    image = Image.fromarray(index).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(colours)
    return image


def levels(low, high, dtype=np.uint8):
    return Image.fromarray(np.where(SHAPE, high, low).astype(dtype))


def transparent():
    colours = np.random.default_rng(0).integers(0, 256, (*SHAPE.shape, 3), np.uint8)
    return Image.fromarray(np.dstack([colours, np.where(SHAPE, 255, 0).astype(np.uint8)]))


def coloured(ground, *objects):
    colours = np.full((*SHAPE.shape, 3), ground, np.uint8)
    for number, colour in enumerate(objects, 1):
        colours[number <= OBJECTS] = colour
    return Image.fromarray(colours)


KINDS = {
    "palette of DAVIS": palette(SHAPE.astype(np.uint8)),
    "palette of several objects": palette(OBJECTS),
    "palette of greys, the object black": palette(1 - SHAPE.astype(np.uint8), [255, 255, 255, 0, 0, 0]),
    "grey 0 and 1": levels(0, 1),
    "grey 0 and 255": levels(0, 255),
    "grey 50 and 180": levels(50, 180),
    "labels in grey": Image.fromarray(OBJECTS),
    "one bit": Image.fromarray(SHAPE),
    "16 bits, 0 and 1": levels(0, 1, np.uint16),
    "16 bits, 0 and 65535": levels(0, 65535, np.uint16),
    "floats 0 and 1": levels(0, 1, np.float32),
    "floats 0 and 255": levels(0, 255, np.float32),
    "transparency": transparent(),
    "transparency of one colour": Image.merge("LA", (Image.new("L", (32, 24), 255), levels(0, 255))),
    "two colours": coloured((0, 0, 0), (128, 0, 0)),
    "colours on black": coloured((0, 0, 0), (128, 0, 0), (0, 128, 0)),
    "opaque": levels(0, 255).convert("RGBA"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_what_its_maker_meant(kind, tmp_path):
    path = tmp_path / ("a.tiff" if KINDS[kind].mode == "F" else "a.png")
    KINDS[kind].save(path)
    shape = torch.from_numpy(SHAPE)[None]
    if kind.endswith("black"):
        shape = ~torch.from_numpy(1 - SHAPE.astype(np.uint8)).bool()[None]  # the brighter is the object
    assert torch.equal(read_mask(path), shape.float())


def test_a_transparent_palette_is_read_by_its_transparency(tmp_path):
    palette(SHAPE.astype(np.uint8), [255, 0, 0, 255, 0, 0]).save(tmp_path / "a.png", transparency=0)
    assert torch.equal(read_mask(tmp_path / "a.png"), torch.from_numpy(SHAPE)[None].float())


@pytest.mark.parametrize("kind", ["grey", "colour", "16 bits", "floats", "opacity", "jpeg"])
def test_soft_masks_keep_their_values(kind, tmp_path):
    ramp = np.linspace(0, 255, 24 * 32).reshape(24, 32).astype(np.uint8)
    soft = torch.from_numpy(ramp.astype(np.float32) / 255)[None]
    path, tolerance = tmp_path / "a.png", 1e-6
    if kind == "grey":
        Image.fromarray(ramp).save(path)
    elif kind == "colour":
        Image.fromarray(np.dstack([ramp] * 3)).save(path)
    elif kind == "16 bits":
        Image.fromarray(ramp.astype(np.uint16) * 257).save(path)
    elif kind == "floats":
        path = tmp_path / "a.tiff"
        Image.fromarray(ramp.astype(np.float32) / 255).save(path)
    elif kind == "opacity":
        Image.merge("LA", (Image.new("L", (32, 24)), Image.fromarray(ramp))).save(path)
    else:
        path, tolerance = tmp_path / "a.jpg", 0.05
        Image.fromarray(ramp).save(path, quality=95)
    assert torch.allclose(read_mask(path), soft, atol=tolerance)


def test_a_mask_is_turned_upright_as_photographs_are(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    levels(0, 255).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_mask(tmp_path / "a.png"), torch.from_numpy(SHAPE)[None].float())


SAYS_NOTHING = {
    "black": (Image.new("L", (200, 200)), r"must show an object, a\.png covers 0\.00%"),
    "white": (Image.new("L", (200, 200), 255), r"must leave some ground, a\.png covers 100\.00%"),
    "palette of ground": (palette(np.zeros((200, 200), np.uint8)), r"must show an object, a\.png"),
    "palette of object": (palette(np.ones((200, 200), np.uint8)), r"must leave some ground, a\.png"),
    "clear": (Image.new("RGBA", (200, 200), (0, 0, 0, 0)), r"must show an object, a\.png"),
    "a photograph": (
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)),
        r"must be white where the object is, a\.png has 400 colours",
    ),
    "colours on white": (
        coloured((255, 255, 255), (128, 0, 0), (0, 128, 0)),
        r"must be white where the object is, a\.png has 3 colours",
    ),
}


@pytest.mark.parametrize("kind", SAYS_NOTHING)
def test_what_says_nothing_is_refused_by_name(kind, tmp_path):
    image, sentence = SAYS_NOTHING[kind]
    image.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=sentence):
        read_mask(tmp_path / "a.png")


def test_nearly_empty_and_nearly_full_are_refused(tmp_path):
    for inside, sentence in ((255, "must show an object"), (0, "must leave some ground")):
        dot = np.full((300, 300), 255 - inside, np.uint8)
        dot[0, :3] = inside
        Image.fromarray(dot).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=sentence):
            read_mask(tmp_path / "a.png")
    faint = np.linspace(0, 2000, 400).reshape(20, 20).astype(np.float32)
    Image.fromarray(faint).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"between 0 and 1, a\.tiff holds values from 0 to 2000"):
        read_mask(tmp_path / "a.tiff")


def test_masks_of_a_clip_are_looked_at_before_anything_else(tmp_path):
    for i in range(3):
        write_picture(tmp_path / "clip" / f"{i}.png", torch.rand(3, 24, 32))
        (tmp_path / "masks").mkdir(exist_ok=True)
        palette(OBJECTS).save(tmp_path / "masks" / f"{i:05d}.png")
    clip, masks = VideoSource(tmp_path / "clip"), VideoSource(tmp_path / "masks", what="--masks")
    require_masks(masks, clip)
    assert torch.equal(torch.stack(list(masks.masks())), torch.from_numpy(SHAPE).expand(3, 1, -1, -1).float())

    palette(np.zeros_like(OBJECTS)).save(tmp_path / "masks" / "00001.png")
    with pytest.raises(ValueError, match=r"--masks must show an object, 00001\.png covers .*--empty-masks"):
        require_masks(masks, clip)
    require_masks(masks, clip, may_be_empty=True)

    palette(OBJECTS[:12]).save(tmp_path / "masks" / "00001.png")
    with pytest.raises(ValueError, match=r"frames, 32 x 24 pixels, 00001\.png is 32 x 12"):
        require_masks(masks, clip)
    (tmp_path / "masks" / "00001.png").unlink()
    with pytest.raises(ValueError, match=r"--masks must be one a frame, 3, got 2"):
        require_masks(masks, clip)
