"""Every kind of picture file is read right or refused in one sentence; what is written reads back."""

import io
import struct
import subprocess
import sys
import types
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from geokernels.media.pictures import fit, gif, read_picture, strip, write_frame, write_picture


def colours(mode="RGB", size=(13, 7)):
    """A picture whose four corners all differ, so that no turn or flip goes unseen."""
    W, H = size
    ramp = np.zeros((H, W, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.linspace(0, 255, W), np.linspace(0, 255, H)[:, None]
    return Image.fromarray(ramp).convert(mode)


def as_tensor(image):
    return torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".png", "RGB"), (".png", "L"), (".png", "P"), (".png", "1"), (".webp", "RGB")]
)
def test_reads_common_modes(tmp_path, suffix, mode):
    image, path = colours(mode), tmp_path / f"a{suffix}"
    image.save(path, **({"lossless": True} if suffix == ".webp" else {}))
    picture = read_picture(path)
    assert picture.alpha is None
    assert torch.equal(picture.rgb, as_tensor(image))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_reads_jpeg_modes(tmp_path, mode):
    colours(mode, (64, 48)).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert (read_picture(tmp_path / "a.jpg").rgb - as_tensor(colours(mode, (64, 48)))).abs().mean() < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_a_photograph_upright(tmp_path, orientation):
    upright = colours(size=(13, 7))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_picture(tmp_path / "a.png").rgb, as_tensor(upright))


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    values = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = torch.from_numpy(values.astype(np.float32) / 65535).expand(3, -1, -1)
    assert torch.allclose(read_picture(tmp_path / "a.png").rgb, expected, atol=1e-6)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_sixteen_bit_colour(tmp_path):
    # Pillow writes none, so the file is made by hand: two pixels, 16 bits a channel
    rows = b"\x00" + struct.pack(">6H", 65535, 0, 32768, 0, 65535, 16384)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25]])[:, None]
    assert torch.allclose(read_picture(tmp_path / "a.png").rgb, expected, atol=1 / 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette"])
def test_transparency_lies_over_white_and_comes_back(tmp_path, mode):
    if mode == "palette":
        image = colours().quantize(8)
        image.info["transparency"] = bytes([0, 128, *[255] * 6])
        image.save(tmp_path / "a.png", transparency=image.info["transparency"])
    else:
        image = colours().convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    stored = torch.from_numpy(
        np.array(Image.open(tmp_path / "a.png").convert("RGBA"), dtype=np.float32) / 255
    )
    colour, alpha = stored.permute(2, 0, 1).split([3, 1])
    assert torch.equal(picture.alpha, alpha)
    assert torch.allclose(picture.rgb, colour * alpha + 1 - alpha, atol=1e-6)

    write_picture(tmp_path / "b.png", picture.rgb, picture.alpha)
    again = torch.from_numpy(np.array(Image.open(tmp_path / "b.png"), dtype=np.float32) / 255).permute(
        2, 0, 1
    )
    seen = (alpha > 0).expand(3, -1, -1)
    assert torch.equal(again[3:], alpha)
    assert torch.allclose(again[:3][seen], colour[seen], atol=1.01 / 255)


def test_a_colour_profile_is_followed_and_a_damaged_one_ignored(tmp_path):
    image, profile = colours(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "a.png", icc_profile=profile)
    assert (read_picture(tmp_path / "a.png").rgb - as_tensor(image)).abs().max() <= 1.01 / 255
    image.save(tmp_path / "b.png", icc_profile=b"nonsense")
    assert torch.equal(read_picture(tmp_path / "b.png").rgb, as_tensor(image))


def test_written_picture_reads_back(tmp_path):
    rgb = torch.arange(256.0).div(255).expand(3, 2, -1)
    write_picture(tmp_path / "new" / "a.png", rgb)
    assert torch.equal(read_picture(tmp_path / "new" / "a.png").rgb, rgb)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    write_picture(tmp_path / "a.png", torch.zeros(3, 2, 2))
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(RuntimeError):
        write_picture(tmp_path / "a.png", torch.zeros(3, 2, 2), torch.ones(1, 5, 5))
    assert (tmp_path / "a.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ValueError, match=f"picture must be a whole file, cut.{suffix} is damaged"):
        read_picture(path)


def test_other_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"picture must be a file, got '.*none\.png', which is not one"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(
        ValueError, match=r"picture must be PNG, JPEG, WebP or the like, a\.png is none of them"
    ):
        read_picture(tmp_path / "a.png")
    colours().save(tmp_path / "b.gif", save_all=True, append_images=[colours().rotate(90)])
    with pytest.raises(ValueError, match=r"picture must be a single picture, b\.gif has 2 frames"):
        read_picture(tmp_path / "b.gif")
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "c.tiff")
    with pytest.raises(ValueError, match=r"c\.tiff holds floating-point numbers"):
        read_picture(tmp_path / "c.tiff")


def test_too_large_a_picture_is_refused_by_its_header(tmp_path):
    """11 kilobytes that unpack to 88 million pixels are refused before, unless the bound is lifted."""
    Image.new("1", (9400, 9400)).save(tmp_path / "a.png", optimize=True)
    damaged = (tmp_path / "a.png").read_bytes()[:200]  # the header alone: decoding would fail
    (tmp_path / "a.png").write_bytes(damaged)
    bound = r"picture must have at most 64 megapixels, a\.png has 88\.4 \(9400 x 9400\); .*--most-megapixels"
    with pytest.raises(ValueError, match=bound):
        read_picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is damaged"):
        read_picture(tmp_path / "a.png", most_megapixels=90)
    assert Image.MAX_IMAGE_PIXELS is not None  # Pillow's own bound is as it was


def test_the_bound_can_be_lifted_beyond_pillows(tmp_path, monkeypatch):
    colours().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert read_picture(tmp_path / "a.png", most_megapixels=float("inf")).rgb.shape == (3, 7, 13)


READ = """
import resource, sys
from PIL import Image
from geokernels.media.pictures import read_picture

read_picture(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = read_picture(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / picture.rgb.nbytes)
"""


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_reading_takes_little_more_memory_than_the_picture(tmp_path, mode):
    Image.new(mode, (4000, 4000)).save(tmp_path / "large.png")
    Image.new(mode, (64, 64)).save(tmp_path / "small.png")
    paths = [str(tmp_path / name) for name in ("small.png", "large.png")]
    done = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=True)
    # what is returned, and the bytes that it was made of, at most twice
    assert float(done.stdout) < 1.8


