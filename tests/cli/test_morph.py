"""The command line: what it leaves behind, how it stops and resumes, and what it says about bad input."""

import json
import os
import signal
import sys

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from geokernels import world
from geokernels._files import _host
from geokernels.cli import app
from geokernels.environment import extra_of
from geokernels.media.pictures import read_picture, write_picture
from geokernels.pipelines import BlendConfig, ClipInversion, ClipInversionConfig, MatchingConfig
from geokernels.runs import demo as demo_report
from geokernels.runs.demo import DemoConfig
from geokernels.runs.record import require_record

FILM = BlendConfig(recipe="world", frames=2, palette=32, matching=MatchingConfig(points=8, first=8))

BEFORE, AFTER = (
    "a large plain red circle on a white background",
    "a large plain blue circle on a white background",
)


@pytest.fixture
def picture(tmp_path):
    chance = torch.Generator().manual_seed(0)
    write_picture(tmp_path / "source.png", world.render(world.sample_scenes(1, generator=chance))[0])
    return tmp_path / "source.png"


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def morph(picture, out, *more, steps=5, texts=(BEFORE, AFTER)):
    return run("morph", picture, "--from", texts[0], "--to", texts[1], "--out", out, "--steps", steps, *more)


def test_morph_leaves_everything_it_promises(picture, tmp_path):
    out = tmp_path / "out"
    done = morph(picture, out, "--seed", 7)
    assert done.exit_code == 0, done.output
    assert "steps/s" in done.stdout
    assert {p.name for p in out.iterdir()} == {
        "result.png", "frames.png", "frames", "morph.gif", "run.json", "report.html",
    }  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    assert (record["from"], record["to"], record["seeds"], record["encoders"]) == (
        BEFORE,
        [AFTER],
        [7],
        ["world"],
    )
    assert (
        record["config"]["morph"]["steps"] == record["steps"]["morph"] == len(record["history"]["morph"]) == 5
    )
    assert record["seconds"]["total"] > 0
    assert record["peak_memory_mib"] > 0
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    frames = {f"frames/{i:03d}.png" for i in range(6)}
    assert set(record["files"]) == {"result.png", "frames.png", "morph.gif", "report.html", *frames}
    assert read_picture(out / "result.png").rgb.shape == read_picture(picture).rgb.shape


def test_the_report_loads_nothing_and_describes_every_picture(picture, tmp_path):
    assert morph(picture, tmp_path / "out", steps=2).exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert page.count("<img ") == page.count('alt="') > 4
    assert 'alt=""' not in page


def test_prompts_are_escaped_in_the_report(picture, tmp_path):
    assert morph(picture, tmp_path / "out", steps=1, texts=("a <b>circle</b>", AFTER)).exit_code == 0
    assert "a &lt;b&gt;circle" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture
def interrupt_after(monkeypatch):
    """Press Ctrl-C in the middle of a step."""

    def after(index):
        step = ClipInversion.step

        def press(self):
            if self.index == index:
                os.kill(os.getpid(), signal.SIGINT)
            step(self)

        monkeypatch.setattr(ClipInversion, "step", press)
        return lambda: monkeypatch.setattr(ClipInversion, "step", step)

    return after


def test_interrupted_run_resumes_to_the_identical_result(picture, tmp_path, interrupt_after):
    assert morph(picture, tmp_path / "whole", steps=7).exit_code == 0
    release = interrupt_after(2)
    stopped = morph(picture, tmp_path / "halves", steps=7)
    assert stopped.exit_code == 130
    assert "Stopped after step 3 of 7" in stopped.stderr
    assert not (tmp_path / "halves" / "run.json").exists()

    release()
    refused = morph(picture, tmp_path / "halves", steps=7)
    assert refused.exit_code == 2
    assert "has an interrupted one; add --resume to continue it, or --overwrite" in refused.stderr
    refused = morph(picture, tmp_path / "halves", "--resume", steps=8)
    assert refused.exit_code == 2
    assert "the checkpoint was made with steps = 7, this run has 8" in refused.stderr

    assert morph(picture, tmp_path / "halves", "--resume", steps=7).exit_code == 0
    whole, halves = (json.loads((tmp_path / d / "run.json").read_text()) for d in ("whole", "halves"))
    for name in ("result.png", "frames.png", "morph.gif"):
        assert whole["files"][name] == halves["files"][name]
    assert whole["history"] == halves["history"]
    assert not (tmp_path / "halves" / "checkpoint.pt").exists()


