"""Frames made in bands of rows are those made in one piece, and memory holds none that a file holds."""

import gc
import weakref

import pytest
import torch

from geokernels.media.frame_files import FrameFiles, Lazily, evenly, read_frame
from geokernels.media.pictures import Picture, write_frame
from geokernels.pipelines import Blend, BlendConfig
from geokernels.pipelines.blend import bands
from geokernels.pipelines.blend.frames import as_bytes
from geokernels.pipelines.blend.maps import Maps
from geokernels.pipelines.blend.places import pixels


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*size, seed=0):
    return torch.randint(256, (3, *size), generator=chance(seed)).float() / 255


def shaken(a, b):
    """Maps that send each place about where it is, and are more or less sure of it."""

    def to(here, there, seed):
        scale = torch.tensor([(there[1] - 1) / (here[1] - 1), (there[0] - 1) / (here[0] - 1)])
        return pixels(torch.empty(1, *here)) * scale + 20 * torch.rand(*here, 2, generator=chance(seed))

    sure = [torch.rand(size, generator=chance(seed)) for size, seed in ((a, 3), (b, 4))]
    return Maps(to(a, b, 1), to(b, a, 2), *sure)


def begun(a, b, *, alpha=False, frames=4, **how):
    first, second = noise(*a), noise(*b, seed=1)
    if alpha:
        first = Picture(first, torch.rand(1, *a, generator=chance(5)))
    return Blend(first, second, config=BlendConfig(frames=frames, palette=64), maps=shaken(a, b), **how)


# odd sides, sizes that are not each other's, opacity, more rows than two bands have
@pytest.mark.parametrize(
    "sizes, alpha",
    [(((197, 133), (197, 133)), False), (((197, 133), (150, 171)), False), (((130, 70), (140, 66)), True)],
)
def test_bands_are_the_frame_to_the_bit(sizes, alpha, monkeypatch):
    run = begun(*sizes, alpha=alpha)
    run.prepare()
    monkeypatch.setattr(bands, "PIXELS", 1)
    assert bands.rows_of_band(133) == 64
    for t in (0, 0.3, 0.75, 1):
        assert torch.equal(bands.frame_of(run._scene, t), as_bytes(*run._scene.frame(t)))


def test_what_is_computed_on_the_way_is_as_large_as_a_band(monkeypatch):
    """The largest tensor that mixing makes, by its pixels, in a frame of six bands."""
    run, seen = begun((384, 32), (384, 32)), []
    run.prepare()
    monkeypatch.setattr(bands, "PIXELS", 1)
    mixed = type(run._scene)._mixed

    def noted(scene, t):
        made = mixed(scene, t)
        seen.append(made.shape[1])
        return made

    monkeypatch.setattr(type(run._scene), "_mixed", noted)
    assert bands.frame_of(run._scene, 0.5).shape == (3, 384, 32)
    assert seen == [64] * 6


def test_frames_in_files_are_held_by_nobody(tmp_path):
    run = begun((64, 64), (64, 64), frames=12, made=FrameFiles(lambda i: tmp_path / f"{i:03d}.png"))
    held = begun((64, 64), (64, 64), frames=12)
    alive, most, append = weakref.WeakSet(), 0, run.made.append

    def noted(frame):
        alive.add(frame)
        append(frame)

    run.made.append = noted
    while not run.done:
        run.step()
        held.step()
        gc.collect()
        most = max(most, len(alive))
    assert most <= 1
    assert torch.equal(torch.stack(list(run.made)), torch.stack(list(held.made)))
    assert torch.equal(run.distances(), held.distances())
    state = run.state_dict()
    assert [len(said) for said in state["frames"]] == [64] * 12  # checksums, and no picture
    again = begun((64, 64), (64, 64), frames=12, made=FrameFiles(lambda i: tmp_path / f"{i:03d}.png"))
    again.load_state_dict(state)
    assert torch.equal(again.result().frames, held.result().frames)
    (tmp_path / "004.png").write_bytes((tmp_path / "005.png").read_bytes())
    with pytest.raises(ValueError, match=r"004\.png is not what it was"):
        begun(
            (64, 64), (64, 64), frames=12, made=FrameFiles(lambda i: tmp_path / f"{i:03d}.png")
        ).load_state_dict(state)


def test_a_step_that_fails_leaves_the_frames_as_they_were(tmp_path, monkeypatch):
    run = begun((64, 64), (64, 64), made=FrameFiles(lambda i: tmp_path / f"{i:03d}.png"))
    run.step()
    append = FrameFiles.append

    def full(frames, frame):
        append(frames, frame)
        raise OSError("disk full")

    monkeypatch.setattr(FrameFiles, "append", full)
    with pytest.raises(OSError, match="disk full"):
        run.step()
    assert (run.index, len(run.made)) == (1, 1)
    monkeypatch.undo()
    run.finish()
    held = begun((64, 64), (64, 64))
    held.finish()
    assert torch.equal(torch.stack(list(run.made)), torch.stack(list(held.made)))


def test_a_frame_comes_back_from_its_file_with_the_colours_that_are_hidden(tmp_path):
    frame = torch.randint(256, (4, 9, 7), generator=chance(), dtype=torch.uint8)
    frame[3, :4] = 0
    for some in (frame, frame[:3]):
        write_frame(tmp_path / "frame.png", some)
        assert torch.equal(read_frame(tmp_path / "frame.png"), some)


def test_frames_are_chosen_evenly_and_made_when_asked_for():
    assert evenly(5, 9) == [0, 1, 2, 3, 4]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]
    asked = []
    lazily = Lazily(lambda i: asked.append(i) or 10 * i, evenly(101, 3))
    assert (len(lazily), asked) == (3, [])
    assert lazily[-1] == 1000
    assert list(lazily) == [0, 500, 1000]
    assert asked == [100, 0, 50, 100]
