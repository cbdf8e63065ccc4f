"""``geokernels video``: what it leaves behind, how it stops and goes on in both stages, what it refuses."""

import json
import os
import signal
from fractions import Fraction

import pytest
import torch
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.media.clips import VideoSource
from geokernels.media.films import mp4_writer
from geokernels.media.pictures import read_picture, write_picture
from geokernels.models import LayeredAtlas
from geokernels.pipelines import AtlasFit, VideoEdit
from geokernels.runs import video as video_driver
from geokernels.runs.record import require_record

pytest.importorskip("av"), pytest.importorskip("cv2")
TIMES = [Fraction(ms, 1000) for ms in (0, 40, 200, 240)]


# few small steps, of an opacity that follows the masks
SMALL = """
guess: 2.0
views: 2
crops: 2
atlas:
  steps: 60
  samples: 128
  learning_rate: 0.02
  bootstrap: 1.0
  bootstrapped: 2.0
  shape: {width: 16, layers: 2, map_layers: 1, octaves: 3}
"""


@pytest.fixture(scope="module")
def truth():
    chance = torch.Generator().manual_seed(1)
    return world.render_clip(world.sample_scenes(1, generator=chance), 4, 24, generator=chance)


@pytest.fixture
def clip(truth, tmp_path):
    with mp4_writer(tmp_path / "clip.mp4") as add:
        for frame, time in zip(truth.frames, TIMES):
            add(frame, time)
    for i, mask in enumerate(truth.masks):
        write_picture(tmp_path / "masks" / f"{i}.png", mask.expand(3, -1, -1))
    return tmp_path / "clip.mp4"


def video(clip, out, *more, steps=3):
    small = out.parent / "small.yaml"
    small.write_text(SMALL)
    options = ["--from", "a blue circle", "--to", "a red circle", "--out", out, "--steps", steps]
    options += ["--config", small]
    return CliRunner().invoke(app, [str(x) for x in ("video", clip, *options, *more)])


def sums(out):
    return json.loads((out / "run.json").read_text())["files"]


def test_everything_is_left_behind_and_the_atlas_serves_again(clip, tmp_path, monkeypatch):
    out, masks = tmp_path / "out", ("--masks", tmp_path / "masks")
    done = video(clip, out, *masks)
    assert done.exit_code == 0, done.output
    names = [
        "atlas.safetensors",
        "edit.png",
        "alpha.png",
        "edited.mp4",
        "side-by-side.mp4",
        "edited.gif",
        "report.html",
    ]
    assert {p.name for p in out.iterdir()} == {*names, "frames", "run.json"}
    record = json.loads((out / "run.json").read_text())
    assert set(record["files"]) == {*names, *(f"frames/{i:04d}.png" for i in range(4))}
    assert (record["frames"], record["size"], record["config"]["edit"]["layer"]) == (
        4,
        [24, 24],
        "foreground",
    )
    require_record(record)
    assert len(record["history"]["atlas"]) == 60
    assert record["atlas"]["psnr"] > 15
    # the clip's own times, and both halves side by side
    edited, beside = (list(VideoSource(out / name).timed()) for name in ("edited.mp4", "side-by-side.mp4"))
    assert [time for _, time in edited] == [time for _, time in beside] == TIMES
    assert beside[0][0].shape == (3, 24, 24 + 4 + 24)
    for i, (frame, _) in enumerate(edited):
        kept = read_picture(out / "frames" / f"{i:04d}.png").rgb
        assert (frame - kept).abs().mean() < 0.05
    page = (out / "report.html").read_text()
    assert "The atlas" in page
    assert 'alt=""' not in page

    looks, look, complete = [], LayeredAtlas.look, video_driver.VideoJob.complete
    with monkeypatch.context() as patched:
        patched.setattr(LayeredAtlas, "look", lambda self, i, **how: looks.append(i) or look(self, i, **how))
        patched.setattr(
            video_driver.VideoJob, "complete", lambda self, tell: looks.clear() or complete(self, tell)
        )
        again = video(clip, tmp_path / "again", "--atlas", out / "atlas.safetensors")
    assert again.exit_code == 0, again.output
    assert looks == [0, 1, 2, 3]  # the frames that are written, each computed once
    record = json.loads((tmp_path / "again" / "run.json").read_text())
    require_record(record)
    assert record["atlas"]["fitted"] is False
    for name in ("edit.png", "edited.mp4", "atlas.safetensors"):
        assert sums(tmp_path / "again")[name] == sums(out)[name]
    other = tmp_path / "other"
    for i in range(4):
        write_picture(other / f"{i}.png", torch.full((3, 24, 24), i / 4))
    refused = video(other, tmp_path / "no", "--atlas", out / "atlas.safetensors")
    assert refused.exit_code == 2
    assert "Error: the atlas must be of this clip, whose checksum is" in refused.stderr
    refused = video(clip, tmp_path / "no2", "--atlas", out / "atlas.safetensors", "--fit-steps", 3)
    assert "--fit-steps is no option with --atlas" in refused.stderr


