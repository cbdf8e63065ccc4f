"""Clips of every kind are read frame by frame with their times, or the frame that cannot be is named."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from geokernels import world
from geokernels.media import films
from geokernels.media.clips import VideoSource
from geokernels.media.films import Sound, mp4_writer
from geokernels.media.pictures import gif, to_image, write_picture

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
from geokernels.media import films

path, encoder = sys.argv[1:]
films.ENCODER["x264-params"] += encoder
noise = torch.rand(3, 70, 110, generator=torch.Generator().manual_seed(0))
ground = noise.repeat_interleave(4, 1).repeat_interleave(4, 2)
with films.mp4_writer(path) as add:
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


def test_of_large_frames_the_encoder_looks_at_fewer_ahead(frames, tmp_path, monkeypatch):
    """It holds what it looks at: 40 frames of 4,096 pixels a side would take gigabytes."""
    assert films.encoder_of(1920 * 1080) == films.ENCODER
    for side, ahead in ((2048, 20), (4096, 5), (2**15, 1)):
        assert films.encoder_of(side**2)["x264-params"].endswith(f":rc-lookahead={ahead}")
    for pixels, ahead in ((2**21, 40), (frames[0, 0].numel() // 4, 10)):
        monkeypatch.setattr(films, "WHOLE", pixels)
        write(tmp_path / "clip.mp4", frames)
        assert f"rc_lookahead={ahead} ".encode() in (tmp_path / "clip.mp4").read_bytes()


def test_a_film_is_as_bright_as_its_frames(tmp_path):
    grey = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(0.6).add(0.2)
    smooth = grey.repeat_interleave(8, 1).repeat_interleave(8, 2)
    write(tmp_path / "clip.mp4", [smooth] * 3, TIMES[:3])
    for frame in VideoSource(tmp_path / "clip.mp4").frames():
        assert (frame - smooth).mean().abs() < 0.5 / 255
        inside = (frame - smooth)[:, 3::8, 3::8]  # away from edges, where chroma is halved
        assert inside.abs().mean() < 0.01
    import av

    with av.open(str(tmp_path / "clip.mp4")) as file:  # players need not guess
        (first, *_) = file.decode(video=0)
        codec = file.streams.video[0].codec_context
        assert (first.colorspace, first.color_range, codec.color_primaries, codec.color_trc) == (1, 1, 1, 1)


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
    mask = torch.ones(1, 8, 8).triu()
    write_picture(tmp_path / "frame1.png", mask.expand(3, -1, -1))
    assert torch.equal(next(VideoSource(tmp_path).masks()), mask)


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


def test_a_clip_in_an_unknown_codec_is_refused(tmp_path):
    with mp4_writer(tmp_path / "clip.mp4") as add:
        add(torch.zeros(3, 16, 16), Fraction(0))
    data = (tmp_path / "clip.mp4").read_bytes()
    for code in (b"zzzz", b"\0\0\0\0"):
        (tmp_path / "odd.mp4").write_bytes(data.replace(b"avc1", code))
        with pytest.raises(ValueError, match=r"clip must be in a codec that FFmpeg can read, odd\.mp4 is in"):
            VideoSource(tmp_path / "odd.mp4").size()


def test_a_video_that_fails_while_it_is_written_is_not_there(frames, tmp_path):
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "clip.mp4", (frame / (1 // (2 - i)) for i, frame in enumerate(frames)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_animations_are_clips(frames, tmp_path, suffix):
    path, images = tmp_path / f"a.{suffix}", [to_image(frame) for frame in frames]
    kind = {"webp": {"lossless": True}, "gif": {}, "png": {}}[suffix]
    times = [100, 200, 50, 100, 300, 70]
    images[0].save(path, save_all=True, append_images=images[1:], duration=times, loop=0, **kind)
    clip = VideoSource(path)
    read = list(clip.timed())
    assert [float(time) for _, time in read] == pytest.approx([0, 0.1, 0.3, 0.35, 0.45, 0.75])
    assert (torch.stack([frame for frame, _ in read]) - frames).abs().mean() < 0.02
    assert clip.size() == (frames.shape[3], frames.shape[2])


def film(path, frames, *, codec="libx264", sound=None, options=None):
    """A film of PyAV's own, with a tone of 440 Hz."""
    import av

    with av.open(str(path), "w", options=options or {}) as file:
        shown = file.add_stream(codec, rate=25)
        shown.height, shown.width, shown.pix_fmt = *frames[0].shape[1:], "yuv420p"
        heard = sound and file.add_stream(sound, rate=48000, layout="stereo")
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_image(to_image(frame))
            picture.pts, picture.time_base = i, Fraction(1, 25)
            file.mux(shown.encode(picture))
            if heard:
                kind = heard.codec_context.format
                tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(i * 1920, (i + 1) * 1920) / 48000)
                tone = tone.astype("f4") if kind.name == "fltp" else (tone * 32767).astype("i2")
                tones = [tone, tone] if kind.is_planar else tone.repeat(2)[None]
                part = av.AudioFrame.from_ndarray(np.array(tones), format=kind.name, layout="stereo")
                part.sample_rate, part.pts, part.time_base = 48000, i * 1920, Fraction(1, 48000)
                file.mux(heard.encode(part))
        file.mux(shown.encode())
        if heard:
            file.mux(heard.encode())


