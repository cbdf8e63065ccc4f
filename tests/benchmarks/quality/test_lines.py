"""Parts of a benchmark's table, merged, are the lines of one process; what are no parts of one is said."""

import argparse
import shutil

import pytest
from typer.testing import CliRunner

from benchmarks.quality import plasticity
from benchmarks.quality.lines import finished, line_of, shard_given, work_through
from geokernels.cli import app
from geokernels.runs.shards import WHOLE, Shard

HEADER = {"seed": 1, "losses": ["a"]}
TASKS = [(i, "more") for i in range(5)]


def work(task):
    return {"index": task[0], "found": task[0] ** 2}


def do(out, shard=WHOLE, header=HEADER):
    path = out / "edits.jsonl"
    return work_through(path, header, TASKS, work, start=lambda: None, workers=1, shard=shard)


def merge(*words):
    return CliRunner().invoke(app, ["merge", *(str(word) for word in words)])


@pytest.fixture
def parts(tmp_path):
    for i in range(2):
        rows = do(tmp_path / "parts", Shard(i, 2))
        assert [row["index"] for row in rows] == [[0, 2, 4], [1, 3]][i]
    return tmp_path / "parts"


def test_merged_parts_are_the_whole_to_the_bit(parts, tmp_path):
    do(tmp_path / "whole")
    found = merge(parts, "--out", tmp_path / "merged")
    assert found.exit_code == 0, found.output
    ours, theirs = (tmp_path / name / "edits.jsonl" for name in ("merged", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert len(finished(ours, HEADER)) == 5
    assert "add --overwrite" in merge(parts, "--out", tmp_path / "merged").stderr
    assert merge(parts, "--out", tmp_path / "merged", "--overwrite").exit_code == 0


def test_a_part_that_was_stopped_goes_on(tmp_path):
    place = Shard(1, 2).folder(tmp_path)
    place.mkdir()
    header = {**HEADER, "shard": "1/2", "tasks": 5}
    (place / "edits.jsonl").write_text(line_of(header) + line_of({"index": 3, "found": "before"}) + '{"ind')
    assert [row["found"] for row in do(tmp_path, Shard(1, 2))] == [1, "before"]
    with pytest.raises(SystemExit, match="made with other settings"):
        do(tmp_path, Shard(1, 2), {**HEADER, "seed": 2})


def test_what_are_no_parts_of_one_table_is_refused(parts, tmp_path):
    first, second = (parts / f"shard-{i}-of-2" for i in range(2))
    out = tmp_path / "out"

    def refused(*words):
        found = merge(*words, "--out", out)
        assert found.exit_code == 2, found.output
        assert not out.exists()
        return found.stderr.replace("\n", " ")

    assert "1/2 is missing" in refused(first)
    assert "must hold each part once" in refused(first, first, second)
    other = tmp_path / "other"
    do(other, Shard(1, 2), {**HEADER, "seed": 2})
    assert "seed is 1 in" in refused(first, other / "shard-1-of-2")
    do(tmp_path / "whole", WHOLE)
    assert "made with --shard, " in refused(tmp_path / "whole")
    short = shutil.copytree(second, tmp_path / "short")
    lines = (short / "edits.jsonl").read_text().splitlines(keepends=True)
    (short / "edits.jsonl").write_text("".join(lines[:-1]))
    assert "must have every line of part 1/2, it lacks 3" in refused(first, short)
    (short / "edits.jsonl").write_text("".join(lines).replace('"found": 9', '"found": 8'))
    assert "line 3 of" in refused(first, short)


def test_the_summary_is_made_of_the_whole_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plasticity, "run_stage", lambda name, args, shard: None)
    with pytest.raises(SystemExit, match="holds no trials"):
        plasticity.main(["edits", "--out", str(tmp_path)])
    plasticity.main(["edits", "--out", str(tmp_path), "--shard", "1/2"])
    with pytest.raises(SystemExit):
        plasticity.main(["edits", "--out", str(tmp_path), "--shard", "2/2"])
    assert "--shard must be I/N" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        shard_given(argparse.ArgumentParser(), argparse.Namespace(shard=None))
    assert "WORLD_SIZE is not" in capsys.readouterr().err
