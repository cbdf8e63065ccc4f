"""Clips of every kind are read frame by frame with their times, or the frame that cannot be is named."""

import os
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from PIL import Image

from geokernels import world
from geokernels.report.pictures import gif, write_picture
from geokernels.report.video_files import VideoSource, mp4_writer

pytest.importorskip("av")
TIMES = [Fraction(ms, 1000) for ms in (0, 40, 80, 200, 240, 700)]  # not evenly


@pytest.fixture(scope="module")
def frames():
    chance = torch.Generator().manual_seed(1)
    return world.render_clip(world.sample_scenes(1, generator=chance), 6, generator=chance).frames


def write(path, frames, times=TIMES):
    with mp4_writer(path) as add:
        for frame, time in zip(frames, times):
            add(frame, time)


def test_a_video_of_uneven_times_keeps_them(frames, tmp_path):
    write(tmp_path / "clip.mp4", frames)
    read = list(VideoSource(tmp_path / "clip.mp4").timed())
    assert [time for _, time in read] == TIMES
    assert (torch.stack([frame for frame, _ in read]) - frames).abs().mean() < 0.03  # chroma is halved
    write(tmp_path / "again.mp4", frames)
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


WRITE = """
import sys
import torch
from fractions import Fraction
from geokernels.report import video_files

path, encoder = sys.argv[1:]
video_files.ENCODER["x264-params"] += encoder
noise = torch.rand(3, 70, 110, generator=torch.Generator().manual_seed(0))
ground = noise.repeat_interleave(4, 1).repeat_interleave(4, 2)
with video_files.mp4_writer(path) as add:
    for i in range(30):
        add(ground[:, i : i + 240, 2 * i : 2 * i + 320], Fraction(i, 24))
"""


def test_the_same_frames_give_the_same_film_whatever_was_in_memory_and_on_every_machine(tmp_path):
    """On machines with AVX-512 x264 reads memory that nothing was written to, unless it is told not to."""
    ways = [("0", ""), ("85", ""), ("255", ":asm=avx2"), ("1", ":asm=0")]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path / f"{i}.mp4"), encoder],
            env=os.environ | {"MALLOC_PERTURB_": fill, "OMP_NUM_THREADS": "1"},
        )
        for i, (fill, encoder) in enumerate(ways)
    ]
    assert [writer.wait() for writer in writers] == [0] * len(ways)
    films = {(tmp_path / f"{i}.mp4").read_bytes() for i in range(len(ways))}
    assert len(films) == 1


def test_a_film_is_as_bright_as_its_frames(tmp_path):
    grey = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(0.6).add(0.2)
    smooth = grey.repeat_interleave(8, 1).repeat_interleave(8, 2)
    write(tmp_path / "clip.mp4", [smooth] * 3, TIMES[:3])
    for frame in VideoSource(tmp_path / "clip.mp4").frames():
        assert (frame - smooth).mean().abs() < 0.5 / 255


def test_odd_sides_are_made_even_by_their_edge(frames, tmp_path):
    write(tmp_path / "clip.mp4", frames[..., :63, :61])
    (first, *_) = VideoSource(tmp_path / "clip.mp4").frames()
    assert first.shape == (3, 64, 62)
    assert (first[:, :63, :61] - frames[0, :, :63, :61]).abs().mean() < 0.03


def test_a_gif_is_read_with_its_times(frames, tmp_path):
    (tmp_path / "clip.gif").write_bytes(gif(list(frames), longest=64, hold=500, each=100))
    read = list(VideoSource(tmp_path / "clip.gif").timed())
    assert [float(time) for _, time in read] == pytest.approx([0, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert (torch.stack([frame for frame, _ in read]) - frames).abs().mean() < 0.02


def test_a_folder_is_read_in_the_order_of_its_numbers(frames, tmp_path):
    for i, frame in zip((1, 2, 10), frames):
        write_picture(tmp_path / f"frame{i}.png", frame)
    (tmp_path / "notes.txt").write_text("no frame")
    read = list(VideoSource(tmp_path, rate=12.5).timed())
    assert [time for _, time in read] == [0, Fraction(2, 25), Fraction(4, 25)]
    for (frame, _), expected in zip(read, frames):
        assert (frame - expected).abs().max() < 1 / 255
    Image.new("L", (5, 4), 255).save(tmp_path / "frame1.png")
    assert torch.equal(next(VideoSource(tmp_path).masks()), torch.ones(1, 4, 5))


def test_a_frame_that_cannot_be_read_is_named(frames, tmp_path):
    folder = tmp_path / "frames"
    for i in range(3):
        write_picture(folder / f"{i}.png", frames[i])
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"1\.png is damaged"):
        list(VideoSource(folder).frames())

    write(tmp_path / "clip.mp4", frames)
    whole = (tmp_path / "clip.mp4").read_bytes()
    start, end = whole.index(b"mdat"), whole.index(b"moov")
    half = (start + end) // 2
    (tmp_path / "clip.mp4").write_bytes(whole[:half] + b"\xff" * (end - 8 - half) + whole[end - 8 :])
    with pytest.raises(ValueError, match=r"whole video file, frame \d of clip\.mp4 cannot be read"):
        list(VideoSource(tmp_path / "clip.mp4").frames())


def test_what_is_no_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found none at"):
        VideoSource(tmp_path / "nowhere.mp4")
    with pytest.raises(ValueError, match="holds none"):
        VideoSource(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"whole video file, text\.mp4 is none"):
        list(VideoSource(tmp_path / "text.mp4").frames())


def test_a_video_that_fails_while_it_is_written_is_not_there(frames, tmp_path):
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "clip.mp4", (frame / (1 // (2 - i)) for i, frame in enumerate(frames)))
    assert not list(tmp_path.iterdir())
