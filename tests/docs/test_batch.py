"""The examples of docs/batch.md do what they say, as far as one machine can: one evaluation in four ways."""

import csv
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geokernels.cli import app

pytest.importorskip("diffusers")
pytest.importorskip("torchmetrics")
if find_spec("ray") is None:  # which batch imports itself, with settings of its own
    pytest.skip("ray is not installed", allow_module_level=True)
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
        line = line.replace("--world 100", "--world 3").replace("oig", "no_edit").replace(" $RESUME", "")
        words = [path for word in shlex.split(line) for path in there(word)]
        assert words[0] == "geokernels"
        words = [*words[1:], *(small if words[1] == "eval" else [])]
        if words[1:3] == ["parts.csv", "--template"]:
            words[3] = shlex.join([*shlex.split(words[3]), *small])
            words += ["--ray-workers", "2"]
        found = CliRunner(env=environment).invoke(app, words)
        assert found.exit_code == 0, found.output

    return run


def there(word):
    """The paths that a shell makes of a word."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def results(folder):
    with (folder / "results.csv").open() as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    pictures = {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "pictures").rglob("*.png")}
    return rows, pictures


def test_one_evaluation_in_four_ways(shell, tmp_path):
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
    (ray,) = blocks("Under Ray")
    listing, line, merging = ray.splitlines()
    subprocess.run(listing, shell=True, check=True)
    shell(line)
    shell(merging)
    rows, pictures = results(tmp_path / "runs" / "laptop")
    assert len(rows) == len(pictures) == 6
    for merged in ("slurm-whole", "torchrun-whole", "ray-whole"):
        assert results(tmp_path / "runs" / merged) == (rows, pictures)


def test_every_example_is_short():
    for heading in ("On a laptop", "Under SLURM", "Under torchrun", "Under Ray"):
        assert sum(len(block.splitlines()) for block in blocks(heading)) <= 10
