"""The examples of docs/batch.md do what they say, as far as one machine can: one evaluation in three ways."""

import csv
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geokernels.cli import app

pytest.importorskip("diffusers")
pytest.importorskip("torchmetrics")
PAGE = (Path(__file__).parents[2] / "docs" / "batch.md").read_text(encoding="utf-8")


def blocks(heading):
    """The code blocks of shell under a heading."""
    (section,) = re.findall(rf"^### {heading}\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    return re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)


@pytest.fixture
def shell(pipeline_folder, tmp_path, monkeypatch):
    """Runs a line of a block, small, from a folder where ``runs`` is."""
    monkeypatch.chdir(tmp_path)
    small = ["--model", str(pipeline_folder), "--steps", "3", "--batch", "1"]

    def run(line, **environment):
        words = shlex.split(line.replace("--world 100", "--world 3").replace(" $RESUME", ""))
        assert words[0] == "geokernels"
        words = [*words[1:], *(small if words[1] == "eval" else [])]
        words = ["no_edit" if word == "oig" else word for word in words]
        found = CliRunner(env=environment).invoke(app, words)
        assert found.exit_code == 0, found.output

    return run


def results(folder):
    with (folder / "results.csv").open() as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    pictures = {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "pictures").rglob("*.png")}
    return rows, pictures


def test_one_evaluation_in_three_ways(shell, tmp_path):
    (laptop,) = blocks("On a laptop")
    shell(laptop)
    script, merging = blocks("Under SLURM")
    last = int(re.search(r"#SBATCH --array=0-(\d+)", script)[1])
    (line,) = [line for line in script.splitlines() if not line.startswith("#")]
    for task in range(last + 1):
        told = {"ID": task, "COUNT": last + 1, "MIN": 0, "MAX": last}
        shell(line, **{f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in told.items()})
    shell(merging)
    (both,) = blocks("Under torchrun")
    line, merging = both.splitlines()
    processes, typed = re.fullmatch(r"torchrun --nproc-per-node (\d+) --no-python (.*)", line).groups()
    for rank in range(int(processes)):
        shell(typed, RANK=str(rank), WORLD_SIZE=processes, LOCAL_RANK=str(rank))
    shell(merging)
    rows, pictures = results(tmp_path / "runs" / "laptop")
    assert len(rows) == len(pictures) == 6
    for merged in ("slurm-whole", "torchrun-whole"):
        assert results(tmp_path / "runs" / merged) == (rows, pictures)


def test_every_example_is_short():
    for heading in ("On a laptop", "Under SLURM", "Under torchrun"):
        assert sum(len(block.splitlines()) for block in blocks(heading)) <= 10
