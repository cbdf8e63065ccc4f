"""benchmarks/gpu/checklist.sh does what it says, as far as that can be seen without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
# stands for Python and nvcc at once: says what it was asked, fails or hangs on request
STUB = """#!/bin/sh
echo "called $*"
case "$*" in
  *get_device_capability*) echo 9.0 ;;
  *"$FAIL_ON"*) exit 3 ;;
esac
"""


def checklist(*arguments, **settings):
    return subprocess.run(
        [ROOT / "benchmarks/gpu/checklist.sh", *arguments],
        env=os.environ | {"PYTHON": sys.executable} | settings,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def perform(tmp_path):
    """Run the checklist with a stub in the place of everything it calls."""
    for name in ("python", "compute-sanitizer"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)

    def run(*arguments, fail_on="nothing of the kind"):
        settings = {"OUT": str(tmp_path / "out"), "FAIL_ON": fail_on, "PYTHON": str(tmp_path / "python")}
        settings["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        command = [sys.executable, ROOT / "benchmarks/gpu/checklist.py", *arguments]
        return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)

    return run


class TestDryRun:
    def test_names_every_command_and_runs_none(self, tmp_path):
        done = checklist("--dry-run", OUT=str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr
        stages = [line.split(":")[0] for line in done.stdout.splitlines()]
        assert list(dict.fromkeys(stages)) == ["build", "tests", "triton", "sanitizer", "bench"]
        for wanted in ("setup.py build_ext", "--device cuda", "memcheck", "racecheck", "benchmarks.run"):
            assert wanted in done.stdout
        assert not (tmp_path / "out").exists()

    def test_of_one_stage(self):
        done = checklist("--dry-run", "sanitizer")
        assert all(line.startswith("sanitizer:") for line in done.stdout.splitlines())

    def test_installs_carried_wheels(self, tmp_path):
        (tmp_path / "rival-1-py3-none-any.whl").touch()
        first, _measure = checklist("--dry-run", "--wheels", tmp_path, "bench").stdout.splitlines()
        assert "--no-index" in first
        assert first.endswith("rival-1-py3-none-any.whl")

    def test_everything_it_calls_is_there(self):
        # modules and options, not what they do
        printed = checklist("--dry-run").stdout
        for module in ("benchmarks.run", "benchmarks.gpu.small"):
            assert module in printed
            assert (ROOT / (module.replace(".", "/") + ".py")).exists()
        for path in (
            "setup.py",
            "scripts/inspect_cuda.py",
            "tests/ops",
            "tests/kernels/test_cuda_library.py",
        ):
            assert path in printed
            assert (ROOT / path).exists()


def test_an_unknown_stage_is_refused():
    done = checklist("--dry-run", "polish")
    assert done.returncode == 2
    assert "stages must be among build, tests, triton, sanitizer, bench, got polish" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["checklist", "pytest", "bench"])
def test_says_that_there_is_no_gpu(command, tmp_path):
    if command == "checklist":
        done = checklist("build", OUT=str(tmp_path))
    elif command == "pytest":
        arguments = [sys.executable, "-m", "pytest", "--device", "cuda", "tests/ops"]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    else:
        arguments = [sys.executable, "-m", "benchmarks.run", "--device", "cuda"]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "needs a GPU" in " ".join((done.stdout + done.stderr).split())


class TestRun:
    def test_all_that_pass(self, perform, tmp_path):
        done = perform()
        assert done.returncode == 0, done.stdout
        table = done.stdout.splitlines()[-5:]
        assert [line.split()[:2] for line in table] == [
            [stage, "passed"] for stage in ("build", "tests", "triton", "sanitizer", "bench")
        ]
        assert json.loads((tmp_path / "out/bench.json").read_text())["code"] == 0
        assert "called setup.py build_ext --inplace" in (tmp_path / "out/build.log").read_text()

    def test_a_failure_is_told_and_the_next_stage_runs(self, perform, tmp_path):
        done = perform("sanitizer", "bench", fail_on="memcheck")
        assert done.returncode == 1
        assert [line.split()[:2] for line in done.stdout.splitlines()[-2:]] == [
            ["sanitizer", "failed"],
            ["bench", "passed"],
        ]
        # what failed ends its stage
        assert "racecheck" not in (tmp_path / "out/sanitizer.log").read_text()


def test_what_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import checklist

    code, seconds = checklist.run([["sleep", "60"], ["true"]], tmp_path / "log", dict(os.environ), 0.2)
    assert code == 124
    assert seconds < 30


def test_cases_for_a_gpu_have_names_and_targets_of_their_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    from benchmarks import run
    from benchmarks.operators import gpu as gpu_cases

    found = gpu_cases.cases()
    names = [case.name for case in found]
    assert len(set(names)) == len(names)
    assert not set(names) & {case.name for case in run.all_cases()}
    assert all(case.device == "cuda" and case.ours and case.rivals for case in found)
