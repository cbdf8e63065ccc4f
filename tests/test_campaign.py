"""Every command is killed, damaged and left without a disk, and nothing is silently wrong."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytest.importorskip("diffusers"), pytest.importorskip("av"), pytest.importorskip("cv2")
pytest.importorskip("torchmetrics")


def campaign(*options):
    command = [sys.executable, SCRIPTS / "campaign.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def counts(found):
    """Rows of the table, by command."""
    rows = [line.strip("| ").split(" | ") for line in found.stdout.splitlines() if line.startswith("| ")]
    return {row[0]: dict(zip(rows[0][1:], row[1:])) for row in rows[2:]}


def test_thirty_kills_and_damages():
    found = campaign("--kills", 30, "--damages", 12, "--full-disks", 6)
    assert found.returncode == 0, found.stdout + found.stderr
    every = counts(found)["all"]
    assert (every["kills"], every["damages"], every["full disks"]) == ("30", "12", "6")
    assert (every["tracebacks"], every["wrong"]) == ("0", "0")
    assert int(every["resumed, identical"]) + int(every["begun again, identical"]) == 30
    assert int(every["resumed, identical"]) >= 10
    assert int(every["sentences"]) >= 3


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_what_no_two_runs_share_is_left_out(scripts, tmp_path):
    from campaign_runs import differences

    for name, seconds, value in (("a", 1, 5), ("b", 2, 5), ("c", 2, 6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(f'{{"rows": [{{"seconds": {seconds}, "x": {value}}}]}}')
        (tmp_path / name / "results.csv").write_text(f"x,seconds\n{value},{seconds}\n")
        (tmp_path / name / "report.html").write_text(str(seconds))
    assert differences(tmp_path / "a", tmp_path / "b") == []
    assert differences(tmp_path / "a", tmp_path / "c") == ["results.csv", "run.json"]
    (tmp_path / "b" / ".x.partial").touch()
    assert differences(tmp_path / "b", tmp_path / "a") == [".x.partial"]


def test_damage_is_done(scripts, tmp_path):
    import torch
    from campaign_damage import damage

    from geokernels._sealed import save_sealed, write_sealed_json

    said = set()
    for i in range(60):
        state = {"index": 3, "w": torch.zeros(3), "run": {"config": {"steps": 3}}}
        save_sealed(tmp_path / "checkpoint.pt", state, kind="morph")
        write_sealed_json(tmp_path / "samples.partial.json", {"rows": []}, kind="sample")
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        story = damage(tmp_path, random.Random(i))
        name = story.partition(":")[0]
        # a block of zeros may fall on zeros, a cut at the end
        if (tmp_path / name).read_bytes() == before[name]:
            assert re.search("zeros|cut", story), story
        said.add(re.sub(r"\d+", "", story))
    assert len(said) > 10


@pytest.mark.parametrize(
    ("code", "said", "bad"),
    [
        (0, "", False),
        (2, "Error: x", False),
        (-9, "", False),
        (-15, "", False),
        (130, "Stopped", False),
        (-11, "", True),
        (-6, "", True),
        (70, "Error: this is a fault", True),
        (1, "Traceback (most recent call last)", True),
    ],
)
def test_a_crash_is_counted(scripts, code, said, bad):
    from campaign_runs import Ended

    assert Ended(code, said).traceback == bad
    assert Ended(code, said).refused == (code == 2)
