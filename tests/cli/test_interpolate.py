"""``geokernels interpolate``: what it leaves behind, how it stops and resumes, what it says of bad input."""

import json
import os
import signal
import sys
from fractions import Fraction
from urllib.error import URLError

import pytest
import torch
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.media.clips import VideoSource
from geokernels.media.pictures import read_picture
from geokernels.pipelines import PromptInterpolation
from geokernels.runs.record import require_record

pytest.importorskip("diffusers")
FIRST, LAST = "a red circle on a white background", "a blue star on a green background"


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def interpolate(out, *more, prompts=(FIRST, LAST), model=None, steps=1, frames=3, distance="features"):
    given = [arg for prompt in prompts for arg in ("--prompt", prompt)]
    if model is not None:
        given += ["--model", model, "--distance", distance]
    return run("interpolate", *given, "--out", out, "--steps", steps, "--frames", frames, *more)


def sentence(done) -> str:
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.stderr


def test_leaves_everything_it_promises(tmp_path):
    out = tmp_path / "out"
    done = interpolate(out, "--seed", 7, "--negative", "a red square")
    assert done.exit_code == 0, done.output
    assert "optimal transport" in done.stdout
    files = {"path", "path.png", "path.gif", "run.json", "report.html"}
    assert {p.name for p in out.iterdir()} == files
    assert len(list((out / "path").iterdir())) == 3
    record = json.loads((out / "run.json").read_text())
    assert record["prompts"] == [FIRST, LAST]
    assert (record["seeds"], record["negative"], record["config"]["ot"]["steps"]) == ([7], "a red square", 1)
    assert record["invariance"]["permuted"] < 1e-3
    path = record["paths"]["ot"]
    assert len(path["distances"]) == 2
    assert path["score"]["length"] == pytest.approx(sum(path["distances"]), abs=1e-5)
    assert record["distance"] == "feature distance of the world's CLIP"
    assert "path/001.png" in record["files"]
    page = (out / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<img ") == page.count('alt="') == 4
    assert "Exchanging a prompt" in page


def test_compare_runs_every_coupling(tmp_path, random_pipeline):
    model = random_pipeline("StableDiffusionPipeline")
    done = interpolate(tmp_path, "--compare", prompts=("red cat", "dog"), model=model)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run.json").read_text())
    require_record(record)
    couplings = ["ot", "entropic", "row", "slerp", "random"]
    assert list(record["paths"]) == list(record["config"]) == couplings
    assert all((tmp_path / f"{coupling}.gif").exists() for coupling in couplings)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<polyline") == 5
    assert "row by row, on arcs" in done.stdout


@pytest.mark.parametrize("kind", ["StableDiffusionXLPipeline", "PixArtAlphaPipeline"])
def test_real_folders(kind, tmp_path, random_pipeline):
    done = interpolate(tmp_path, prompts=("red", "blue hat"), model=random_pipeline(kind), steps=2)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["pipeline"], record["model"]) == (kind, kind)
    assert "reads a prompt as a set of tokens" in done.stdout  # it may take a minute


def test_interrupted_run_resumes_to_the_identical_result(tmp_path, monkeypatch, random_pipeline):
    model = random_pipeline("StableDiffusionPipeline")

    def go(name, *more, **how):
        prompts = ("red cat", "dog")
        return interpolate(
            tmp_path / name, "--batch", 1, *more, prompts=prompts, model=model, frames=4, **how
        )

    assert go("whole").exit_code == 0
    step, steps = PromptInterpolation.step, []

    def press(self):
        steps.append(self.drawn)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        step(self)

    monkeypatch.setattr(PromptInterpolation, "step", press)
    stopped = go("halves")
    assert stopped.exit_code == 130
    assert "Stopped after 2 of 4 pictures" in stopped.stderr
    assert not (tmp_path / "halves" / "run.json").exists()
    assert "add --resume to continue it, or --overwrite" in sentence(go("halves"))
    assert "made with steps = 1, this run has 2" in sentence(go("halves", "--resume", steps=2))
    assert go("halves", "--resume").exit_code == 0
    # the goal and four pictures, none of them twice
    assert steps == [0, 0, 1, 2, 3]
    whole, halves = (json.loads((tmp_path / d / "run.json").read_text()) for d in ("whole", "halves"))
    for name in ("path.png", "path.gif", "path/002.png"):
        assert whole["files"][name] == halves["files"][name]
    assert whole["paths"] == halves["paths"]
    assert not (tmp_path / "halves" / "checkpoint.pt").exists()


