"""A part of the work is named by an option, or by what torchrun or SLURM say; what is unclear is refused."""

import pytest

from geokernels.runs.shards import WHOLE, Shard, parse, place_of, shard_of, shards_in


def torchrun(index, count):
    return {"RANK": str(index), "WORLD_SIZE": str(count)}


def array(index, count, first=None, last=None):
    told = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": str(count)}
    if first is not None:
        told |= {"SLURM_ARRAY_TASK_MIN": str(first), "SLURM_ARRAY_TASK_MAX": str(last)}
    return told


@pytest.mark.parametrize(
    ("given", "environment", "shard"),
    [
        (None, {}, WHOLE),
        (None, torchrun(2, 4), Shard(2, 4)),
        (None, array(2, 4), Shard(2, 4)),
        (None, array(3, 4, 0, 3), Shard(3, 4)),
        (None, torchrun(2, 4) | array(2, 4, 0, 3), Shard(2, 4)),
        (None, torchrun(0, 1), WHOLE),
        # what is typed decides, whatever the environment says
        ("1/3", torchrun(2, 4) | array(7, 2), Shard(1, 3)),
        ("0/1", torchrun(2, 4), WHOLE),
    ],
)
def test_the_part_that_is_meant(given, environment, shard):
    assert shard_of(given, environment) == shard


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "0"}, "RANK and WORLD_SIZE must be set together, WORLD_SIZE is not"),
        ({"SLURM_ARRAY_TASK_COUNT": "3"}, "must be set together, SLURM_ARRAY_TASK_ID is not"),
        (torchrun("", 4), "RANK must be a whole number, got ''"),
        (torchrun(0, "four"), "WORLD_SIZE must be a whole number, got 'four'"),
        (torchrun(4, 4), "RANK must be counted from 0 and below WORLD_SIZE, got 4 of 4"),
        (array(-1, 4), "SLURM_ARRAY_TASK_ID must be a whole number, got '-1'"),
        (torchrun(1, 4) | array(2, 4), r"RANK and WORLD_SIZE say part 1/4, SLURM_ARRAY.* say part 2/4"),
        (torchrun(0, 1) | array(2, 4), "say part 0/1, SLURM_ARRAY.* say part 2/4"),
        # an array from 1, and one of which some tasks are submitted again
        (array(1, 4, 1, 4), "an array of 4 tasks must be numbered 0-3, .* say 1 and 4"),
        (array(0, 2, 0, 5), "an array of 2 tasks must be numbered 0-1, .* say 0 and 5"),
    ],
)
def test_what_an_environment_says_by_halves_is_refused(environment, said):
    with pytest.raises(ValueError, match=f"{said}.*: give --shard I/N, which decides"):
        shard_of(None, environment)


@pytest.mark.parametrize("given", ["4/4", "1", "1/0", "-1/4", "a/b", "1/4/5", "1 / 4", "1" * 20 + "/4"])
def test_what_names_no_part_is_refused(given):
    with pytest.raises(ValueError, match=r"--shard must be I/N with I from 0 to N-1, such as 0/4, got "):
        shard_of(given, {})


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_unit_belongs_to_one_part(count):
    parts = [Shard(i, count) for i in range(count)]
    assert [sum(part.has(unit) for part in parts) for unit in range(20)] == [1] * 20
    assert [parse(str(part)) for part in parts] == parts


def test_parts_of_different_numbers_do_not_go_together(tmp_path):
    assert place_of(tmp_path, WHOLE) == tmp_path
    place = place_of(tmp_path, Shard(1, 12))
    assert place.name == "shard-1-of-12"
    for part in (Shard(10, 12), Shard(1, 12)):
        part.folder(tmp_path).mkdir()
    (tmp_path / "shard-notes-of-mine").mkdir()
    assert [path.name for path in shards_in(tmp_path)] == ["shard-1-of-12", "shard-10-of-12"]
    assert place_of(tmp_path, Shard(3, 12)).name == "shard-3-of-12"
    for part in (WHOLE, Shard(0, 4)):
        with pytest.raises(ValueError, match=r"has parts of 12, .*: give --shard I/12, or choose another"):
            place_of(tmp_path, part)
