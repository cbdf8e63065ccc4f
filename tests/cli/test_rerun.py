"""``geokernels rerun``: a run is repeated by its record, from anywhere, or it is said why not."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli.origin import checksum_of, from_home
from geokernels.cli.rerun import TIMED


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def record_of(out):
    return json.loads((out / "run.json").read_text())


def pictures(out):
    """What a run made, as it is on the disk, without what tells the time."""
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in out.rglob("*")
        if p.is_file() and p.suffix not in TIMED
    }


@pytest.mark.parametrize(
    "command", ["blend", "morph", "edit", "adapt", "video", "interpolate", "eval", "world sample"]
)
def test_a_run_is_repeated_to_the_bit_elsewhere(command, command_line, tmp_path, monkeypatch, inputs):
    """Paths that were relative are found again; options that are settings come from the record."""
    monkeypatch.chdir(inputs)
    typed = [str(word).replace(f"{inputs}/", "") for word in command_line[command]]
    first = run(*typed, "--out", tmp_path / "first")
    assert first.exit_code == 0, first.output
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = run("rerun", tmp_path / "first")
    assert again.exit_code == 0, again.output
    assert pictures(tmp_path / "first") == pictures(tmp_path / "first-rerun") != {}
    assert "are the run's to the bit" in again.stdout
    before, after = record_of(tmp_path / "first"), record_of(tmp_path / "first-rerun")
    assert before["config"] == after["config"]
    assert before["seeds"] == after["seeds"]


def test_a_rerun_may_have_another_setting_and_is_a_run_itself(finished, tmp_path):
    out = tmp_path / "out"
    done = run("rerun", finished / "run.json", "--out", out, "--set", "steps=3", "--set", "views=1")
    assert done.exit_code == 0, done.output
    assert "run's to the bit" not in done.stdout
    before, after = (record_of(path)["config"]["morph"] for path in (finished, out))
    assert after == {**before, "steps": 3, "views": 1}
    again = run("rerun", out, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert pictures(out) == pictures(tmp_path / "again")


def test_the_settings_of_a_run_can_be_those_of_another_picture(finished, inputs, tmp_path):
    words = (
        "morph",
        inputs / "masks" / "0.png",
        "--from",
        "a",
        "--to",
        "b",
        "--config",
        finished / "run.json",
    )
    assert run(*words, "--out", tmp_path / "out").exit_code == 0
    assert record_of(tmp_path / "out")["config"] == record_of(finished)["config"]
    other = run("adapt", *words[2:], "--out", tmp_path / "adapt")
    assert f"--config must be of a run of adapt, {finished / 'run.json'} is of morph" in other.stderr


@pytest.fixture
def changed(finished, tmp_path):
    """A copy of the run whose record is changed."""

    def change(**keys):
        out = tmp_path / "run"
        shutil.copytree(finished, out, dirs_exist_ok=True)
        (out / "run.json").write_text(json.dumps({**record_of(finished), **keys}))
        return out

    return change


def refused(*args):
    done = run("rerun", *args)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.strip().splitlines()
    return line.removeprefix("Error: ")


def test_input_that_is_gone_or_changed_is_refused(finished, changed, tmp_path):
    (given,) = record_of(finished)["inputs"]
    gone = changed(inputs=[{**given, "path": str(tmp_path / "gone.png")}])
    said = f"PICTURE must be what the run was given, found nothing at {tmp_path / 'gone.png'}"
    assert refused(gone, "--out", tmp_path / "out") == said
    other = changed(inputs=[{**given, "sha256": "0" * 64}])
    assert refused(other, "--out", tmp_path / "out").endswith("picture.png has changed since")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_repeated_is_refused(finished, changed, tmp_path):
    assert "was left by a run from Python" in refused(changed(options=None))
    assert "schema 2, which does not say all that was typed" in refused(changed(schema=2))
    assert "RUN was given --gone, which morph does not have" in refused(changed(options={"--gone": 1}))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(empty) == f"RUN must be a finished run, found no run.json in {empty}"
    assert "RUN must be an existing file or folder" in refused(tmp_path / "nowhere")
    assert refused(finished, "--set", "recipe=published").startswith(
        "--set recipe changes nothing in a rerun"
    )
    assert refused(finished, "--set", "veiws=2").startswith("--set veiws is no setting of morph")
    assert "--out must not hold another run" in refused(finished, "--out", finished)


def test_other_versions_are_said(finished, changed, tmp_path):
    versions = record_of(finished)["versions"]
    out = changed(versions={**versions, "torch": "1.0"})
    done = run("rerun", out, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert f"Warning: the run was made with torch 1.0, now {versions['torch']}" in done.stderr
    assert "Warning" not in run("rerun", finished, "--out", tmp_path / "same").stderr


def test_a_record_does_not_tell_whose_home_it_is(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(inputs / "picture.png", tmp_path / "mine.png")
    monkeypatch.chdir(tmp_path)
    small = ("--no-start", "--set", "views=1", "--steps", 1)
    done = run("morph", "mine.png", "--from", "a", "--to", "b", "--out", "out", *small)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "run.json").read_text().count(str(tmp_path)) == 0
    assert record_of(tmp_path / "out")["inputs"] == [
        {"option": "PICTURE", "path": "~/mine.png", "sha256": checksum_of(tmp_path / "mine.png")}
    ]
    monkeypatch.chdir("/")
    assert run("rerun", tmp_path / "out").exit_code == 0
    assert from_home("/usr") == "/usr"


def test_the_checksum_of_a_folder_is_of_names_and_contents(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = checksum_of(tmp_path / "a")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    second = checksum_of(tmp_path / "a")
    (tmp_path / "a" / "y").write_text("2")
    assert len({first, second, checksum_of(tmp_path / "a")}) == 3
