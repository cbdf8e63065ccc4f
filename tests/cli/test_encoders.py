"""The options that name a CLIP: every command takes what open_clip's users type, and names what is wrong."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli.encoders import encoder_of, encoders_of

open_clip = pytest.importorskip("open_clip")

COMMANDS = {
    "morph": ["morph", "PICTURE", "--from", "a cat", "--to", "a dog"],
    "adapt": ["adapt", "--from", "a cat", "--to", "a dog"],
    "edit": ["edit", "PICTURE", "--from", "a cat", "--to", "a dog"],
    "video": ["video", "PICTURE", "--from", "a cat", "--to", "a dog"],
    "eval": ["eval", "--world", "1"],
}


def run(command: str, tmp_path: Path, *options: str):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    words = [str(tmp_path / "a.png") if word == "PICTURE" else word for word in COMMANDS[command]]
    return CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), *options])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--clip", "ViT-B-32/laion"), "Error: --clip must name a tag of ViT-B-32 (openai, "),
        (("--clip", "ViT-B-99"), "Error: --clip must be world, an architecture of open_clip"),
        (("--clip", "ViT-B-32"), "Error: --clip-weights must name a file for 'ViT-B-32', got None"),
        (("--clip", "local-dir:none"), "Error: --clip must be local-dir: and a folder, found none at none"),
        (("--clip", "world-evaluation"), "Error: --clip must not be world-evaluation"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_names_the_option(command, options, said, tmp_path):
    done = run(command, tmp_path, *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_files_and_folders_must_be_there(command, tmp_path):
    weights = ("--clip", "ViT-B-16-SigLIP", "--clip-weights")
    for option, given in (
        ("--clip-weights", weights[:2]),
        ("--clip-tokenizer", (*weights, tmp_path / "a.png")),
    ):
        done = run(command, tmp_path, *map(str, given), option, "./none")
        assert done.exit_code == 2
        assert option in done.stderr
        assert not (tmp_path / "out").exists()


def test_the_judge_has_options_of_its_own(tmp_path):
    done = run("eval", tmp_path, "--judge-clip", "ViT-B-32")
    assert "Error: --judge-clip-weights must name a file for 'ViT-B-32'" in done.stderr
    done = run("eval", tmp_path, "--judge-clip-weights", str(tmp_path / "a.png"))
    assert "Error: --judge-clip-weights goes with --judge-clip, got " in done.stderr


def test_offline_the_sentence_says_what_to_give(tmp_path, monkeypatch):
    def offline(about):
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    done = run("morph", tmp_path, "--clip", "ViT-B-32/laion2b_s34b_b79k")
    assert done.exit_code == 2
    assert "laion/CLIP-ViT-B-32-laion2B-s34B-b79K of the hub (no network)" in done.stderr
    assert "give their file as --clip-weights, with ViT-B-32/laion2b_s34b_b79k as --clip" in done.stderr


@pytest.mark.parametrize(
    ("clips", "weights", "tokenizers", "pairs"),
    [
        (["world", "RN50"], ["a"], [], [("world", None, None), ("RN50", "a", None)]),
        (["RN50/openai", "RN101"], ["a"], [], [("RN50/openai", None, None), ("RN101", "a", None)]),
        (["RN50/openai", "RN101"], ["a", "b"], [], [("RN50/openai", "a", None), ("RN101", "b", None)]),
        (
            ["hf-hub:o/m", "ViT-B-32", "world"],
            ["a"],
            [],
            [("hf-hub:o/m", None, None), ("ViT-B-32", "a", None), ("world", None, None)],
        ),
        (
            ["ViT-B-32", "ViT-B-16-SigLIP"],
            ["a", "b"],
            ["t"],
            [("ViT-B-32", "a", None), ("ViT-B-16-SigLIP", "b", "t")],
        ),
        (["ViT-B-16-SigLIP/webli"], [], ["t"], [("ViT-B-16-SigLIP/webli", None, "t")]),
    ],
)
def test_several_models_and_their_files(monkeypatch, clips, weights, tokenizers, pairs):
    asked = []

    def load(name, weights, *, tokenizer, device, called):
        asked.append((name, weights and str(weights), tokenizer and str(tokenizer)))

    monkeypatch.setattr("geokernels.models.clip.load_clip", load)
    encoders_of(clips, [Path(w) for w in weights], [Path(t) for t in tokenizers], "cpu")
    assert asked == pairs


def test_the_world_s_own_needs_nothing():
    assert encoder_of("world", None, "cpu").encode_image(torch.rand(1, 3, 64, 64)).shape[0] == 1
