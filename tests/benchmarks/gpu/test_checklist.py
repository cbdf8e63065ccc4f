"""benchmarks/gpu/checklist.sh does what it says, as far as that can be seen without a GPU."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import bring, checklist, sources
from benchmarks.gpu.stages import STAGES, Command, Place, plan, triton_kernels

ROOT = Path(__file__).parents[3]
ORDER = ["build", "operators", "sanitizers", "proof", "triton", "timings"]
WHEEL = "geokernels-0.1.0-cp311-cp311-linux_x86_64.whl"
# stands for Python and compute-sanitizer at once: says what it was asked, fails or hangs on request
STUB = """#!/bin/sh
case "$*" in
  *get_device_capability*) echo "$FACTS"; exit ;;
esac
echo "called $*"
case "$*" in
  *"$FAIL_ON"*) exit 3 ;;
  *"$HANG_ON"*) sleep 60 & echo $! > "$OUT/child"; wait ;;
esac
"""
NOTHING = "nothing of the kind"


def call(*arguments, **settings):
    return subprocess.run(
        [ROOT / "benchmarks/gpu/checklist.sh", *map(str, arguments)],
        env=os.environ | {"PYTHON": sys.executable} | settings,
        capture_output=True,
        text=True,
    )


class Machine:
    """A stub in the place of everything that the checklist calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        for name in ("python", "compute-sanitizer"):
            (folder / name).write_text(STUB)
            (folder / name).chmod(0o755)

    def settings(self, *, fail_on=NOTHING, hang_on=NOTHING, gpu="GPU one", out=None):
        facts = {"gpu": gpu, "capability": "9.0", "python": "3.11"}
        told = {
            "FAIL_ON": fail_on,
            "HANG_ON": hang_on,
            "FACTS": json.dumps(facts),
            "PYTHON": str(self.folder / "python"),
        }
        path = f"{self.folder}:{os.environ['PATH']}"
        return os.environ | told | {"OUT": str(out or self.out), "PATH": path}

    def command(self, *arguments):
        return [sys.executable, "-m", "benchmarks.gpu.checklist", *map(str, arguments)]

    def run(self, *arguments, **told):
        settings = self.settings(**told)
        return subprocess.run(
            self.command(*arguments), cwd=ROOT, env=settings, capture_output=True, text=True
        )

    def record(self, out=None):
        return json.loads(((out or self.out) / "checklist.json").read_text())

    def log(self, stage, out=None):
        return ((out or self.out) / f"{stage}.log").read_text()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def results(done):
    """Stage and result of every line of the table that names a stage."""
    rows = [re.match(r"(\w+) +(.+?)  ", line) for line in done.stdout.splitlines()]
    found = {row[1]: row[2] for row in rows if row and row[1] in STAGES}
    return found


def wheels(folder, library=None):
    folder.mkdir()
    (folder / WHEEL).touch()
    (folder / "rival-1-py3-none-any.whl").touch()
    bring.write_facts(folder)
    if library:
        facts = json.loads((folder / "brought.json").read_text())
        (folder / "brought.json").write_text(json.dumps(facts | {"library": library}))
    return folder


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


class TestResumed:
    def test_what_passed_is_not_done_again_but_for_the_build(self, machine):
        machine.run(fail_on="geokernels tune")
        first = {name: machine.log(name) for name in ORDER}
        done = machine.run()
        assert done.returncode == 0
        assert results(done) == dict.fromkeys(ORDER, "passed before") | {"build": "passed", "proof": "passed"}
        again = [name for name in ORDER if machine.log(name) != first[name]]
        assert again == ["build", "proof"]

    def test_from_a_folder_of_another_run(self, machine):
        machine.run(fail_on="geokernels tune")
        (machine.out / "gpu.json").write_text("{}")
        second = machine.folder / "second"
        done = machine.run("--earlier", machine.out, out=second)
        assert results(done)["operators"] == "passed before"
        assert machine.record(second)["stages"]["operators"]["result"] == "passed"
        assert not (second / "operators.log").exists()
        # the timings go on with the rows that are there
        assert (second / "gpu.json").exists()

    @pytest.mark.parametrize("other", ["GPU", "sources", "damaged"])
    def test_not_on_another_gpu_nor_from_other_sources(self, machine, other):
        machine.run()
        path = machine.out / "checklist.json"
        if other == "sources":
            record = machine.record()
            record["machine"]["sources"] = "of yesterday"
            path.write_text(json.dumps(record))
        if other == "damaged":
            path.write_text(path.read_text()[:-40])
        done = machine.run(gpu="GPU two" if other == "GPU" else "GPU one")
        assert results(done) == dict.fromkeys(ORDER, "passed")
        said = {"GPU": "of another gpu", "sources": "of another sources", "damaged": "no record"}[other]
        assert said in done.stdout


