"""``geokernels blend``: what it leaves behind, how it stops and resumes, what it says of bad input."""

import json
import os
import signal
import sys
from fractions import Fraction

import pytest
import torch
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.cli.blend import pair_of
from geokernels.media.clips import VideoSource
from geokernels.media.pictures import read_picture, write_picture
from geokernels.pipelines import Blend
from geokernels.runs.record import require_record

pytest.importorskip("cv2")
QUICK = ("--frames", 3, "--set", "matching.points=16", "--set", "matching.first=16", "--set", "palette=32")


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two scenes of other sizes, one of them with transparency; and files that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    first, second = world.render(world.sample_scenes(2, generator=torch.Generator().manual_seed(3)))
    write_picture(folder / "a <b>&.png", first[:, :, :48])
    alpha = torch.ones(1, 64, 64)
    alpha[:, :8] = 0
    write_picture(folder / "b.png", second * alpha + 1 - alpha, alpha)
    write_picture(folder / "small.png", first[:, :8, :8])
    (folder / "text.png").write_text("no picture")
    return folder


def blend(pictures, out, *more, first="a <b>&.png", second="b.png"):
    return run("blend", pictures / first, pictures / second, "--out", out, *QUICK, *more)


def sentence(done) -> str:
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return line.removeprefix("Error: ")


def test_leaves_everything_it_promises(pictures, tmp_path):
    done = blend(pictures, tmp_path / "out", "--match", "10,12:20.5,30", "--match", "40,50:50,52")
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {"frames", "frames.png", "blend.gif", "run.json", "report.html"}
    record = json.loads((out / "run.json").read_text())
    require_record(record)
    assert (record["first"], record["second"], record["mp4"]) == ("a <b>&.png", "b.png", False)
    assert (record["size"], record["places"]) == ([64, 64], [[8, 0, 48, 64], [0, 0, 64, 64]])
    assert record["matches"]["fixed"] == [[10, 12, 20.5, 30], [40, 50, 50, 52]]
    assert record["config"]["blend"]["matching"]["points"] == 16
    assert len(record["path"]["distances"]) == 2
    assert set(record["files"]) == {
        "frames.png",
        "blend.gif",
        "report.html",
        *(f"frames/00{i}.png" for i in range(3)),
    }


def test_the_first_and_the_last_frame_are_the_given_pictures(pictures, tmp_path):
    assert blend(pictures, tmp_path / "out").exit_code == 0
    for frame, name, inside in (("000", "a <b>&.png", slice(8, 56)), ("002", "b.png", slice(0, 64))):
        shown, given = (
            read_picture(path) for path in (tmp_path / f"out/frames/{frame}.png", pictures / name)
        )
        assert torch.equal(shown.rgb[:, :, inside], given.rgb)
        alpha = torch.ones_like(given.rgb[:1]) if given.alpha is None else given.alpha
        assert torch.equal(shown.alpha[:, :, inside], alpha)


def test_the_page_takes_names_of_files_for_text(pictures, tmp_path):
    assert blend(pictures, tmp_path / "out", "--match", "10,12:20,30").exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>&" not in page
    assert "a &lt;b&gt;&amp;.png" in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<img ") == page.count('alt="') == 3 + 3 + 2
    assert "<line " in page


def test_interrupted_run_resumes_to_the_identical_result(pictures, tmp_path, monkeypatch):
    assert blend(pictures, tmp_path / "whole").exit_code == 0
    step, steps = Blend.step, []

    def press(self):
        steps.append(self.index)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        step(self)

    monkeypatch.setattr(Blend, "step", press)
    stopped = blend(pictures, tmp_path / "halves")
    assert stopped.exit_code == 130
    assert "Stopped after 2 of 3 frames" in stopped.stderr
    assert not (tmp_path / "halves" / "run.json").exists()
    refused = blend(pictures, tmp_path / "halves", "--resume", "--match", "1,1:2,2")
    assert "made with" in sentence(refused)
    assert blend(pictures, tmp_path / "halves", "--resume").exit_code == 0
    assert steps == [0, 1, 2]  # no frame twice
    whole, halves = (json.loads((tmp_path / d / "run.json").read_text()) for d in ("whole", "halves"))
    for name in {*whole["files"]} - {"report.html"}:
        assert whole["files"][name] == halves["files"][name]
    assert whole["matches"] == halves["matches"]


def test_mp4_rests_on_the_given_pictures(pictures, tmp_path):
    pytest.importorskip("av")
    assert blend(pictures, tmp_path / "out", "--mp4").exit_code == 0
    times = [time for _, time in VideoSource(tmp_path / "out" / "blend.mp4").timed()]
    assert times == [0, 1 + Fraction(1, 12), 1 + Fraction(2, 12), 2 + Fraction(3, 12)]