def test_a_run_stopped_in_either_stage_resumes_to_the_identical_files(clip, tmp_path, monkeypatch):
    masks = ("--masks", tmp_path / "masks")
    assert video(clip, tmp_path / "whole", *masks).exit_code == 0
    whole = sums(tmp_path / "whole")
    for kind, said in ((AtlasFit, "step 2 of 60 of the atlas"), (VideoEdit, "step 2 of 3 of the edit")):
        out, step = tmp_path / kind.__name__, kind._step

        def press(self, step=step):
            if self.index == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return step(self)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "_step", press)
            stopped = video(clip, out, *masks)
        assert stopped.exit_code == 130
        assert f"Stopped after {said}" in stopped.stderr
        assert not (out / ".clip").exists()
        resumed = video(clip, out, *masks, "--resume")
        assert resumed.exit_code == 0, resumed.output
        assert sums(out) | {"report.html": ""} == whole | {"report.html": ""}


def test_a_run_stopped_while_the_clip_is_read_goes_on(clip, tmp_path, monkeypatch):
    prepare = video_driver.prepare_footage

    def press(*args, **how):
        os.kill(os.getpid(), signal.SIGINT)
        return prepare(*args, **how)

    options = ("--masks", tmp_path / "masks", "--fit-steps", 40)
    monkeypatch.setattr(video_driver, "prepare_footage", press)
    stopped = video(clip, tmp_path / "out", *options, steps=1)
    assert stopped.exit_code == 130
    assert "Stopped before the first step, while reading the clip" in stopped.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["checkpoint.pt"]
    monkeypatch.setattr(video_driver, "prepare_footage", prepare)
    assert video(clip, tmp_path / "out", *options, "--resume", steps=1).exit_code == 0


def test_bad_clips_are_refused_in_one_sentence(clip, tmp_path):
    folder = tmp_path / "frames"
    write_picture(folder / "0.png", torch.zeros(3, 20, 20))
    write_picture(folder / "1.png", torch.zeros(3, 20, 24))
    uneven = tmp_path / "uneven"
    for i, height in enumerate((24, 20, 24, 24)):
        write_picture(uneven / f"{i}.png", torch.ones(3, height, 24).tril())
    equal, still = tmp_path / "equal", tmp_path / "still"
    scene = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    for i in range(3):
        write_picture(equal / f"{i}.png", scene)
        write_picture(still / f"{i}.png", scene.index_fill(2, torch.tensor([0]), i / 255))
    for given, sentence in (
        (
            (folder, tmp_path / "a"),
            "frames must be of one size, the first is 20 x 20 pixels, frame 1 is 24 x 20",
        ),
        ((tmp_path / "none.mp4", tmp_path / "b"), "CLIP must be an existing file or folder"),
        (
            (clip, tmp_path / "c", "--masks", uneven),
            "--masks must be as large as the frames, 24 x 24 pixels, 1.png is 24 x 20",
        ),
        (
            (clip, tmp_path / "c", "--masks", folder),
            "--masks must show an object, 0.png covers 0.00% of the picture",
        ),
        ((equal, tmp_path / "f"), "--masks must be given where nothing moves: all 3 frames are equal"),
        (
            (still, tmp_path / "g"),
            "--masks must be given, or --layer background: in these 3 frames nothing was found to move",
        ),
        ((clip, tmp_path / "d", "--layer", "middle"), "layer must be one of foreground, background"),
        ((clip, tmp_path / "e", "--to", "a blue circle"), "--to must differ from --from"),
        ((clip, tmp_path / "e", "--flow", "raft"), "flow must be dis, raft_small=FILE or raft_large=FILE"),
    ):
        done = video(*given)
        assert done.exit_code == 2, sentence
        assert sentence in done.stderr
        assert not list(given[1].glob("*")), sentence