def test_uniform_says_when_it_is_out_of_reach(tmp_path, monkeypatch, random_pipeline):
    # a distance by which every step is longer than the one before, whatever is drawn
    monkeypatch.setattr(
        "geokernels.pipelines.feature_metric", lambda encoder: lambda a, b: 1.0 + torch.arange(len(a))
    )
    model = random_pipeline("StableDiffusionPipeline")
    done = interpolate(tmp_path, "--uniform", prompts=("red cat", "dog"), model=model)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["paths"]["ot"]["rounds"] == 16
    assert "after 16 rounds the largest step of ot is 1.33 mean steps, not within 1.10" in done.stderr


def test_prompts_that_are_too_long(tmp_path, random_pipeline):
    model, long = random_pipeline("StableDiffusionPipeline"), "a " * 80
    assert "at most 77 tokens, got 82" in sentence(interpolate(tmp_path, prompts=(long, "dog"), model=model))
    done = interpolate(tmp_path, "--truncate", prompts=(long, "dog"), model=model)
    assert done.exit_code == 0, done.output
    assert "reads 77 tokens and leaves out" in done.stderr


def test_words_the_world_never_read_are_named(tmp_path):
    done = interpolate(tmp_path, prompts=("a red zebra", LAST), frames=2)
    assert done.exit_code == 0, done.output
    assert "was not trained on zebra" in done.stderr


def test_half_precision(tmp_path, random_pipeline):
    model = random_pipeline("StableDiffusionPipeline")
    done = interpolate(tmp_path, "--dtype", "bfloat16", prompts=("red cat", "dog"), model=model)
    assert done.exit_code == 0, done.output
    assert read_picture(tmp_path / "path" / "000.png").rgb.shape == (3, 64, 64)


def test_mp4(tmp_path, random_pipeline):
    pytest.importorskip("av")
    model = random_pipeline("StableDiffusionPipeline")
    done = interpolate(tmp_path, "--mp4", prompts=("red cat", "dog"), model=model)
    assert done.exit_code == 0, done.output
    shown = list(VideoSource(tmp_path / "path.mp4").timed())
    assert [time for _, time in shown] == [0, Fraction(1, 10), Fraction(2, 10)]


@pytest.mark.parametrize(
    "more, words",
    [
        (("--coupling", "best"), "coupling must be one of ot, entropic, row, slerp, random, got 'best'"),
        (("--coupling", "ot", "--compare"), "--compare runs every coupling, got --coupling with it"),
        (("--distance", "near"), "--distance must be one of features, lpips, none, got 'near'"),
        (("--dtype", "int8"), "--dtype must be float32, bfloat16 or float16, got 'int8'"),
        (("--model", "./nowhere"), "found no folder ./nowhere"),
        (("--uniform", "--distance", "none"), "distance must be given for uniform speed"),
        (("--lpips-weights", __file__), "--lpips-weights goes with --distance lpips, not with features"),
        (("--seed", 1, "--seed", 2, "--seed", 3), "--seed must be one, or one for each of 2, got 3"),
        (("--height", 30), "height must be a multiple of 8 pixels, got 30"),
    ],
)
def test_bad_options_get_one_sentence(more, words, tmp_path):
    more = (*more, "--distance", "features") if "./nowhere" in more else more
    assert words in sentence(interpolate(tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_one_prompt_is_too_few(tmp_path):
    assert "--prompt must be at least two, got 1" in sentence(interpolate(tmp_path / "out", prompts=(FIRST,)))


def test_lpips_that_cannot_be_downloaded_names_the_options(tmp_path, random_pipeline, monkeypatch):
    def offline(*args, **how):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    pytest.importorskip("lpips")
    model = random_pipeline("StableDiffusionPipeline")
    said = sentence(interpolate(tmp_path / "out", model=model, distance="lpips"))
    assert "cannot be downloaded (no route to host)" in said
    assert "--lpips-weights, or take --distance features or none" in said
    assert not (tmp_path / "out").exists()


def test_mp4_without_pyav_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert 'pip install "geokernels[video]"' in sentence(interpolate(tmp_path / "out", "--mp4"))


def test_nan_of_half_precision_gets_one_sentence(tmp_path, random_pipeline, monkeypatch):
    model = random_pipeline("StableDiffusionPipeline")
    noise = torch.randn

    def too_large(*shape, **how):
        return noise(*shape, **how) * 1e6

    monkeypatch.setattr("geokernels.pipelines.interpolate.prompts.torch.randn", too_large)
    said = sentence(
        interpolate(tmp_path / "out", "--dtype", "float16", prompts=("red cat", "dog"), model=model)
    )
    assert "load the model in bfloat16 or float32" in said