def test_a_damaged_checkpoint_is_refused(picture, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"half a file")
    refused = morph(picture, tmp_path / "out", "--resume")
    assert refused.exit_code == 2
    assert "checkpoint.pt is damaged" in refused.stderr


def test_finished_output_is_kept_unless_asked(picture, tmp_path):
    assert morph(picture, tmp_path, steps=1).exit_code == 0
    result = (tmp_path / "result.png").read_bytes()
    refused = morph(picture, tmp_path, "--seed", 1, steps=1)
    assert refused.exit_code == 2
    assert "has a finished one; add --overwrite to replace it" in refused.stderr
    assert (tmp_path / "result.png").read_bytes() == result
    assert morph(picture, tmp_path, "--seed", 1, "--overwrite", steps=1).exit_code == 0
    assert (tmp_path / "result.png").read_bytes() != result


def test_transparency_survives_a_morph(picture, tmp_path):
    image = Image.open(picture).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / "clear.png")
    assert morph(tmp_path / "clear.png", tmp_path / "out", steps=1).exit_code == 0
    result = Image.open(tmp_path / "out" / "result.png")
    assert result.getchannel("A").tobytes() == image.getchannel("A").tobytes()


def sentence(result):
    """The one line on stderr of a refusal, without a traceback."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--loss", "euclidean"),
            "Error: --loss must be one of geodesic, directional, global, spherical, got",
        ),
        (("--parametrisation", "clay"), "parametrisation must be one of layer, fourier, pixels, got 'clay'"),
        (("--clip", "blip"), "--clip must be world, an architecture of open_clip, ARCHITECTURE/TAG"),
        (
            ("--clip", "open_clip:ViT-B-32"),
            "--clip-weights must name a file for 'ViT-B-32', got None; or name a tag",
        ),
        (("--device", "abacus"), "--device must be cpu or cuda, got 'abacus'"),
        (("--resume",), "--resume needs an interrupted run in --out"),
        (("--method", "paint"), "Error: --method must be one of clip-inversion, text2live, got 'paint'"),
        (("--screen", "a star"), "Error: --screen is no option of --method clip-inversion, got a star"),
        (
            ("--method", "text2live", "--parametrisation", "pixels"),
            "Error: --parametrisation is no option of --method text2live, got pixels",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_bad_options_get_one_sentence(picture, tmp_path, options, said):
    assert said in sentence(morph(picture, tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_bad_input_gets_one_sentence(picture, tmp_path):
    assert "PICTURE must be an existing file" in sentence(morph(tmp_path / "none.png", tmp_path / "out"))
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture.read_bytes()[:300])
    assert "PICTURE must be a whole file, cut.png is damaged" in sentence(morph(cut, tmp_path / "out"))
    assert "--to must differ from --from" in sentence(
        morph(picture, tmp_path / "out", texts=(BEFORE, BEFORE))
    )
    long = " ".join(["red"] * 90)
    assert "prompt must have at most 77 tokens, got" in sentence(
        morph(picture, tmp_path / "out", texts=(BEFORE, long))
    )
    assert "--out must be a folder" in sentence(morph(picture, picture))


def test_unknown_words_are_named_once(picture, tmp_path):
    done = morph(picture, tmp_path / "out", steps=1, texts=("a red zebra", "a blue zebra"))
    assert done.exit_code == 0
    assert "Warning: the world CLIP was not trained on zebra and cannot follow it. It knows " in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_extra_names_its_remedy(picture, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    for name in [m for m in sys.modules if m.startswith(("PIL.", "geokernels.media.", "geokernels.runs."))]:
        monkeypatch.delitem(sys.modules, name)
    said = sentence(morph(picture, tmp_path / "out"))
    assert said.endswith('which is not installed: pip install "geokernels[morph]"')


@pytest.mark.parametrize(
    "module, extra", [("open_clip", "morph"), ("cv2", "video"), ("diffusers.utils", "diffusion")]
)
def test_the_extra_that_brings_a_module(module, extra):
    assert extra_of(module) == extra


def test_doctor_names_every_backend_and_why_one_cannot_run():
    done = run("doctor")
    assert done.exit_code == 0
    for name in ("reference", "native (CPU)", "native (CUDA)", "triton", "torch", "simd"):
        assert name in done.stdout
    if not torch.cuda.is_available():
        assert "CUDA" in done.stdout.split("triton")[1]


def test_killed_in_the_search_for_a_guess_it_resumes(picture, tmp_path, monkeypatch):
    from geokernels.pipelines.morph import clip_inversion

    def die(*args, **how):
        raise SystemExit(9)

    search = ("--parametrisation", "layer")
    with monkeypatch.context() as killed:
        killed.setattr(clip_inversion, "search_guess", die)
        assert morph(picture, tmp_path / "out", *search, steps=2).exit_code == 9
    refused = morph(picture, tmp_path / "out", *search, "--seed", 1, "--resume", steps=2)
    assert "made with seeds = [0], this run has [1]" in refused.stderr
    assert morph(picture, tmp_path / "out", *search, "--resume", steps=2).exit_code == 0
    assert morph(picture, tmp_path / "whole", *search, steps=2).exit_code == 0
    assert (tmp_path / "out" / "result.png").read_bytes() == (tmp_path / "whole" / "result.png").read_bytes()


def test_demo_writes_a_judged_report(tmp_path, monkeypatch):
    morphs = ClipInversionConfig(recipe="world", steps=2, views=2, guess=2)
    small = DemoConfig(("colour", "background"), morphs, walk=5, line=2, prompts=2, steps=1, blend=FILM)
    monkeypatch.setattr(demo_report, "DemoConfig", lambda: small)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    done = run("demo", "--out", tmp_path / "demo")
    assert done.exit_code == 0, done.output
    assert "Walk in w: the largest step is" in done.stdout
    assert "Prompts were left out: diffusion models need diffusers and transformers" in done.stdout
    record = json.loads((tmp_path / "demo" / "run.json").read_text())
    require_record(record)
    assert [edit["attribute"] for edit in record["morphs"]] == ["colour", "background"]
    for edit in record["morphs"]:
        assert edit["seen_before"].keys() == world.ATTRIBUTES.keys()
        assert edit["morphs"].keys() == {"geodesic", "directional"}
    page = (tmp_path / "demo" / "report.html").read_text()
    # the photographs, the summary, two edits, the walk, two parts left out, the run
    assert page.count("<section>") == 8
    assert run("demo", "--out", tmp_path / "demo").stdout.startswith("Replacing the earlier demo")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    assert "must be new, empty or an earlier demo" in sentence(run("demo", "--out", tmp_path / "mine"))
    (tmp_path / "mine" / "run.json").write_text("{cut")
    assert "run.json must be JSON in UTF-8" in sentence(run("demo", "--out", tmp_path / "mine"))


def test_a_demo_that_was_killed_begins_again(tmp_path, monkeypatch):
    morphs = ClipInversionConfig(recipe="world", steps=1, views=2, guess=2)
    small = DemoConfig(("colour",), morphs, walk=2, line=2, prompts=1, blend=FILM)
    monkeypatch.setattr(demo_report, "DemoConfig", lambda: small)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with monkeypatch.context() as killed:

        def die(*args):
            raise SystemExit(137)

        killed.setattr(demo_report, "overview", die)
        assert run("demo", "--out", tmp_path).exit_code == 137
    assert list(tmp_path.glob("*.gif"))
    assert not (tmp_path / "run.json").exists()
    (tmp_path / f".{_host()}-{2**22 + 1}-{'0' * 16}.partial.png").touch()  # of no process that runs
    done = run("demo", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize("content", ["[]", "3", '{"command": ["demo"]}'])
def test_a_record_of_another_shape_is_no_demo(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert "must be new, empty or an earlier demo" in sentence(run("demo", "--out", tmp_path))


@pytest.mark.slow
def test_a_real_architecture_from_a_file(picture, tmp_path):
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    del model
    clip = ("--clip", "ViT-B-32/laion2b_s34b_b79k", "--clip-weights", tmp_path / "vit.safetensors")
    # pixels start from the picture: the search for a first guess is thousands of encodes
    done = morph(
        picture,
        tmp_path / "out",
        *clip,
        "--parametrisation",
        "pixels",
        steps=2,
        texts=("a photo of a zebra", "a photo of a horse"),
    )
    assert done.exit_code == 0, done.output
    assert not done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["encoders"] == [clip[1]]