class TestWheel:
    def test_of_these_sources_is_used(self, machine):
        done = machine.run("--wheels", wheels(machine.folder / "wheels"), "build")
        assert results(done) == {"build": "passed"}
        assert "setup.py" not in machine.log("build")

    def test_of_other_sources_is_refused(self, machine):
        done = machine.run("--wheels", wheels(machine.folder / "wheels", library="of yesterday"))
        assert done.returncode == 2
        assert f"{WHEEL} must be of these sources" in done.stderr
        assert not machine.out.exists()

    def test_for_another_python_is_refused(self, machine):
        folder = wheels(machine.folder / "wheels")
        (folder / WHEEL).rename(folder / WHEEL.replace("cp311", "cp312"))
        done = machine.run("--wheels", folder)
        assert done.returncode == 2
        assert "must be for Python cp311" in done.stderr


def test_sources_are_told_apart_by_their_contents_and_names(tmp_path):
    (tmp_path / "csrc").mkdir()
    file = tmp_path / "csrc" / "one.cu"
    file.write_text("one")
    before = sources.digest("csrc", root=tmp_path)
    (tmp_path / "csrc" / "notes.md").write_text("no source")
    assert sources.digest("csrc", root=tmp_path) == before
    file.write_text("two")
    changed = sources.digest("csrc", root=tmp_path)
    file.rename(file.with_name("two.cu"))
    assert len({before, changed, sources.digest("csrc", root=tmp_path)}) == 3


def test_the_sanitizers_see_every_cuda_operator():
    registered = {
        name
        for path in (ROOT / "csrc/cuda").glob("*.cu")
        for name in re.findall(r'm\.impl\("(\w+)"', path.read_text())
    }
    called = set(re.findall(r"ops\.geokernels\.(\w+)\(", (ROOT / "benchmarks/gpu/small.py").read_text()))
    assert registered
    assert registered <= called


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("part", ["transport", "geodesic", "gradients_and_assignment"])
def test_what_the_sanitizers_call_can_be_called(part, dtype, monkeypatch):
    # on the CPU, whose operators take the same: minutes of a GPU are too dear for a wrong argument
    from benchmarks.gpu import small

    if small.native.missing:
        pytest.skip(small.native.missing)
    monkeypatch.setattr(small, "DEVICE", "cpu")
    getattr(small, part)(dtype)


@pytest.mark.slow
def test_the_sanitizers_see_every_triton_kernel(monkeypatch, capsys):
    pytest.importorskip("triton")
    from triton.runtime import interpreter

    from benchmarks.gpu import small_triton

    if not small_triton.triton.interpreted:
        pytest.skip("the interpreter is not in use")
    launched, launch = set(), interpreter.GridExecutor.__call__

    def noting(self, *args, **options):
        launched.add(f"kernel_name={self.fn.__name__}")
        return launch(self, *args, **options)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", noting)
    monkeypatch.setattr(sys, "argv", ["small_triton"])
    assert small_triton.main() == 0
    assert launched == set(triton_kernels())


def test_cases_for_a_gpu_have_names_and_targets_of_their_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    from benchmarks import run
    from benchmarks.operators import gpu as gpu_cases

    found = gpu_cases.cases()
    names = [case.name for case in found]
    assert len(set(names)) == len(names)
    assert not set(names) & {case.name for case in run.all_cases()}
    assert all(case.device == "cuda" and case.ours and case.rivals for case in found)
