"""A run's folder: claimed by one run at a time, refused where something would be lost, cleared of its own."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from geokernels._files import sha256, write_json
from geokernels.runs import held_folder as folders
from geokernels.runs.adapt import AdaptFolder
from geokernels.runs.blend import BlendFolder
from geokernels.runs.demo import DemoFolder
from geokernels.runs.edit import EditFolder
from geokernels.runs.evaluate import EvalFolder
from geokernels.runs.interpolate import InterpolationFolder
from geokernels.runs.morph import MorphFolder
from geokernels.runs.samples import SampleFolder
from geokernels.runs.video import VideoFolder
from geokernels.world import write_edit_folder
from geokernels.world.edit_folder import clear_edit_folder, require_edit_folder

# of each kind: files that a run writes, one in a folder where there is one
WRITTEN = {
    BlendFolder: ["frames/003.png", "blend.gif", "blend.mp4"],
    MorphFolder: ["result.png", "frames/003.png", "report.html", "morph.gif", "alpha.png"],
    EditFolder: ["edit-00.png", "inversion.pt", "edit.gif"],
    AdaptFolder: ["generator.safetensors", "after.png", "adapt.gif"],
    VideoFolder: ["atlas.safetensors", "frames/0003.png", "edited.mp4"],
    InterpolationFolder: ["path/003.png", "path.gif", "path.png"],
    EvalFolder: ["pictures/oig/a.png", "results.csv", "summary.md"],
    DemoFolder: ["1-colour-geodesic.png", "walk-frames.png", "overview.png"],
    SampleFolder: ["pictures/0003.png", "clips/0000/clip.gif", "samples.json", "edits/world.json"],
}
KINDS = pytest.mark.parametrize("kind", WRITTEN)


def make(kind, path):
    return EvalFolder(path, ("oig",)) if kind is EvalFolder else kind(path)


def write(path, content="content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return sha256(path)


def record(path, sums):
    write_json(path / "run.json", {"schema": 2, "command": "some", "versions": {}, "files": sums})


def contents(path):
    """What is in a folder, without the file that says who writes to it."""
    files = [p for p in path.rglob("*") if p.is_file() and p.name != folders.OWNER]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@KINDS
def test_overwriting_removes_what_was_written_and_is_as_it_was(kind, tmp_path):
    names = [name for name in WRITTEN[kind] if not name.startswith("edits/")]
    record(tmp_path, {name: write(tmp_path / name) for name in names})
    write(tmp_path / names[0], "changed since")
    write(tmp_path / "notes.txt")
    before = set(contents(tmp_path))
    with make(kind, tmp_path).claim(resume=False, overwrite=True) as folder:
        assert set(contents(tmp_path)) == before  # as long as input may be refused
        folder.replace()
        assert set(contents(tmp_path)) == {"notes.txt", names[0]}


@KINDS
def test_overwriting_removes_nothing_that_a_record_of_any_kind_talks_of(kind, tmp_path):
    """Absolute, above, behind links, or by names that no run has: with the right checksum, too."""
    out, victim = tmp_path / "out", tmp_path / "victim.png"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    shown = {"frames": "003.png", "pictures": "0003.png", "path": "003.png"}
    for place, name in shown.items():
        (out / place).symlink_to(tmp_path / "elsewhere")
        write(out / place / name)
    (out / "pictures" / "oig").mkdir()
    write(out / "pictures" / "oig" / "a.png")
    (out / "grid.png").symlink_to(victim)
    names = [str(victim), "../victim.png", "frames/../../victim.png", "pictures/../../victim.png", "mine.png"]
    names += ["frames/003.png", "pictures/0003.png", "pictures/oig/a.png", "path/003.png", "grid.png", ""]
    sums = {name: write(victim if "victim" in name else out / name) for name in names if name}
    sums[""] = "x"
    record(out, sums)
    rows = [{"picture": name, "sha256": checksum} for name, checksum in sums.items()]
    rows, samples = [*rows, {"picture": ["odd"]}, "odd"], [{"sha256": sums}, {"sha256": 1}, None]
    for name in ("results.partial.json", "results.json"):
        write_json(out / name, {})
    write(out / "results.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, "odd"]))
    write_json(out / "samples.partial.json", {"stages": {"samples": {"samples": samples}}})
    write_json(out / "samples.json", {"samples": samples})
    before = contents(tmp_path)
    with make(kind, out).claim(resume=False, overwrite=True) as folder:
        folder.replace()
        gone = set(before) - set(contents(tmp_path))
    names = ("run.json", kind.checkpoint, "results.json", "results.jsonl", "samples.json")
    assert gone <= {f"out/{name}" for name in names}
    assert (out / "grid.png").is_symlink()


@KINDS
def test_a_file_of_the_users_own_is_not_replaced_unasked(kind, tmp_path):
    for name in [*WRITTEN[kind], "run.json", *(["report.html"] if kind is not MorphFolder else [])]:
        out = tmp_path / name.replace("/", "-")
        write(out / name, '{"a": 1}')
        before = contents(out)
        with pytest.raises(
            ValueError, match="--out must hold no other files that the run would replace"
        ) as said:
            make(kind, out).claim(resume=False, overwrite=False)
        assert f"has {name}; choose another folder, or add --overwrite" in str(said.value)
        assert contents(out) == before
        with make(kind, out).claim(resume=False, overwrite=True) as folder:
            folder.replace()  # of an earlier run; the user's own when the new file is written, no sooner
            assert contents(out) == before


@KINDS
def test_other_files_are_no_hindrance(kind, tmp_path):
    for name in ("notes.txt", "frames/notes.txt", "pictures/holiday/beach.png", ".git/HEAD", "0003.png"):
        write(tmp_path / name)
    with make(kind, tmp_path).claim(resume=False, overwrite=False):
        pass


def test_files_behind_links_would_be_replaced_too(tmp_path):
    write(tmp_path / "elsewhere" / "003.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "frames").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"has frames/003.png"):
        MorphFolder(tmp_path / "out").claim(resume=False, overwrite=False)


def test_only_what_this_run_writes_is_in_its_way(tmp_path):
    write(tmp_path / "edit.png"), write(tmp_path / "ot.png"), write(tmp_path / "path.mp4")
    for folder in (MorphFolder(tmp_path, layered=False), InterpolationFolder(tmp_path)):
        folder.require(resume=False, overwrite=False)
    for folder in (
        MorphFolder(tmp_path),
        InterpolationFolder(tmp_path, 5),
        InterpolationFolder(tmp_path, 1, True),
    ):
        with pytest.raises(ValueError, match="other files"):
            folder.require(resume=False, overwrite=False)


@pytest.mark.parametrize("name", ["result.png", "run.json", "checkpoint.pt", "frames/003.png"])
def test_a_folder_in_the_way_of_a_file_is_found_before_the_run(name, tmp_path):
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=f"must have room for what the run writes, .*{name} is a folder"):
        MorphFolder(tmp_path).claim(resume=False, overwrite=True)


def test_a_file_in_the_way_of_a_folder_is_found_before_the_run(tmp_path):
    write(tmp_path / "frames")
    with pytest.raises(ValueError, match=r"must have room for what the run writes, .*frames is a file"):
        MorphFolder(tmp_path).claim(resume=False, overwrite=True)


def test_what_is_no_folder_is_refused(tmp_path):
    write(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, said in {
        "file": "file is a file",
        "file/below": "file is a file",
        "link": "a link to nothing",
    }.items():
        with pytest.raises(ValueError, match=f"--out must be a folder, .*{said}"):
            MorphFolder(tmp_path / name).claim(resume=False, overwrite=True)


def test_a_path_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"--out must be a path that this system can have, .* File name too long"
    ):
        MorphFolder(tmp_path / ("x" * 300)).claim(resume=False, overwrite=True)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folders.os, "access", lambda path, mode: path != tmp_path)  # root may do anything
    with pytest.raises(ValueError, match=r"that can be written to, .* is not"):
        MorphFolder(tmp_path / "a" / "b").claim(resume=False, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    write(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="give --resume or --overwrite, not both"):
        MorphFolder(tmp_path).claim(resume=True, overwrite=True)


def test_a_folder_is_of_one_run_at_a_time(tmp_path):
    MorphFolder(tmp_path).save({})
    said = rf"--out must not be in use, another run \(process {os.getpid()} on .*\) is writing to"
    with MorphFolder(tmp_path).claim(resume=True, overwrite=False):
        for how in ({"overwrite": True}, {"overwrite": False}):
            with pytest.raises(ValueError, match=said):
                MorphFolder(tmp_path).require(resume=False, **how)
        assert (tmp_path / "checkpoint.pt").exists()
    with MorphFolder(tmp_path).claim(resume=False, overwrite=True) as folder:
        folder.replace()
        assert not (tmp_path / "checkpoint.pt").exists()


HOLDING = """
import sys, time
from pathlib import Path
from geokernels.runs.morph import MorphFolder
with MorphFolder(Path(sys.argv[1])).claim(resume=False, overwrite=False):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has claimed ``tmp_path``."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_process_that_writes_is_named_and_its_lock_goes_with_it(holder, tmp_path):
    said = rf"another run \(process {holder.pid} on .*\) is writing to {tmp_path}"
    for step in ("require", "claim"):
        with pytest.raises(ValueError, match=said):
            getattr(MorphFolder(tmp_path), step)(resume=False, overwrite=True)
    holder.kill()
    holder.wait()
    assert [path.name for path in tmp_path.iterdir()] == [folders.OWNER]  # as a killed run leaves it
    with MorphFolder(tmp_path).claim(resume=False, overwrite=False):
        assert str(os.getpid()) in (tmp_path / folders.OWNER).read_text()
    assert not list(tmp_path.iterdir())


