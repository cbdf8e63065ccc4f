"""geokernels eval measures by named conventions, says which, and takes them from the command or a file."""

import json

import pytest
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.cli.console import BAD_INPUT
from geokernels.cli.rerun import _words
from geokernels.metrics import Conventions

pytest.importorskip("diffusers")
pytest.importorskip("torchmetrics")


def run(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def record_of(out):
    return json.loads((out / "run.json").read_text())


@pytest.fixture(scope="module")
def options(pipeline_folder):
    return ["--model", pipeline_folder, "--steps", 3, "--method", "no_edit"]


@pytest.fixture(scope="module")
def grey(options, tmp_path_factory):
    out = tmp_path_factory.mktemp("grey")
    done = run("--world", 1, *options, "--set", "fill=grey", "--set", "jpeg=60", "--out", out)
    assert done.exit_code == 0, done.output
    return out, done


def test_which_they_are_is_said_everywhere(grey):
    out, done = grey
    record = record_of(out)
    own = {"border": False, "compare_size": None, "structure": "tokens", "perceptual": "features"}
    used = Conventions(**own, clip="world-evaluation", fill="grey", jpeg=60)
    assert record["conventions"] == used.record()
    assert vars(used).items() <= record["config"]["edits"].items()
    assert used.said() in done.output.replace("\n", " ")
    assert (out / "summary.md").read_text().splitlines()[-1] == used.said()
    assert used.fingerprint in (out / "report.html").read_text()


def test_a_run_lends_its_conventions(grey, options, tmp_path):
    out, _ = grey
    done = run("--world", 1, *options, "--config", out / "run.json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert record_of(tmp_path / "out")["conventions"] == record_of(out)["conventions"]
    refused = run("--world", 1, *options, "--set", "fill=black", "--out", tmp_path / "out", "--resume")
    assert refused.exit_code == BAD_INPUT
    assert "was made with jpeg = 60, this run has None" in refused.output.replace("\n", " ")


def test_a_rerun_may_change_what_was_typed(grey):
    out, _ = grey
    words = _words(out / "run.json", record_of(out), ["fill=source"], {})
    assert [word for word in words if word.startswith("--set")] == ["--set=jpeg=60", "--set=fill=source"]


def test_pictures_that_were_not_rendered_are_measured_as_published(options, tmp_path):
    folder = tmp_path / "edits"
    world.write_edit_folder(folder, 1, size=64)
    mapping = folder / "mapping_file.json"
    entries = json.loads(mapping.read_text())
    for entry in entries.values():
        del entry["attribute"]
    mapping.write_text(json.dumps(entries))
    done = run(folder, *options, "--set", "brackets=kept", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = record_of(tmp_path / "out")["conventions"]["departures"]
    assert found == ["brackets", "clip", "perceptual", "structure"]


def test_brackets_are_kept_for_whoever_asks(tmp_path):
    world.write_edit_folder(tmp_path, 2, size=64)
    kept, stripped = (world.read_edit_folder(tmp_path, brackets=brackets) for brackets in (True, False))
    for one, other in zip(kept, stripped, strict=True):
        assert "[" in one.target
        assert one.target.replace("[", "").replace("]", "") == other.target
        assert (one.source != other.source, one.runs) == (True, other.runs)


@pytest.mark.parametrize(
    "asked, said",
    [
        (["--set", "fill=pink"], "--set fill must be one of black, grey, source, got 'pink'"),
        (["--set", "border=maybe"], "--set border must be true or false, got 'maybe'"),
        (["--set", "perceptual=alex"], "--set perceptual alex needs --lpips-weights, got none"),
        (["--set", "structure=dino_vits8"], "--set structure dino_vits8 needs --dino-weights, got none"),
        (
            ["--set", "structure=tokens", "--dino-weights", __file__],
            "--set structure tokens leaves --dino-weights unused",
        ),
        (
            ["--set", "clip=world", "--judge-clip", "world"],
            "--judge-clip and --set clip are one setting: give one of them, not both",
        ),
        (["--set", "edits.jpeg=0"], "--set edits.jpeg must lie between 1 and 100, or be none, got 0"),
        (["--set", "fil=grey"], "--set fil is no setting of eval; near it: fill"),
    ],
    ids=["word", "kind", "no weights", "no dino", "unused", "twice", "range", "unknown"],
)
def test_refusals(asked, said, options, tmp_path):
    found = run("--world", 1, *options, *asked, "--out", tmp_path / "out")
    assert found.exit_code == BAD_INPUT
    assert said in " ".join(found.output.split())
    assert not (tmp_path / "out").exists()