BAD = [
    (("--match", "1,2"), "--match must be X0,Y0:X1,Y1 in pixels, such as 120,80:96.5,70, got '1,2'"),
    (("--match", "1,2:3"), "--match must be X0,Y0:X1,Y1 in pixels"),
    (("--match", "1,2:3,nan"), "--match must be X0,Y0:X1,Y1 in pixels"),
    (("--match", "1,2:3,4,5"), "--match must be X0,Y0:X1,Y1 in pixels"),
    (
        ("--match", "1,2:64,3"),
        "--match must name places in the pictures, SECOND is 64 x 64 pixels, got 64,3",
    ),
    (("--match", "48,2:3,3"), "--match must name places in the pictures, FIRST is 48 x 64 pixels, got 48,2"),
    (("--set", "least_area=2"), "--set least_area must lie between 0 and 1, got 2"),
    (("--set", "matching.smoothness=0"), "--set matching.smoothness must be a finite number above 0"),
    (("--set", "colours=gone"), "--set colours must be one of moved, faded, got 'gone'"),
    (("--clip-weights", __file__), "--clip-weights goes with --clip, which is not given"),
    (("--level", "0.5"), "--level goes with --model, which is not given"),
    (("--set", "batch=2"), "--set batch goes with --model, which is not given"),
    (("--from", "a red circle"), "--from goes with --model, which is not given"),
    (("--to", "a blue star"), "--to goes with --model, which is not given"),
    (("--dtype", "float16"), "--dtype goes with --model, which is not given"),
    (("--model", "world", "--level", "0"), "--level must be above 0 and at most 1, got 0.0"),
    (("--model", "world", "--level", "1.5"), "--level must be above 0 and at most 1, got 1.5"),
    (("--model", "world", "--dtype", "float8"), "--dtype must be float32, bfloat16 or float16"),
    (("--model", "world", "--solver", "euler"), "--solver goes with Stable Diffusion 3 and FLUX"),
    (("--model", "nothing-like-it"), "--model must be"),
    (("--mask-a", __file__), "--mask-a goes with --mask-b, which is not given"),
    (("--mask-b", __file__), "--mask-b goes with --mask-a, which is not given"),
]


@pytest.mark.parametrize("more, said", BAD, ids=[" ".join(more[:2]) for more, _ in BAD])
def test_bad_options_get_one_sentence(more, said, pictures, tmp_path):
    assert sentence(blend(pictures, tmp_path / "out", *more)).startswith(said)
    assert not (tmp_path / "out").exists()


def test_bad_pictures_are_said_by_their_place(pictures, tmp_path):
    out = tmp_path / "out"
    assert "SECOND must be an existing file" in sentence(blend(pictures, out, second="none.png"))
    assert "FIRST must be PNG, JPEG" in sentence(blend(pictures, out, first="text.png"))
    assert "SECOND must be PNG, JPEG" in sentence(blend(pictures, out, second="text.png"))
    said = sentence(blend(pictures, out, second="small.png"))
    assert said == "SECOND must be at least 16 pixels a side, got 8 x 8"
    assert "FIRST must have at most 0.001 megapixels" in sentence(
        blend(pictures, out, "--most-megapixels", "0.001")
    )
    assert "2" in blend(pictures, out, "--frames", 1).stderr
    assert not out.exists()


