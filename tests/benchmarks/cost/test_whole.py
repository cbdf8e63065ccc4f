"""Every command at real sizes: what is typed for it, and what is made for it, here small."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks.cost import whole
from geokernels.cli import app
from geokernels.media.pictures import read_picture


@pytest.mark.parametrize("name", whole.SIZES)
def test_every_command_takes_what_is_typed_for_it(name, tmp_path):
    words = whole.arguments_of(name, tmp_path / "absent", tmp_path / "out")
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 2
    # nothing is wrong but that the files are not there
    assert str(tmp_path / "absent") in said.stderr.replace("\n", "")
    assert not (tmp_path / "out").exists()


def test_files_are_made_once_and_whole(tmp_path, monkeypatch):
    made = []

    def broken(path):
        path.write_text("half")
        raise OSError("full")

    monkeypatch.setattr(whole, "MADE", {"clip": whole.clip_folder, "picture.png": broken})
    with pytest.raises(OSError, match="full"):
        whole.make_files(tmp_path)
    assert not (tmp_path / "picture.png").exists()
    monkeypatch.setattr(whole, "MADE", {"clip": broken, "picture.png": made.append})
    with pytest.raises(FileNotFoundError):
        whole.make_files(tmp_path)
    assert made == [tmp_path / "partial-picture.png"]
    assert read_picture(tmp_path / "clip/frames/005.png").rgb.shape == (3, 432, 768)


def test_a_command_that_is_in_the_results_is_not_run_again(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    row = {"seconds": 60.0, "peak_gib": 2.5}
    out.write_text(json.dumps({"runs": {name: row for name in whole.SIZES if name != "adapt"}}))
    ran = []
    monkeypatch.setattr(whole, "MADE", {})
    monkeypatch.setattr(whole, "run", lambda name, files: ran.append(name) or {**row, "peak_gib": 4.5})
    monkeypatch.setattr("sys.argv", ["whole", "--files", str(tmp_path / "files"), "--out", str(out)])
    whole.main()
    assert ran == ["adapt"]
    assert list(json.loads(out.read_text())["runs"]) == list(whole.SIZES)
    assert "| 60 | 4.5 |" in capsys.readouterr().out
