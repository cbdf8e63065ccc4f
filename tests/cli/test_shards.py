"""Parts of an evaluation, merged, are what one process leaves, to the bit; what are no parts is said."""

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app, options
from geokernels.cli.console import BAD_INPUT
from geokernels.runs import evaluate
from geokernels.runs.record import require_record
from geokernels.runs.shards import Shard

pytest.importorskip("diffusers")
pytest.importorskip("torchmetrics")


def run(*arguments, **environment):
    return CliRunner(env=environment).invoke(app, [str(word) for word in arguments])


def done(*arguments, **environment):
    found = run(*arguments, **environment)
    assert found.exit_code == 0, found.output
    return found


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module", autouse=True)
def timeless():
    """Nothing takes time or memory: what else differs is a difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: 0.0)
        patch.setattr("geokernels.runs.record.peak_memory_mib", lambda device: 1.0)
        yield


@pytest.fixture(scope="module")
def typed(pipeline_folder):
    model = ("--model", pipeline_folder, "--steps", 3, "--batch", 2)
    return ("eval", "--world", 5, *model, "--method", "no_edit", "--method", "ddim_swap")


@pytest.fixture(scope="module")
def whole(typed, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    done(*typed, "--out", out)
    return out


@pytest.fixture(scope="module")
def parts(typed, tmp_path_factory):
    """Both halves: one as torchrun starts it, one as a SLURM array does, which is killed and continued."""
    out = tmp_path_factory.mktemp("parts") / "out"
    done(*typed, "--out", out, RANK="0", WORLD_SIZE="2")
    task = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    step, taken = evaluate.Edits.step, []

    def killed(self):
        if taken:
            raise SystemExit(9)
        taken.append(step(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.Edits, "step", killed)
        assert run(*typed, "--out", out, **task).exit_code == 9
        patch.setattr(evaluate.Edits, "step", lambda self: taken.append(step(self)))
        done(*typed, "--out", out, "--resume", **task)
    assert len(taken) == 2  # two methods of one batch: what the killed run had made stayed
    return out


def test_merged_parts_are_the_whole_to_the_bit(whole, parts, tmp_path):
    done("merge", parts, "--out", tmp_path / "merged")
    ours, theirs = contents(tmp_path / "merged"), contents(whole)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def test_a_merged_evaluation_is_one(whole, parts, typed, tmp_path):
    """It can be added to, and repeated, like that of one process."""
    out = tmp_path / "merged"
    done("merge", parts / "shard-1-of-2", parts / "shard-0-of-2", "--out", out)
    require_record(json.loads((out / "run.json").read_text()))
    added = done(*typed, "--method", "masactrl", "--out", out, "--resume")
    assert "masactrl" in added.output
    rows = (out / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 15
    assert set(rows) > set((whole / "results.csv").read_text().splitlines())
    again = done("rerun", parts / "shard-1-of-2", "--out", tmp_path / "again")
    assert "are the run's to the bit" in again.stdout
    assert (tmp_path / "again" / "shard-1-of-2" / "run.json").is_file()


def test_a_part_has_its_own_batches_and_says_which(parts):
    records = [json.loads((parts / f"shard-{i}-of-2" / "run.json").read_text()) for i in range(2)]
    for record in records:
        require_record(record)
        assert len(record["edits"]) == 5
    assert [record["shard"] for record in records] == ["0/2", "1/2"]
    assert [record["options"]["--shard"] for record in records] == ["0/2", "1/2"]
    assert [record["steps"]["edits"] for record in records] == [6, 4]


def test_a_part_without_a_batch_is_finished_at_once(typed, tmp_path):
    done(*typed, "--out", tmp_path, "--shard", "3/4")
    place = tmp_path / "shard-3-of-4"
    require_record(json.loads((place / "run.json").read_text()))
    assert (place / "results.jsonl").read_text() == ""
    assert len((place / "results.csv").read_text().splitlines()) == 1


@pytest.fixture
def copied(parts, tmp_path):
    return shutil.copytree(parts, tmp_path / "parts")


def refused(*arguments, out):
    before = contents(out) if out.exists() else None
    found = run("merge", *arguments, "--out", out)
    assert found.exit_code == BAD_INPUT, found.output
    assert (contents(out) if out.exists() else None) == before
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    return line


def change(folder, **keys):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **keys}))
    return record


def test_what_are_no_parts_of_one_run_is_refused(copied, whole, tmp_path):
    first, second = copied / "shard-0-of-2", copied / "shard-1-of-2"
    out = tmp_path / "out"
    assert "1/2 is missing" in refused(first, out=out)
    assert "PARTS must hold each part once" in refused(first, second, first, out=out)
    assert f"made with --shard, {whole} is a whole one" in refused(whole, out=out)
    assert "has no run.json" in refused(tmp_path, out=out)
    record = change(second, shard="1/3")
    assert f"{first} is part 0/2, {second} is part 1/3" in refused(copied, out=out)
    for keys, said in (
        ({"versions": {**record["versions"], "torch": "1.0"}}, 'in ?.*, "1.0" in'),
        ({"config": {"edits": {**record["config"]["edits"], "steps": 4}}}, "config edits steps is 3 in"),
        ({"seeds": [7]}, r"seeds is \[0\] in"),
        ({"contents": "0"}, "contents is "),
    ):
        change(second, **{**record, **keys})
        line = refused(copied, out=out)
        assert "PARTS must be of one run: " in line
        assert re.search(said, line), line
    change(second, **record)
    (second / "run.json").rename(second / "results.partial.json")
    assert f"{second} is not finished: continue it first" in refused(copied, out=out)


def test_what_a_part_lacks_or_has_changed_is_refused(copied, tmp_path):
    second, out = copied / "shard-1-of-2", tmp_path / "out"
    lines = (second / "results.jsonl").read_text().splitlines(keepends=True)
    for kept, said in (
        (lines[:-1], "must have the results of part 1/2, it lacks that of "),
        ([*lines, lines[0]], "it has two"),
        (
            [*lines, (copied / "shard-0-of-2" / "results.jsonl").read_text()],
            "is not what was written; run the part again",
        ),
        ([lines[0].replace('"kind"', '"Kind"'), *lines[1:]], "line 1 of .* is damaged"),
    ):
        (second / "results.jsonl").write_text("".join(kept))
        assert re.search(said, refused(copied, out=out))
    (second / "results.jsonl").write_text("".join(lines))
    picture = next((second / "pictures").rglob("*.png"))
    picture.write_bytes(picture.read_bytes() + b" ")
    assert f"{picture} is not what was written; run the part again" in refused(copied, out=out)


def test_what_is_there_is_not_replaced_unasked(copied, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    assert "--out must not hold another run" in refused(copied, out=out)
    done("merge", copied, "--out", out, "--overwrite")
    assert contents(out) == {**contents(whole), "notes.txt": b"mine"}


def test_other_machines_are_told(copied, tmp_path):
    record = change(copied / "shard-1-of-2")
    change(copied / "shard-1-of-2", machine={**record["machine"], "cpu": "another"})
    with pytest.warns(UserWarning, match="cpu is .* in .*shard-1-of-2: results may differ in rounding"):
        done("merge", copied, "--out", tmp_path / "out")


def test_parts_of_other_numbers_are_not_mixed(typed, parts):
    for more in ((), ("--shard", "0/3")):
        found = run(*typed, "--out", parts, *more)
        assert found.exit_code == BAD_INPUT
        assert "--out must not mix parts of different numbers" in found.stderr.replace("\n", " ")
    found = run(*typed, "--out", parts, RANK="0")
    assert "RANK and WORLD_SIZE must be set together" in found.stderr


def test_a_folder_of_edits_that_has_changed_is_refused(typed, tmp_path):
    world.write_edit_folder(tmp_path / "edits", 2, size=64)
    words = ("eval", tmp_path / "edits", *typed[3:], "--out", tmp_path / "parts", "--shard")
    for part in (Shard(0, 2), Shard(1, 2)):
        done(*words, part)
    picture = world.read_edit_folder(tmp_path / "edits")[1].picture
    kept = picture.read_bytes()
    picture.write_bytes(kept + b" ")
    said = refused(tmp_path / "parts", out=tmp_path / "out")
    assert f"those in {tmp_path / 'edits'} have changed since" in said
    picture.write_bytes(kept)
    done("merge", tmp_path / "parts", "--out", tmp_path / "out")
    done(*words[:-3], "--out", tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_each_process_of_torchrun_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert options.device_of(None) == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert options.device_of(None) == "cuda:1"
    assert options.device_of("cuda:0") == "cuda:0"