def test_a_photograph_with_previews_behind_it_is_read(tmp_path):
    """As telephones write: several pictures in one JPEG, of which the first is meant."""
    small = colours(size=(8, 8))
    colours(size=(64, 48)).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small], quality=100)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2
    assert (read_picture(tmp_path / "a.jpg").rgb - as_tensor(colours(size=(64, 48)))).abs().mean() < 0.02


def heif(path):
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64))


def test_heic_says_how_to_convert(tmp_path, monkeypatch):
    heif(tmp_path / "IMG_1.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    how = r"IMG_1\.heic is HEIC: pip install pillow-heif .*\(heif-convert IMG_1\.heic IMG_1\.jpg\)"
    with pytest.raises(ValueError, match=how):
        read_picture(tmp_path / "IMG_1.heic")


def test_heic_is_read_where_its_plugin_is(tmp_path, monkeypatch):
    """By a stand-in for pillow-heif, which registers a format with Pillow as that does."""

    class HeifImageFile(ImageFile.ImageFile):
        format, format_description = "HEIF", "stand-in"

        def _open(self):
            self._size, self._mode = (13, 7), "RGB"

        def load(self):
            self.im = colours().im
            return Image.Image.load(self)

    plugin = types.ModuleType("pillow_heif")
    plugin.register_heif_opener = lambda: Image.register_open(
        "HEIF", HeifImageFile, lambda start: start[4:8] == b"ftyp"
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN})
    heif(tmp_path / "a.heic")
    assert torch.equal(read_picture(tmp_path / "a.heic").rgb, as_tensor(colours()))


def test_numbers_without_a_range_are_refused_by_what_they_are(tmp_path):
    values = np.linspace(0, 255, 12).reshape(3, 4)
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff holds floating-point numbers from 0 to 255"):
        read_picture(tmp_path / "a.tiff")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "b.tiff")
    with pytest.raises(ValueError, match=r"8 or 16 bits a channel, b\.tiff holds 32 from 0 to 255"):
        read_picture(tmp_path / "b.tiff")
    Image.fromarray((values * 257).astype(">u2")).save(tmp_path / "c.tiff")
    expected = torch.from_numpy((values * 257).astype(np.uint16).astype(np.float32) / 65535)
    assert torch.allclose(read_picture(tmp_path / "c.tiff").rgb[0], expected, atol=1e-6)


def test_fit_shrinks_smoothly_and_enlarges_by_whole_pixels():
    small = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    large = fit(small, 20)
    assert large.shape == (3, 12, 18)
    assert torch.equal(large[:, ::3, ::3], small)
    assert fit(large, 9).shape == (3, 6, 9)


def test_gif_and_strip_show_every_frame():
    frames = [torch.full((3, 8, 8), value) for value in (0.0, 0.5, 1.0)]
    animation = Image.open(io.BytesIO(gif(frames)))
    assert (animation.n_frames, animation.info["loop"]) == (3, 0)
    assert strip(frames, height=8, gap=2).shape == (3, 8, 3 * 8 + 2 * 2)


def test_a_gif_may_go_back_to_where_it_began():
    frames = [torch.full((3, 16, 16), value) for value in (0.0, 0.3, 0.6, 0.9)]
    with Image.open(io.BytesIO(gif(frames, longest=16, hold=500, each=100, back=True))) as image:
        seen = []
        for i in range(image.n_frames):
            image.seek(i)
            seen.append((image.convert("RGB").getpixel((0, 0))[0], image.info["duration"]))
    assert seen == [(0, 500), (76, 100), (153, 100), (230, 500), (153, 100), (76, 100)]


def test_bytes_are_written_as_they_are(tmp_path):
    for channels in (3, 4):
        frame = torch.randint(256, (channels, 5, 7), generator=torch.Generator().manual_seed(0)).byte()
        write_frame(tmp_path / "frame.png", frame)
        with Image.open(tmp_path / "frame.png") as image:
            assert torch.equal(torch.from_numpy(np.array(image)).permute(2, 0, 1), frame)