def heard_in(path):
    """Samples of the first channel, and the second of the first of them."""
    import av

    with av.open(str(path)) as file:
        parts = list(file.decode(audio=0))
        found = np.concatenate(
            [p.to_ndarray()[0] if p.format.is_planar else p.to_ndarray()[0, ::2] for p in parts]
        )
        return found / (1 if found.dtype.kind == "f" else 32768), parts[0].time


@pytest.fixture(scope="module")
def many(frames):
    return [frames[i % 6].roll(i, 2) for i in range(50)]


@pytest.mark.parametrize(("suffix", "codec"), [("mov", "aac"), ("mkv", "flac"), ("webm", "libopus")])
def test_sound_is_carried_over_as_it_is(many, tmp_path, suffix, codec):
    clip = tmp_path / f"clip.{suffix}"
    film(clip, many, sound=codec, codec="libvpx" if suffix == "webm" else "libx264")
    source = VideoSource(clip)
    with mp4_writer(tmp_path / "edited.mp4", sound=Sound(clip, 50)) as add:
        for frame, time in source.timed():
            add(1 - frame, time)
    (given, start), (kept, now) = heard_in(clip), heard_in(tmp_path / "edited.mp4")
    assert now == pytest.approx(start, abs=0.002)
    assert abs(len(given) - len(kept)) <= 48000 * 0.03
    piece = given[4000:40000]
    assert np.abs(piece).max() > 0.4
    # not encoded again: the same samples, at the same time up to the milliseconds that a webm counts in
    assert any(np.array_equal(piece, kept[4000 + k : 40000 + k]) for k in range(-48, 49))
    assert [time for _, time in VideoSource(tmp_path / "edited.mp4").timed()] == [
        time for _, time in source.timed()
    ]


def test_sound_ends_with_the_frames_that_are_used(many, tmp_path):
    film(tmp_path / "clip.mov", many, sound="aac")
    with mp4_writer(tmp_path / "edited.mp4", sound=Sound(tmp_path / "clip.mov", 20)) as add:
        for i in range(20):
            add(many[i], Fraction(i, 25))
    assert len(heard_in(tmp_path / "edited.mp4")[0]) / 48000 == pytest.approx(20 / 25, abs=0.03)


