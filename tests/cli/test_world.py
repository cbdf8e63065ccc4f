"""``geokernels world``: samples of every kind, trainings and evaluations of a clone, sentences elsewhere."""

import json
import os
import signal
import sys

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli import clone as scripts
from geokernels.media.pictures import read_picture
from geokernels.runs.record import require_record
from geokernels.runs.sample_sources import Renders
from geokernels.world import ATTRIBUTES
from geokernels.world.captions import understand
from geokernels.world.edits import KIND_OF, read_edit_folder


def run(*args):
    return CliRunner().invoke(app, ["world", *(str(arg) for arg in args)])


def sentence(result):
    """The one line on stderr of a refusal, without a traceback."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    return lines[0]


def listed(out):
    return json.loads((out / "samples.json").read_text())["samples"]


def test_scenes_leave_everything_that_is_promised(tmp_path):
    done = run("sample", "scenes", "--count", 3, "--seed", 5, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert {p.name for p in tmp_path.iterdir()} == {
        "pictures", "grid.png", "samples.json", "run.json", "report.html",
    }  # fmt: skip
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["command"], record["kind"], record["steps"]["samples"], record["seeds"]) == (
        "world sample", "scenes", 3, [5],
    )  # fmt: skip
    require_record(record)
    assert record["judged"]["colour"] == {"samples": 3, "named": 3, "asked": 3, "as_asked": 3}
    assert [sample["wanted"] == sample["seen"] for sample in listed(tmp_path)] == [True] * 3
    for attribute in ATTRIBUTES:
        assert attribute in done.stdout


def test_clips_carry_their_truth(tmp_path):
    options = ["--count", 2, "--frames", 3, "--size", 32, "--seed", 4, "--out", tmp_path]
    assert run("sample", "clips", *options).exit_code == 0
    for sample in listed(tmp_path):
        folder = (tmp_path / next(iter(sample["sha256"]))).parent
        assert {path.name for path in folder.iterdir()} == {
            *(f"{kind}-{t:03d}.png" for kind in ("frame", "mask") for t in range(3)),
            "clip.gif", "truth.safetensors",
        }  # fmt: skip
        truth = load_file(folder / "truth.safetensors")
        assert truth["flow"].shape == (2, 2, 32, 32)
        assert understand(sample["caption"]) == sample["wanted"]
        mask = read_picture(folder / "mask-000.png").rgb
        assert 0 < mask.mean() < 0.5


def test_edits_are_a_folder_that_pie_bench_readers_read(tmp_path):
    assert run("sample", "edits", "--count", 5, "--seed", 2, "--out", tmp_path).exit_code == 0
    cases = read_edit_folder(tmp_path / "edits")
    assert [case.attribute for case in cases] == list(KIND_OF)
    for case, sample in zip(cases, listed(tmp_path)):
        assert sample["wanted"] == sample["seen"] == understand(case.target)
        assert {str(case.picture), str(case.edited)} == {str(tmp_path / name) for name in sample["sha256"]}
    assert run("sample", "edits", "--count", 1, "--seed", 3, "--out", tmp_path, "--overwrite").exit_code == 0
    assert len(list(tmp_path.glob("edits/*/*/*.png"))) == 2


def test_generator_samples(tmp_path):
    assert run("sample", "generator", "--count", 2, "--out", tmp_path / "one").exit_code == 0
    assert [sample["wanted"] for sample in listed(tmp_path / "one")] == [None, None]
    assert run("sample", "generator", "--count", 2, "--seed", 1, "--out", tmp_path / "two").exit_code == 0
    digests = [sample["sha256"] for name in ("one", "two") for sample in listed(tmp_path / name)]
    assert len({tuple(digest.values()) for digest in digests}) == 4


def test_prompts_take_turns(pipeline_folder, tmp_path):
    texts = ("a red star", "a zebra")
    options = ["--model", pipeline_folder, "--steps", 1, "--count", 3, "--out", tmp_path]
    done = run("sample", "diffusion", *options, "--prompt", texts[0], "--prompt", texts[1])
    assert done.exit_code == 0, done.output
    found = listed(tmp_path)
    assert [sample["caption"] for sample in found] == [texts[0], texts[1], texts[0]]
    star = {"shape": "star", "colour": "red"}
    assert [sample["wanted"] for sample in found] == [star, None, star]
    assert json.loads((tmp_path / "run.json").read_text())["config"]["samples"]["prompts"] == list(texts)


def test_unseen_prompts_are_drawn_if_none_is_given(pipeline_folder, tmp_path):
    options = ["--model", pipeline_folder, "--steps", 1, "--count", 2, "--out", tmp_path]
    assert run("sample", "diffusion", *options).exit_code == 0
    for sample in listed(tmp_path):
        assert sample["wanted"].keys() == ATTRIBUTES.keys()


def test_an_interrupted_run_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(Renders, "batch", 2)
    draw = Renders.draw

    def press(self, rows):
        if rows.start == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, rows)

    command = ["sample", "scenes", "--count", 5, "--out", tmp_path]
    monkeypatch.setattr(Renders, "draw", press)
    stopped = run(*command)
    assert stopped.exit_code == 130
    assert "Stopped after 4 of 5 samples; the same command with --resume continues in" in stopped.stderr
    monkeypatch.setattr(Renders, "draw", draw)
    assert "add --resume to continue it, or --overwrite" in sentence(run(*command))
    assert run(*command, "--resume").exit_code == 0
    assert len(listed(tmp_path)) == 5


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("sample", "sculptures"), "KIND must be one of scenes, clips, edits, generator, diffusion"),
        (("sample", "scenes", "--prompt", "a star"), "--prompt goes with diffusion, not with scenes"),
        (
            ("sample", "diffusion", "--truncation", 0.5),
            "--truncation goes with generator, not with diffusion",
        ),
        (
            ("sample", "scenes", "--model", "mine"),
            "--model goes with generator and diffusion, not with scenes",
        ),
        (("sample", "generator", "--model", "none.pt"), "--model must be 'world' or an existing file"),
        (("sample", "generator", "--device", "abacus"), "--device must be cpu or cuda, got 'abacus'"),
        (("train", "poet"), "NAME must be one of clip, "),
        (("train", "clip", "--vae", "."), "--vae goes with diffusion, not with clip"),
        (("train", "diffusion", "--vae", "none"), "--vae must be an existing folder"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_options_get_one_sentence(tmp_path, args, said):
    assert said in sentence(run(*args, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_missing_library_names_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    said = sentence(run("sample", "diffusion", "--out", tmp_path / "out"))
    assert said.endswith('pip install "geokernels[diffusion]"')


def test_training_runs_and_resumes(tmp_path):
    command = ["train", "generator", "--quick", "--seed", 3, "--out", tmp_path]
    assert run(*command).exit_code == 0
    weights = tmp_path / "world-generator.safetensors"
    first = weights.read_bytes()
    assert json.loads((tmp_path / "world-generator.record.json").read_text())["config"]["seed"] == 3
    # nothing is left to train: the checkpoint is taken up and exported again
    assert run(*command).exit_code == 0
    assert weights.read_bytes() == first


@pytest.mark.parametrize("name", scripts.TRAININGS)
def test_every_training_knows_its_options(name, capfd):
    pytest.importorskip("diffusers")
    scripts.run_training(name, ["--help"])
    assert f"usage: geokernels world train {name}" in capfd.readouterr().out


@pytest.mark.parametrize("name", scripts.EVALUATIONS)
def test_every_evaluation_knows_its_options(name, capfd):
    pytest.importorskip("diffusers")
    done = run("evaluate", name, "--", "--help")
    assert done.exit_code == 0, done.output
    assert f"usage: geokernels world evaluate {name} --" in capfd.readouterr().out
    assert "card" not in done.output


def test_an_interrupted_training_says_how_to_go_on(tmp_path, monkeypatch):
    def press(name, options):
        raise scripts.Stopped(130)

    monkeypatch.setattr("geokernels.cli.world.run_training", press)
    stopped = run("train", "clip", "--out", tmp_path)
    assert stopped.exit_code == 130
    assert f"the same command continues from the last checkpoint in {tmp_path}" in stopped.stderr


@pytest.mark.parametrize("command", [("train", "clip"), ("evaluate", "judge")])
def test_without_a_clone(tmp_path, monkeypatch, command):
    monkeypatch.setattr(scripts, "ROOT", tmp_path)
    said = sentence(run(*command))
    assert "training and evaluation need a clone of the repository" in said
    assert str(tmp_path) in said


class TestEvaluate:
    """On a clone of two files: a script that measures one number, and the card it is written in."""

    @pytest.fixture
    def clone(self, tmp_path, monkeypatch):
        root = tmp_path / "clone"
        for folder in ("training", "docs/model-cards", "docs/pictures", "geokernels"):
            (root / folder).mkdir(parents=True)
        (root / "pyproject.toml").touch()
        (root / "training" / "__init__.py").touch()
        (root / "docs/model-cards/model.md").write_text(card(7, "1 s"))
        monkeypatch.setattr(scripts, "ROOT", root)

        (root / "training" / "evaluate_judge.py").write_text(SCRIPT)
        return root

    def test_figures_of_the_card(self, clone):
        done = run("evaluate", "judge")
        assert done.exit_code == 0, done.output
        assert "shape | 7" in done.stdout
        assert done.stdout.endswith("Every figure is as on the card.\n")
        # nothing was written
        assert (clone / "docs/model-cards/model.md").read_text() == card(7, "1 s")
        assert not (clone / "docs/pictures/grid.png").exists()

    def test_other_figures(self, clone):
        done = run("evaluate", "judge", "--", "8")
        assert done.exit_code == 1
        assert "Different from the card: accuracy of model." in done.stderr
        assert (clone / "docs/model-cards/model.md").read_text() == card(7, "1 s")

    def test_write(self, clone):
        done = run("evaluate", "judge", "--write", "--", "8")
        assert done.exit_code == 0
        assert "Written to docs/model-cards/model.md." in done.stdout
        assert (clone / "docs/model-cards/model.md").read_text() == card(8, "2 s")
        assert (clone / "docs/pictures/grid.png").read_bytes() == b"picture"


SCRIPT = """
import sys
from pathlib import Path

def main():
    figure = sys.argv[1] if len(sys.argv) > 1 else "7"
    path = Path("docs/model-cards/model.md")
    path.write_text(path.read_text().replace("shape | 7", f"shape | {figure}").replace("1 s", "2 s"))
    Path("docs/pictures/grid.png").write_bytes(b"picture")
    assert Path("geokernels").is_dir()
"""


def card(figure: int, seconds: str) -> str:
    blocks = {"accuracy": f"| shape | {figure} |", "loading": seconds}
    return "\n".join(f"<!-- {name} -->\n{text}\n<!-- /{name} -->" for name, text in blocks.items())
