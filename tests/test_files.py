"""Files that are whole or not there: no link is followed, no mode differs, nothing is left behind."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from geokernels import _files
from geokernels._files import remove_left_over, replacing, scratch_folder, write_json

WRITERS = {
    "text": lambda path: path.write_text("new"),
    "torch": lambda path: torch.save({"a": torch.ones(2)}, path),
    "safetensors": lambda path: save_file({"a": torch.ones(2)}, path),
}


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_every_writer_leaves_the_mode_of_a_new_file(writer, mask, mode, umask, tmp_path):
    umask(mask)
    with replacing(tmp_path / "file.bin") as partial:
        WRITERS[writer](partial)
    assert (tmp_path / "file.bin").stat().st_mode & 0o777 == mode
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_the_suffix_stays_and_the_name_cannot_be_foreseen(tmp_path):
    names = set()
    for _ in range(3):
        with replacing(tmp_path / "a.b.png") as partial:
            names.add(partial.name)
            assert partial.suffix == ".png"
            assert partial.exists()
    assert len(names) == 3


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("precious")
    folder.mkdir()
    monkeypatch.setattr(_files.secrets, "token_hex", lambda n: "0" * 2 * n)  # as if it had been foreseen
    with replacing(folder / "x.json") as partial:
        planted = folder / partial.name
    planted.symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_json(folder / "x.json", 1)
    planted.unlink()
    (folder / "x.json").unlink()
    (folder / "x.json").symlink_to(victim)  # a link of that very name is replaced, not followed
    write_json(folder / "x.json", 1)
    assert (victim.read_text(), (folder / "x.json").read_text()) == ("precious", "1\n")


def test_a_folder_removed_meanwhile_is_named(tmp_path):
    def write() -> None:
        with replacing(tmp_path / "out" / "x.txt") as partial:
            partial.unlink()
            (tmp_path / "out").rmdir()

    with pytest.raises(FileNotFoundError, match=r"out was removed while x.txt was written to it"):
        write()


GOOD = (
    "{}",
    ' { "a" : 1 , "b" : [1.5e3, {"c": null}] }\n',
    '{"a": 12345678901234567890, "\\u00e9": "\\"}{", "a": {"a": {}}}',
    '{"deep": {"x": [{"y": "é"}]}, "t": true}',
)


@pytest.mark.parametrize("ahead", [1, 2, 7, 2**20])
@pytest.mark.parametrize("said", GOOD)
def test_entries_read_one_by_one_are_those_of_the_whole(said, ahead, tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "AHEAD", ahead)
    (tmp_path / "x.json").write_text(said, encoding="utf-8")
    monkeypatch.setattr(_files, "read_json", None)  # is for what is damaged
    assert _files.read_json_entries(tmp_path / "x.json") == json.loads(said)
    assert list(_files.read_json_entries(tmp_path / "x.json")) == list(json.loads(said))


@pytest.mark.parametrize("said", ["", '{"a": 1', '{"a" 1}', '{"a": 1,}', '{"a": 1} x', "{1: 2}", "{'a': 1}"])
def test_a_damaged_object_is_refused_in_the_words_of_the_whole(said, tmp_path):
    (tmp_path / "x.json").write_text(said, encoding="utf-8")
    with pytest.raises(ValueError, match="must be JSON") as whole:
        _files.read_json(tmp_path / "x.json")
    with pytest.raises(ValueError, match="must be JSON in UTF-8") as refused:
        _files.read_json_entries(tmp_path / "x.json")
    assert str(whole.value) == str(refused.value)


def test_what_is_no_object_is_read_all_the_same(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    assert _files.read_json_entries(tmp_path / "x.json") == [1]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from geokernels._files import *\n"
        "folder = Path(sys.argv[1])\n"
        "with replacing(folder / 'x.png') as partial, scratch_folder(folder) as scratch:\n"
        "    (scratch / 'rows.raw').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    others = ["x.partial", ".x.partial.png", f".{_files._host()}-1.partial", "partial.png"]
    for name in others:
        (tmp_path / name).write_text("the user's")
    elsewhere = f".00000000-99999999-{'0' * 16}.partial.png"  # of another machine, which may be at work
    (tmp_path / elsewhere).write_text("half")
    with replacing(tmp_path / "y.png") as living, scratch_folder(tmp_path) as at_work:
        remove_left_over(tmp_path, alone=False)
        assert {p.name for p in tmp_path.iterdir()} == {*others, elsewhere, living.name, at_work.name}
        remove_left_over(tmp_path, alone=True)
        assert {p.name for p in tmp_path.iterdir()} == {*others, living.name, at_work.name}