def test_sound_that_mp4_cannot_hold_is_left_out_and_said(many, tmp_path):
    film(tmp_path / "clip.avi", many[:10], codec="mpeg4", sound="pcm_mulaw")
    said = []
    sound = Sound(tmp_path / "clip.avi", 10, warn=said.append)
    with mp4_writer(tmp_path / "edited.mp4", sound=sound) as add:
        for i in range(10):
            add(many[i], Fraction(i, 25))
    assert said == ["the sound of clip.avi (pcm_mulaw) cannot be put into an mp4 as it is, and is left out"]
    assert len(list(VideoSource(tmp_path / "edited.mp4").frames())) == 10


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("b.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx", {}),
        ("a.avi", "mpeg4", {}),
    ],
)
def test_a_clip_that_is_cut_off_is_used_as_far_as_it_goes_and_said(many, tmp_path, name, codec, options):
    path, said = tmp_path / name, []
    film(path, many, codec=codec, options=options)
    source = VideoSource(path, warn=said.append)
    whole = {time: frame for frame, time in source.timed()}
    assert (len(whole), said) == (50, [])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * (0.8 if codec == "mpeg4" else 0.6))])
    read = list(source.timed())
    assert 5 < len(read) < 45
    assert all(torch.equal(frame, whole[time]) for frame, time in read)
    (sentence,) = said
    assert sentence.startswith(f"{name} is cut off after {len(read)} frames")


def test_a_clip_of_which_nothing_is_left_is_refused(many, tmp_path):
    path = tmp_path / "a.mp4"
    film(path, many, options={"movflags": "faststart"})
    start = path.read_bytes().index(b"mdat")
    path.write_bytes(path.read_bytes()[: start + 500])
    with pytest.raises(ValueError, match=r"a\.mp4 is cut off after \d frames of 50"):
        list(VideoSource(path).frames())


@pytest.mark.parametrize("name", ["a.mp4", "a.webp", "a.gif", "frames"])
def test_clips_are_bounded_by_their_headers(many, tmp_path, name):
    path = tmp_path / name
    if name == "a.mp4":
        film(path, many)
    elif name == "frames":
        for i, frame in enumerate(many):
            write_picture(path / f"{i}.png", frame)
    else:
        first, *rest = (to_image(frame) for frame in many)
        first.save(path, save_all=True, append_images=rest, duration=40)
    megapixels = many[0][0].numel() / 1e6
    with pytest.raises(ValueError, match=r"must have at most .* megapixels, .* --most-megapixels|lift"):
        list(VideoSource(path, most_megapixels=megapixels / 2).frames())
    with pytest.raises(ValueError, match=r"megapixels in all its frames, .*lift the bound"):
        list(VideoSource(path, most_megapixels=megapixels).frames())
    assert len(list(VideoSource(path, most_megapixels=4 * megapixels).frames())) == 50


def test_a_recording_whose_last_frame_stays_is_whole(frames, tmp_path):
    """Of a screen, say, on which nothing happened any more while somebody spoke."""
    import av

    path, said = tmp_path / "screen.mkv", []
    with av.open(str(path), "w") as file:
        shown, heard = file.add_stream("libx264", rate=25), file.add_stream("flac", rate=48000, layout="mono")
        shown.height, shown.width, shown.pix_fmt = *frames.shape[2:], "yuv420p"
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_image(to_image(frame))
            picture.pts, picture.time_base = i, Fraction(1, 25)
            file.mux(shown.encode(picture))
        file.mux(shown.encode())
        part = av.AudioFrame.from_ndarray(np.ones((1, 48000 * 3), "i2"), format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = 48000, 0, Fraction(1, 48000)
        file.mux(heard.encode(part))
        file.mux(heard.encode())
    assert len(list(VideoSource(path, warn=said.append).frames())) == 6
    assert said == []


def test_colours_beyond_a_screen_are_said(frames, tmp_path):
    import av

    path, said = tmp_path / "hdr.mp4", []
    with av.open(str(path), "w") as file:
        shown = file.add_stream("libx264", rate=25)
        shown.height, shown.width, shown.pix_fmt = *frames.shape[2:], "yuv420p10le"
        shown.codec_context.color_trc, shown.codec_context.color_primaries = 18, 9
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_image(to_image(frame)).reformat(format="yuv420p10le")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            file.mux(shown.encode(picture))
        file.mux(shown.encode())
    assert len(list(VideoSource(path, warn=said.append).frames())) == 6
    assert said == ["hdr.mp4 is HDR (HLG), and its colours come out dull: convert it to SDR"]