def test_without_locks_the_process_tells(holder, tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    with pytest.raises(ValueError, match=rf"another run \(process {holder.pid} on"):
        MorphFolder(tmp_path).claim(resume=False, overwrite=False)
    holder.kill()
    holder.wait()
    with MorphFolder(tmp_path).claim(resume=False, overwrite=False):
        pass


def test_a_folder_made_for_a_run_that_was_refused_goes_again(tmp_path):
    out = tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="unfit"), MorphFolder(out).claim(resume=False, overwrite=False):
        raise ValueError("unfit")
    assert not list(tmp_path.iterdir())
    with MorphFolder(out).claim(resume=False, overwrite=False) as folder:
        folder.save({"a": 1})
    assert (out / "checkpoint.pt").exists()


def test_a_drive_without_locks_serves(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    with MorphFolder(tmp_path).claim(resume=False, overwrite=False) as folder:
        folder.save({"a": 1})


@pytest.mark.parametrize("again", [None, "made anew", "moved"])
def test_a_folder_removed_in_the_middle_is_said_to_be(again, tmp_path):
    out = tmp_path / "out"
    folder = MorphFolder(out).claim(resume=False, overwrite=False)
    folder.save({"a": 1})
    if again == "moved":
        out.rename(tmp_path / "moved")
    else:
        shutil.rmtree(out)
    if again == "made anew":
        out.mkdir()
        for write_on in (
            lambda: folder.save({"a": 2}),
            lambda: folder.end({}, []),
            lambda: folder.file("x/y.png"),
        ):
            with pytest.raises(FileNotFoundError, match=r"--out .*out was removed or replaced while the run"):
                write_on()
    assert out.exists() == (again == "made anew")


def test_what_killed_runs_left_goes_with_the_next_run(tmp_path):
    left = f".{'0' * 8}-1-{'0' * 16}.partial.png"
    for place in (tmp_path, tmp_path / "frames", tmp_path / "mine"):
        write(place / left)
    with MorphFolder(tmp_path).claim(resume=False, overwrite=False):
        assert set(contents(tmp_path)) == {f"mine/{left}"}


def test_an_input_from_the_folder_itself_stays(tmp_path):
    record(tmp_path, {name: write(tmp_path / name) for name in ("atlas.safetensors", "edited.mp4")})
    kept = [tmp_path / "atlas.safetensors"]
    with VideoFolder(tmp_path).claim(resume=False, overwrite=True, keep=kept) as folder:
        folder.replace()
        assert set(contents(tmp_path)) == {"atlas.safetensors"}


class TestEdits:
    """Folders of edits, which are cleared by their own recipe."""

    def test_what_was_written_goes_and_nothing_else(self, tmp_path):
        folder = tmp_path / "edits"
        write_edit_folder(folder, 2, seed=0)
        write(folder / "annotation_images" / "6_change_attribute_color" / "mine.png")
        (folder / "mapping_file.json").unlink()  # as an interrupted call leaves it
        write(folder / "edited_images" / f".{'0' * 8}-1-{'0' * 16}.partial.png")
        clear_edit_folder(folder)
        assert list(contents(tmp_path)) == ["edits/annotation_images/6_change_attribute_color/mine.png"]
        write(folder / "world.json", json.dumps({"of": "another program"}))
        clear_edit_folder(folder)
        assert len(contents(tmp_path)) == 2

    def test_nothing_behind_a_link_goes(self, tmp_path):
        write_edit_folder(tmp_path / "mine", 2, seed=0)
        before = contents(tmp_path / "mine")
        (tmp_path / "edits").symlink_to(tmp_path / "mine")
        clear_edit_folder(tmp_path / "edits")
        (tmp_path / "other").mkdir()
        write_json(tmp_path / "other" / "world.json", {"seed": 0, "size": 64})
        for part in ("annotation_images", "edited_images"):
            (tmp_path / "other" / part).symlink_to(tmp_path / "mine" / part)
        clear_edit_folder(tmp_path / "other")
        assert contents(tmp_path / "mine") == before
        with pytest.raises(ValueError, match="found other files"):
            require_edit_folder(tmp_path / "edits", seed=1, size=64, replace=True)

    def test_what_would_be_in_the_way_is_found_before(self, tmp_path):
        write_edit_folder(tmp_path, 2, seed=0)
        write(tmp_path / "edited_images" / f".{'0' * 8}-1-{'0' * 16}.partial.png")
        require_edit_folder(tmp_path, seed=1, size=64, replace=True)
        write(tmp_path / "notes.txt")
        with pytest.raises(ValueError, match="found other files"):
            require_edit_folder(tmp_path, seed=1, size=64, replace=True)