def test_mp4_without_pyav_is_refused_at_once(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert 'pip install "geokernels[video]"' in sentence(blend(pictures, tmp_path / "out", "--mp4"))


def test_a_pair_is_four_numbers():
    assert pair_of("1,2:3.5,4e1") == [1, 2, 3.5, 40]


def test_bad_masks_are_said_by_their_options(pictures, tmp_path):
    mask = torch.zeros(3, 64, 48)
    mask[:, 20:40, 10:30] = 1
    write_picture(tmp_path / "mask.png", mask)
    write_picture(tmp_path / "empty.png", 0 * mask)
    good, out = tmp_path / "mask.png", tmp_path / "out"
    for a, b, said in (
        (good, good, "--mask-b must be as large as SECOND, which is 64 x 64 pixels, got 48 x 64"),
        (tmp_path / "empty.png", good, "--mask-a must show an object, empty.png covers 0.00%"),
        (pictures / "text.png", good, "--mask-a must be PNG, JPEG"),
        (good, tmp_path / "none.png", "--mask-b must be an existing file"),
    ):
        assert said in sentence(blend(pictures, out, "--mask-a", a, "--mask-b", b))
        assert not out.exists()


def test_masks_are_followed_and_said(pictures, tmp_path):
    for name, width in (("a.png", 48), ("b.png", 64)):
        mask = torch.zeros(3, 64, width)
        mask[:, 20:40, 10:30] = 1
        write_picture(tmp_path / name, mask)
    given = ("--mask-a", tmp_path / "a.png", "--mask-b", tmp_path / "b.png")
    assert blend(pictures, tmp_path / "out", *given).exit_code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    require_record(record)
    assert record["masked"] == ["a.png", "b.png"]
    assert {"--mask-a", "--mask-b"} <= {one["option"] for one in record["inputs"]}
    assert "inside of their masks" in (tmp_path / "out" / "report.html").read_text()
    plain = blend(pictures, tmp_path / "plain")
    assert plain.exit_code == 0
    assert json.loads((tmp_path / "plain" / "run.json").read_text())["masked"] == []
    assert (tmp_path / "plain/frames/001.png").read_bytes() != (tmp_path / "out/frames/001.png").read_bytes()


DRAWN = ("--steps", 4, "--batch", 1, "--from", "a b", "--to", "c")


def test_a_model_draws_and_a_stopped_run_ends_as_a_whole_one(
    pictures, tmp_path, pipeline_folder, monkeypatch
):
    drawn = ("--model", pipeline_folder, *DRAWN)
    done = blend(pictures, tmp_path / "whole", *drawn)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    require_record(record)
    assert record["diffusion"] == {
        "model": pipeline_folder.name,
        "pipeline": "StableDiffusionPipeline",
        "dtype": "float32",
        "prompts": ["a b", "c"],
    }
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "StableDiffusionPipeline" in page
    assert "noise at 0.5 of 4 steps" in page
    step, steps = Blend.step, []

    def press(self):
        steps.append(self.index)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        step(self)

    monkeypatch.setattr(Blend, "step", press)
    stopped = blend(pictures, tmp_path / "halves", *drawn)
    assert stopped.exit_code == 130
    assert "Stopped after 2 of 3 frames" in stopped.stderr
    refused = blend(pictures, tmp_path / "halves", "--resume", *drawn, "--level", "1")
    assert "made with" in sentence(refused)
    assert blend(pictures, tmp_path / "halves", "--resume", *drawn).exit_code == 0
    assert steps == [0, 1, 2]
    halves = json.loads((tmp_path / "halves" / "run.json").read_text())
    for name in {*record["files"]} - {"report.html"}:
        assert record["files"][name] == halves["files"][name]


def test_texts_that_are_too_long_are_refused_or_cut(pictures, tmp_path, pipeline_folder):
    drawn, long = ("--model", pipeline_folder, "--steps", 2), "a " * 90
    said = sentence(blend(pictures, tmp_path / "out", *drawn, "--to", long))
    assert said.startswith("--to must have at most 77 tokens, got 92")
    assert said.endswith("shorten it, or add --truncate")
    assert not (tmp_path / "out").exists()
    cut = blend(pictures, tmp_path / "out", *drawn, "--to", long, "--truncate")
    assert cut.exit_code == 0, cut.output
    assert "--to is too long for a model and was cut" in cut.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(record["diffusion"]["prompts"][1].split()) == 75


def test_a_model_of_another_kind_gets_one_sentence(pictures, tmp_path, random_pipeline):
    folder = random_pipeline("StableDiffusionInstructPix2PixPipeline")
    said = sentence(blend(pictures, tmp_path / "out", "--model", folder))
    assert "StableDiffusionInstructPix2PixPipeline" in said
    assert not (tmp_path / "out").exists()
    said = sentence(blend(pictures, tmp_path / "out", "--model", random_pipeline("PixArtAlphaPipeline")))
    assert said.startswith("--model must be a StableDiffusionPipeline")


@pytest.fixture
def clip_folder(tmp_path):
    """A CLIP of random weights, saved as open_clip's own folders are."""
    open_clip, tensors = pytest.importorskip("open_clip"), pytest.importorskip("safetensors.torch")
    sizes = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    words = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    sizes = {"embed_dim": 12, "vision_cfg": sizes, "text_cfg": words}
    folder = tmp_path / "clip"
    folder.mkdir()
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": sizes, "preprocess_cfg": half}))
    tensors.save_file(open_clip.CLIP(**sizes).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_the_patches_of_a_clip_are_matched(pictures, tmp_path, clip_folder):
    """It is loaded as any other, matched by, and named."""
    folder = clip_folder
    done = blend(pictures, tmp_path / "out", "--clip", f"local-dir:{folder}", "--frames", 2)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (name,) = record["encoders"]
    assert "clip" in name
    plain = blend(pictures, tmp_path / "plain", "--frames", 2)
    assert plain.exit_code == 0
    other = json.loads((tmp_path / "plain" / "run.json").read_text())
    assert record["matches"]["confidence"] != other["matches"]["confidence"]
