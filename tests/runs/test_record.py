"""One schema of run.json, which is written down; what geokernels 0.1.0 left is refused by its name."""

import json
import re
from pathlib import Path

import pytest
import torch

from geokernels._files import write_json
from geokernels._sealed import save_sealed, write_sealed_json
from geokernels.runs.edit import EditFolder
from geokernels.runs.evaluate import EvalFolder
from geokernels.runs.folder import RECORD
from geokernels.runs.morph import MorphFolder
from geokernels.runs.record import KEYS, KINDS, SCHEMA, keys_of, read_record, require_record, rows_of
from geokernels.runs.samples import SampleFolder

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"

WHOLE = {
    "schema": SCHEMA,
    "command": "morph",
    "options": {"--steps": 2},
    "inputs": [],
    "config": {"morph": {"steps": 2}},
    "seeds": [0],
    "encoders": ["world"],
    "seconds": {"prepare": 0.1, "morph": 2, "total": 2.1},
    "steps": {"morph": 2},
    "steps_per_second": {"morph": 1.0},
    "terms": {"morph": ["loss"]},
    "history": {"morph": [[0.5], [None]]},
    "peak_memory_mib": 1.5,
    "machine": {"cpu": "one", "threads": 1, "device": "cpu", "gpu": None},
    "versions": {"torch": "2", "av": None},
    "files": {"result.png": "0" * 64},
    "from": "a",
    "to": ["b"],
    "picture": "c.png",
    "method": "text2live",
}


def test_a_whole_record_is_one():
    require_record(WHOLE)


@pytest.mark.parametrize("key", [key for key in WHOLE if key not in ("schema", "command")])
def test_every_key_is_needed_and_of_its_kind(key):
    with pytest.raises(ValueError, match=f"{key} is missing in the record of morph"):
        require_record({name: value for name, value in WHOLE.items() if name != key})
    with pytest.raises(ValueError, match=f"{key} must be {keys_of('morph')[key].kind}, got "):
        require_record({**WHOLE, key: {"a set, of no kind"}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 1}, "schema must be 3, got 1"),
        ({"sha256": {}}, "sha256 is no key of the record of morph"),
        ({"steps": {"morph": 2.5}}, "steps must be whole numbers by stage"),
        ({"steps": {"morph": True}}, "steps must be whole numbers by stage"),
        ({"seconds": {"morph": 2.0}}, "seconds must be of the stages morph"),
        ({"terms": {"edit": ["loss"]}}, "terms must be of the stages morph, got edit"),
        ({"history": {"morph": [[0.5]]}}, "history must have a row for each of 2 steps of morph"),
        ({"history": {"morph": [["0.5"], [1]]}}, "history must be rows by stage"),
        ({"files": {"result.png": "0"}}, "files must be checksums by name"),
        ({"to": "b"}, "to must be texts, got 'b'"),
    ],
)
def test_what_is_no_record_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        require_record(WHOLE | change)


def test_history_has_no_nan():
    assert rows_of(torch.tensor([[[0.1234567, float("nan")]]])) == [[[0.123457, None]]]


def test_every_key_is_written_down():
    """Each with its kind and commands, as the table of docs/runs.md says."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row[1:] for row in rows if row[0].strip("`") in KEYS}
    assert table == {
        name: [key.kind, ", ".join(key.commands) or "all", key.about] for name, key in KEYS.items()
    }
    assert {key.kind for key in KEYS.values()} == KINDS.keys()


def test_the_example_is_a_record():
    (example,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    require_record(json.loads(example))


MADE = {"geokernels": "0.1.0", "torch": "2.13.0", "cpu": "one", "threads": 2, "gpu": None}
# the layouts of 0.1.0: of each kind of folder the checkpoint that an interrupted run leaves
RUN = {"config": {"steps": 5}, "seed": 3}
STATE = {"run": RUN, "index": 1, "terms": ["loss"], "history": torch.zeros(1, 1), "optimizer": {}}
FRAMES = {"frames": [torch.zeros(3, 4, 4, dtype=torch.uint8)], "seconds": 0.5}
OLD = {
    MorphFolder: {"inversion": STATE, **FRAMES, "facts": {"seed": 0, "encoders": ["world"]}, "made": MADE},
    EditFolder: {"edit": STATE, **FRAMES, "facts": {"seed": 0, "encoder": "world"}, "made": MADE},
    EvalFolder: {"run": {"seed": 0, "steps": 50}, "rows": [], "seconds": 0.5, "made": MADE},
    SampleFolder: {"run": {"seed": 0, "count": 3}, "samples": [], "seconds": 0.5, "made": MADE},
}
OLD_RECORD = {"command": "morph", "seed": 0, "seconds": 1.5, "versions": {"geokernels": "0.1.0"}}


def leave(kind, path, name=None):
    """What an interrupted run of 0.1.0 left."""
    folder = kind(path)
    write = write_sealed_json if folder.checkpoint.endswith(".json") else save_sealed
    write(path / (name or folder.checkpoint), OLD[kind], kind=folder.command)
    return folder


@pytest.mark.parametrize("kind", OLD)
def test_a_checkpoint_of_0_1_0_is_refused_with_what_to_do(kind, tmp_path):
    folder = leave(kind, tmp_path)
    said = r"the checkpoint was made by geokernels 0\.1\.0.*; start again with --overwrite"
    with pytest.raises(ValueError, match=said):
        folder.claim(resume=True, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [folder.checkpoint]
    with kind(tmp_path).claim(resume=False, overwrite=True) as claimed:  # which is what was said
        claimed.replace()
    assert not list(tmp_path.iterdir())


def test_a_finished_evaluation_of_0_1_0_is_not_added_to(tmp_path):
    leave(EvalFolder, tmp_path, "results.json")
    write_json(tmp_path / RECORD, {**OLD_RECORD, "command": "eval", "sha256": {}})
    with pytest.raises(ValueError, match=r"made by geokernels 0\.1\.0"):
        EvalFolder(tmp_path).claim(resume=True, overwrite=False)


def test_a_record_of_0_1_0_is_refused_where_it_is_read_and_its_run_can_be_replaced(tmp_path):
    (tmp_path / "result.png").write_text("content")
    checksum = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    write_json(tmp_path / RECORD, {**OLD_RECORD, "sha256": {"result.png": checksum}})
    with pytest.raises(ValueError, match=r"was written by geokernels 0\.1\.0.*again, with --overwrite"):
        read_record(tmp_path / RECORD)
    with MorphFolder(tmp_path).claim(resume=False, overwrite=True) as folder:
        folder.replace()
    assert not list(tmp_path.iterdir())


def test_a_record_of_a_later_version_is_refused(tmp_path):
    write_json(tmp_path / RECORD, {**OLD_RECORD, "schema": 4})
    with pytest.raises(ValueError, match=r"run.json must be a record of schema 3, got schema 4"):
        read_record(tmp_path / RECORD)


def test_a_record_that_cannot_be_repeated_is_refused_by_its_schema(tmp_path):
    write_json(tmp_path / RECORD, {**OLD_RECORD, "schema": 2})
    with pytest.raises(ValueError, match="is a record of schema 2, which does not say all that was typed"):
        read_record(tmp_path / RECORD)
