"""benchmarks/gpu/checklist.sh does what it says, as far as that can be seen without a GPU."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import checklist, sources
from benchmarks.gpu.stages import STAGES, Command, Place, plan

from .stubs import ORDER, ROOT, WHEEL, call, results, wheels


class TestPlan:
    def test_names_every_command_and_runs_none(self, tmp_path):
        done = call("--dry-run", OUT=str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr
        stages = [line.split(":")[0].strip() for line in done.stdout.splitlines() if line.startswith("  ")]
        assert list(dict.fromkeys(stage for stage in stages if stage in STAGES)) == ORDER
        for wanted in ("setup.py build_ext", "--device cuda", "geokernels tune", "benchmarks.run"):
            assert wanted in done.stdout
        for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
            for kernels in ("small", "small_triton"):
                assert re.search(rf"--tool {tool} .*benchmarks\.gpu\.{kernels}$", done.stdout, re.MULTILINE)
        assert not (tmp_path / "out").exists()

    def test_a_run_takes_ten_minutes_at_most_and_all_of_it_a_quarter_of_an_hour(self, tmp_path):
        done = call("--dry-run", "--wheels", wheels(tmp_path / "wheels"))
        runs = [float(minutes) for minutes in re.findall(r"run \d+: at most ([\d.]+) minutes", done.stdout)]
        assert runs
        assert max(runs) <= 10
        assert sum(runs) <= 15 - 1  # starting the machine counts
        assert f"in all at most {sum(runs):g} minutes" in done.stdout

    def test_stages_that_do_not_fit_go_into_another_run_that_builds_again(self, tmp_path):
        place = Place("python", tmp_path, tmp_path / "site")
        minutes = {name: stage.minutes(place) for name, stage in STAGES.items()}
        runs = plan(ORDER, place, 10)
        assert [name for names in runs for name in names if name != "build"] == ORDER[1:]
        assert all(names[0] == "build" for names in runs)
        assert all(sum(minutes[name] for name in names) <= 10 for names in runs)
        # a stage that is longer than a run is not lost, and no run is empty
        assert plan(["operators"], place, 1) == [["operators"]]

    def test_of_one_stage(self):
        done = call("--dry-run", "sanitizers")
        assert results(done) == {}
        assert "benchmarks.run" not in done.stdout
        assert "setup.py" not in done.stdout

    def test_brought_wheels_are_unpacked_and_nothing_is_compiled(self, tmp_path):
        done = call("--dry-run", "--wheels", wheels(tmp_path / "wheels"), "build")
        (unpack,) = re.findall(r"unpack: (.*)", done.stdout)
        assert "--no-index" in unpack
        assert unpack.endswith(f"{WHEEL} {tmp_path / 'wheels' / 'rival-1-py3-none-any.whl'}")
        assert "setup.py" not in done.stdout

    def test_everything_it_calls_is_there(self):
        printed = call("--dry-run").stdout
        for module in ("benchmarks.run", "benchmarks.gpu.small", "benchmarks.gpu.small_triton"):
            assert module in printed
            assert (ROOT / (module.replace(".", "/") + ".py")).exists()
        said = subprocess.run(
            [sys.executable, "-m", "geokernels", "tune", "--help"], cwd=ROOT, capture_output=True, text=True
        ).stdout
        assert "geokernels tune --again --json" in printed
        assert "--again" in said
        assert "--json" in said
        for path in ("setup.py", "tests/ops", "tests/kernels/test_cuda_library.py"):
            assert path in printed
            assert (ROOT / path).exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["polish"], "stages must be among build, operators, sanitizers, proof, triton, timings, got polish"),
        (["--wheels", "/no/such"], "--wheels must be a folder, got /no/such"),
    ],
    ids=["stage", "wheels"],
)
def test_what_it_cannot_do_is_refused(arguments, sentence):
    done = call("--dry-run", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["checklist", "pytest", "bench"])
def test_says_that_there_is_no_gpu(command, tmp_path):
    if command == "checklist":
        done = call("build", OUT=str(tmp_path))
    elif command == "pytest":
        arguments = [sys.executable, "-m", "pytest", "--device", "cuda", "tests/ops"]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    else:
        arguments = [sys.executable, "-m", "benchmarks.run", "--device", "cuda"]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "needs a GPU" in " ".join((done.stdout + done.stderr).split())


class TestRun:
    def test_all_that_pass(self, machine):
        done = machine.run()
        assert done.returncode == 0, done.stdout + done.stderr
        assert results(done) == dict.fromkeys(ORDER, "passed")
        record = machine.record()
        assert record["machine"]["gpu"] == "GPU one"
        assert record["machine"]["commit"].startswith(sources.commit()[:40])
        assert [stage["result"] for stage in record["stages"].values()] == ["passed"] * 6
        assert len(record["stages"]["sanitizers"]["commands"]) == 8
        assert "called setup.py build_ext --inplace" in machine.log("build")

    def test_a_failure_is_told_and_the_rest_runs(self, machine):
        done = machine.run(fail_on="memcheck")
        assert done.returncode == 1
        passed = dict.fromkeys(ORDER, "passed")
        assert results(done) == passed | {"sanitizers": "failed 3"}
        assert "  memcheck small: 3" in done.stdout
        # every tool says its own
        assert "--tool initcheck" in machine.log("sanitizers")

    def test_nothing_runs_on_what_was_not_built(self, machine):
        done = machine.run(fail_on="setup.py")
        assert results(done) == {"build": "failed 3"} | dict.fromkeys(ORDER[1:], "not begun")
        assert list(machine.record()["stages"]) == ["build"]

    def test_a_stage_is_begun_only_if_there_is_time(self, machine):
        done = machine.run("--minutes", 2, "operators", "triton")
        assert results(done) == {"operators": "not begun", "triton": "passed"}
        assert done.returncode == 1
        assert "run it again" in done.stdout
        # nor anything on what was not built
        done = machine.run("--minutes", 2, "build", "proof")
        assert results(done) == {"build": "not begun", "proof": "not begun"}

    def test_what_hangs_is_ended_with_its_children(self, machine, monkeypatch):
        machine.out.mkdir()
        settings = machine.settings(hang_on="forever")
        command = Command("hanging", [str(machine.folder / "python"), "forever"])
        for seconds in (0.5, 5, 50):  # on a busy machine it takes a while to have a child
            assert checklist.run(command, machine.out / "log", settings, seconds) == 124
            if (machine.out / "child").exists():
                break
        child = int((machine.out / "child").read_text())
        assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()

    def test_a_hanging_stage_keeps_what_it_had_and_the_next_one_runs(self, machine, monkeypatch):
        machine.out.mkdir()
        for name, value in machine.settings(hang_on="synccheck").items():
            monkeypatch.setenv(name, value)
        short = STAGES["sanitizers"]._replace(minutes=lambda place: 1 / 20)
        monkeypatch.setitem(STAGES, "sanitizers", short)
        assert checklist.main(["sanitizers", "triton"]) == 1
        stages = machine.record()["stages"]
        assert stages["sanitizers"]["result"] == "timed out"
        codes = {what: done["code"] for what, done in stages["sanitizers"]["commands"].items()}
        kept = [
            f"{tool} {kernels}" for tool in ("memcheck", "racecheck") for kernels in ("small", "small_triton")
        ]
        assert codes == dict.fromkeys(kept, 0) | {"synccheck small": 124}
        assert stages["triton"]["result"] == "passed"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_killed_half_way_it_leaves_what_it_had(self, machine, number):
        settings = machine.settings(hang_on="racecheck")
        process = subprocess.Popen(
            machine.command("sanitizers", "triton"),
            cwd=ROOT,
            env=settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 120
        while not (machine.out / "child").exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) != 0
        child = Path("/proc") / (machine.out / "child").read_text().strip()
        if number != signal.SIGKILL:  # which nobody hears
            assert not child.exists() or "Z" in (child / "stat").read_text()
        else:
            os.kill(int(child.name), signal.SIGKILL)
        stage = machine.record()["stages"]["sanitizers"]
        assert stage["result"] == "ended half-way"
        assert list(stage["commands"]) == ["memcheck small", "memcheck small_triton"]
        # the next run goes on there
        done = machine.run("sanitizers", "triton")
        assert results(done) == {"sanitizers": "passed", "triton": "passed"}
        assert len(re.findall("called .*--tool memcheck", machine.log("sanitizers"))) == 2
