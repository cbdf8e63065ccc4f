"""``geokernels adapt``: what it leaves behind, how it stops and resumes, and what it says about bad input."""

import json
import os
import signal

import pytest
import torch
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.media.pictures import read_picture, write_picture
from geokernels.models import Generator, GeneratorConfig, load_generator, save_generator
from geokernels.pipelines import Adaptation, WInversion
from geokernels.runs.adapt import FRAMES
from geokernels.runs.frames import kept_steps
from geokernels.runs.record import require_record

BEFORE, AFTER = "an object", "a large object"
SMALL = ("--recipe", "world", "--steps", 4, "--batch", 2, "--pool", 4, "--chunk", 4, "--no-start")
LEFT = {"generator.pt", "before.png", "after.png", "strip.png", "adapt.gif", "run.json", "report.html"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny random generator of 16 pixels a side, in the common format."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(channels=(8, 6, 4), style_dim=7, mapping_layers=2))
    path = tmp_path_factory.mktemp("generator") / "tiny.pt"
    save_generator(generator, path)
    return path


@pytest.fixture
def picture(tmp_path):
    chance = torch.Generator().manual_seed(0)
    write_picture(tmp_path / "real.png", world.render(world.sample_scenes(1, generator=chance))[0])
    return tmp_path / "real.png"


def adapt(checkpoint, out, *more, texts=(BEFORE, AFTER)):
    options = ["adapt", "--from", texts[0], "--to", texts[1], "--out", out, "--model", checkpoint]
    return CliRunner().invoke(app, [str(arg) for arg in (*options, *SMALL, *more)])


def sentence(result):
    """The one line on stderr of a refusal, without a traceback."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    return lines[0]


def record(out):
    return json.loads((out / "run.json").read_text())


def test_a_generator_of_one_s_own_is_adapted_as_published(checkpoint, tmp_path):
    options = ["adapt", "--from", BEFORE, "--to", AFTER, "--out", tmp_path / "out", "--model", checkpoint]
    done = CliRunner().invoke(app, [str(arg) for arg in (*options, "--steps", 2)])
    assert done.exit_code == 0, done.output
    found = record(tmp_path / "out")
    config = found["config"]["adapt"]
    assert (config["recipe"], config["pool"], config["mixing"]) == ("published", None, 0.9)
    assert found["start"] is None
    assert len(found["layers"]) == 2
    assert len(config["templates"]) == 79
    pooled = CliRunner().invoke(app, [str(arg) for arg in (*options, "--steps", 2, "--pool", 4)])
    asked = "mixing must be 0 for latents of a pool, got 0.9 with pool 4; add --set mixing=0"
    assert sentence(pooled) == f"Error: {asked}"
    typed = (*options, "--steps", 2, "--pool", 4, "--set", "mixing=0", "--overwrite")
    assert CliRunner().invoke(app, [str(arg) for arg in typed]).exit_code == 0


def test_it_leaves_everything_it_promises(checkpoint, picture, tmp_path):
    out = tmp_path / "out"
    done = adapt(checkpoint, out, "--seed", 7, "--real", picture, "--real-steps", 3)
    assert done.exit_code == 0, done.output
    assert {p.name for p in out.iterdir()} == LEFT | {"real.png", "real-inverted.png", "real-adapted.png"}
    found = record(out)
    assert (found["from"], found["to"], found["seeds"], found["encoders"]) == (
        BEFORE,
        [AFTER],
        [7],
        ["world"],
    )
    require_record(found)
    assert (found["model"], found["picture"]) == ("tiny.pt", "real.png")
    assert found["config"]["adapt"]["steps"] == found["steps"]["adapt"] == len(found["history"]["adapt"]) == 4
    assert len(found["history"]["invert"]) == 3
    assert found["peak_memory_mib"] > 0
    assert set(found["files"]) == {p.name for p in out.iterdir()} - {"run.json"}
    page = (out / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<img ") == page.count('alt="') - page.count('aria-alt="')
    # four samples, before and after each step that is kept, a pixel between them
    columns = 1 + len(set(kept_steps(4, FRAMES)) - {0})
    assert read_picture(out / "strip.png").rgb.shape == (3, 4 * 16 + 3 * 2, columns * 16 + (columns - 1) * 2)
    # the format that was read, with other weights
    content = torch.load(out / "generator.pt", weights_only=True)
    assert content.keys() == {"g_ema", "latent_avg"}
    adapted, given = load_generator(out / "generator.pt"), load_generator(checkpoint)
    moved = [not torch.equal(a, b) for a, b in zip(adapted.parameters(), given.parameters(), strict=True)]
    assert any(moved)


def test_a_bare_state_dict_stays_bare(checkpoint, tmp_path):
    torch.save(load_generator(checkpoint).state_dict(), tmp_path / "bare.pth")
    assert adapt(tmp_path / "bare.pth", tmp_path / "out", "--steps", 1).exit_code == 0
    content = torch.load(tmp_path / "out" / "generator.pth", weights_only=True)
    assert content.keys() == load_generator(checkpoint).state_dict().keys()


# during the inversion, and during the adaptation
@pytest.mark.parametrize(
    ("stage", "index", "said"),
    [(WInversion, 1, "step 2 of 3 of the inversion"), (Adaptation, 2, "step 3 of 4 of the adaptation")],
)
def test_interrupted_run_resumes_to_the_identical_result(
    checkpoint, picture, tmp_path, monkeypatch, stage, index, said
):
    real = ("--real", picture, "--real-steps", 3)
    assert adapt(checkpoint, tmp_path / "whole", *real).exit_code == 0
    step = stage.step

    def press(self):
        if self.index == index:
            os.kill(os.getpid(), signal.SIGINT)
        step(self)

    monkeypatch.setattr(stage, "step", press)
    stopped = adapt(checkpoint, tmp_path / "halves", *real)
    assert stopped.exit_code == 130
    assert f"Stopped after {said}" in stopped.stderr
    monkeypatch.setattr(stage, "step", step)
    assert "the checkpoint was made with stages = ['invert', 'adapt'], this run has ['adapt']" in sentence(
        adapt(checkpoint, tmp_path / "halves", "--resume")
    )
    assert adapt(checkpoint, tmp_path / "halves", "--resume", *real).exit_code == 0
    whole, halves = record(tmp_path / "whole"), record(tmp_path / "halves")
    assert {p.name for p in (tmp_path / "halves").iterdir()} == {
        p.name for p in (tmp_path / "whole").iterdir()
    }
    for name in set(whole["files"]) - {"report.html"}:  # which tells the time
        assert whole["files"][name] == halves["files"][name], name
    assert whole["history"] == halves["history"]


def test_killed_before_the_first_step_it_resumes_too(checkpoint, tmp_path, monkeypatch):
    def die(self):
        raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(Adaptation, "step", die)
        assert adapt(checkpoint, tmp_path / "out").exit_code == 9
    assert adapt(checkpoint, tmp_path / "out", "--resume").exit_code == 0
    assert adapt(checkpoint, tmp_path / "whole").exit_code == 0
    assert record(tmp_path / "out")["history"] == record(tmp_path / "whole")["history"]


def test_a_bad_loss_keeps_the_last_good_generator_and_says_so(checkpoint, tmp_path, monkeypatch):
    terms = Adaptation._terms

    def spoil(self, *visited):
        found = terms(self, *visited)
        return {k: v * float("nan") for k, v in found.items()} if self.index == 2 else found

    monkeypatch.setattr(Adaptation, "_terms", spoil)
    said = sentence(adapt(checkpoint, tmp_path / "out"))
    assert "the loss at step 2 is nan; lower the learning rate" in said
    assert said.endswith("generator.pt")
    assert "the generator after step 2 is kept as" in said
    kept = load_generator(tmp_path / "out" / "generator.pt")
    assert all(torch.isfinite(p).all() for p in kept.parameters())
    assert not (tmp_path / "out" / "run.json").exists()
    monkeypatch.setattr(Adaptation, "_terms", terms)
    assert adapt(checkpoint, tmp_path / "out", "--resume").exit_code == 0


def test_a_bad_inversion_keeps_its_last_good_step_and_says_so(checkpoint, picture, tmp_path, monkeypatch):
    def spoil(self):
        if self.index == 2:
            raise FloatingPointError("the loss at step 2 is nan; lower the learning rate")
        return step(self)

    step = WInversion._step
    monkeypatch.setattr(WInversion, "_step", spoil)
    real = ("--real", picture, "--real-steps", 3)
    said = sentence(adapt(checkpoint, tmp_path / "out", *real))
    assert "the loss at step 2 is nan; lower the learning rate; the inversion after step 2 is kept in" in said
    monkeypatch.setattr(WInversion, "_step", step)
    assert adapt(checkpoint, tmp_path / "out", "--resume", *real).exit_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--loss", "euclidean"), "Error: --loss must be one of geodesic, directional, global, spherical"),
        (("--train", "all"), "train must be one of modulation, layers, got 'all'"),
        (
            ("--clip", "world", "--clip-weights", __file__),
            "--clip-weights must be one for each --clip that needs one, ",
        ),
        (
            ("--clip", "open_clip:ViT-B-32"),
            "--clip-weights must name a file for 'ViT-B-32', got None; or name a tag",
        ),
        (("--clip", "world", "--clip", "world", "--clip-share", 1), "--clip-share must be 2 numbers"),
        (("--batch", 9), "--batch must be at most --pool, 4, got 9"),
        (("--layers", 9), "layers must be from 1 to 6"),
        (("--real-steps", 3), "--real-steps goes with --real, which is not given, got 3"),
        (("--real", "none.png"), "--real must be an existing file"),
        (("--model", "none.pt"), "--model must be 'world' or an existing file"),
        (("--resume",), "--resume needs an interrupted run in --out"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_bad_options_get_one_sentence(checkpoint, tmp_path, options, said):
    assert said in sentence(adapt(checkpoint, tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_bad_prompts_get_one_sentence(checkpoint, tmp_path):
    out = tmp_path / "out"
    assert "--to must differ from --from" in sentence(adapt(checkpoint, out, texts=(BEFORE, BEFORE)))
    assert "--from must not be empty, got ''" in sentence(adapt(checkpoint, out, texts=("", AFTER)))
    long = " ".join(["red"] * 90)
    assert "prompt must have at most 77 tokens, got" in sentence(adapt(checkpoint, out, texts=(BEFORE, long)))


def test_out_of_memory_is_one_sentence(checkpoint, tmp_path, monkeypatch):
    def fail(self, w, **kw):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB.")

    out = tmp_path / "out"
    synthesis = Generator.synthesis
    calls = []

    def later(self, w, **kw):
        calls.append(1)
        return synthesis(self, w, **kw) if len(calls) < 6 else fail(self, w)

    monkeypatch.setattr(Generator, "synthesis", later)
    assert "ran out of memory; lower batch (--batch)" in sentence(adapt(checkpoint, out))


def test_two_clips_guide_and_samples_are_judged_on_the_world(tmp_path):
    two = ("--clip", "world", "--clip", "world", "--clip-share", 2, "--clip-share", 1)
    done = adapt("world", tmp_path / "out", *two, "--steps", 1)
    assert done.exit_code == 0, done.output
    found = record(tmp_path / "out")
    assert found["config"]["adapt"]["encoder_weights"] == [2.0, 1.0]
    assert found["judged"]["size"]["asked"] == "large"
    assert read_picture(tmp_path / "out" / "before.png").rgb.shape == (3, 4 * 64 + 6, 4 * 64 + 6)
    assert (tmp_path / "out" / "generator.safetensors").exists()
    assert "The judge" in (tmp_path / "out" / "report.html").read_text()
