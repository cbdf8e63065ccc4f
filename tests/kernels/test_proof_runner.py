"""What is concluded of kernels from the life of the child that looks at them.

The child is a double that does what a kernel may do to it: crash, hang, run out of memory, or talk nonsense.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from geokernels.kernels import proof_runner
from geokernels.kernels.proof_runner import Outcome, prove

FIRST, SECOND = "native sinkhorn", "triton sinkhorn"
DOUBLE = f"""
import json, os, resource, signal, subprocess, sys, time
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
file, skip = int(sys.argv[-1].removeprefix("--report=")), sys.argv[1:-1]
def say(**what):
    os.write(file, (json.dumps(what) + "\\n").encode())
def begin(name):
    say(name=name, doing="float32, plain")
RIGHT = {{"date": "2026-01-02", "wrong": {{}}, "speedups": {{"small float32": [3.0, 5]}}}}
def right(name):
    say(name=name, verdict=RIGHT)
def rest():
    for name in {[FIRST, SECOND]}:
        if name not in skip:
            begin(name), right(name)
    say(done=True)
def die(by):
    os.kill(os.getpid(), by)
say(plan={[FIRST, SECOND]})
"""


@pytest.fixture
def concluded(tmp_path, monkeypatch):
    """Give a double its part; see what is concluded. Time stands still until a part says that it hangs."""
    late = 0.0
    monkeypatch.setattr(proof_runner, "monotonic", lambda: late)
    monkeypatch.setattr(proof_runner, "is_loaded", lambda: False)

    def told(name: str, doing: str) -> None:
        nonlocal late
        if doing == "hangs":
            late = 1e6

    def run(part: str, skip: tuple[str, ...] = ()) -> Outcome:
        double = tmp_path / "double.py"
        double.write_text(DOUBLE + part)
        start = lambda known: [sys.executable, "-S", str(double), *known]  # noqa: E731
        return prove(skip, "GPU-1", start=start, told=told)

    return run


def assert_rest_is_right(outcome: Outcome, *names: str) -> None:
    for name in names:
        assert outcome.verdicts[name].wrong == {}
        assert outcome.verdicts[name].speedups == {"small float32": [3.0, 5]}


def test_all_is_well(concluded):
    outcome = concluded("rest()")
    assert outcome.plan == (FIRST, SECOND)
    assert_rest_is_right(outcome, FIRST, SECOND)
    assert not outcome.open


def test_what_is_concluded_so_far_is_handed_on(tmp_path):
    # for whoever is killed in the middle
    double = tmp_path / "double.py"
    double.write_text(DOUBLE + f"if {FIRST!r} not in skip: begin({FIRST!r}), die(signal.SIGSEGV)\nrest()")
    start = lambda known: [sys.executable, "-S", str(double), *known]  # noqa: E731
    kept = []
    prove((), "GPU-1", start=start, keep=kept.append)
    assert [set(outcome.verdicts) for outcome in kept] == [{FIRST}, {FIRST, SECOND}]
    assert all(outcome.plan == (FIRST, SECOND) for outcome in kept)


def test_what_is_known_is_not_looked_at_again(concluded):
    outcome = concluded("rest()", (FIRST,))
    assert set(outcome.verdicts) == {SECOND}
    assert not outcome.open


@pytest.mark.parametrize("by", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"])
def test_a_crash_is_the_kernels_fault_and_the_next_child_does_the_rest(concluded, by):
    part = f"if {FIRST!r} not in skip: begin({FIRST!r}), die(signal.{by})\nrest()"
    outcome = concluded(part)
    assert outcome.verdicts[FIRST].wrong == {"": f"it died by {by} in {FIRST}, float32, plain"}
    assert_rest_is_right(outcome, SECOND)
    assert not outcome.open


@pytest.mark.parametrize("by", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_who_is_killed_says_nothing(concluded, by):
    # by whom memory is taken back from, or who shuts the machine down
    outcome = concluded(f"begin({FIRST!r}), right({FIRST!r}), begin({SECOND!r}), die(signal.{by})")
    assert_rest_is_right(outcome, FIRST)
    assert set(outcome.verdicts) == {FIRST}
    assert by in outcome.open[""]


def test_a_gpu_left_unusable_is_the_kernels_fault(concluded):
    dies = f"begin({FIRST!r}), print('CUDA error: illegal access'), sys.exit(70)"
    part = f"if {FIRST!r} not in skip: {dies}\nrest()"
    outcome = concluded(part)
    assert outcome.verdicts[FIRST].wrong[""].endswith("float32, plain: CUDA error: illegal access")
    assert_rest_is_right(outcome, SECOND)


def test_out_of_memory_is_nobodys_fault(concluded):
    part = f"begin({FIRST!r}), say(name={FIRST!r}, open='out of memory')\nskip.append({FIRST!r})\nrest()"
    outcome = concluded(part)
    assert outcome.open == {FIRST: "out of memory"}
    assert set(outcome.verdicts) == {SECOND}


def test_no_gpu_to_look_at(concluded):
    # as in exclusive-process mode, where this process has the GPU
    outcome = concluded("print('CUDA-capable device(s) is/are busy or unavailable'), sys.exit(75)")
    assert not outcome.verdicts
    assert "busy or unavailable" in outcome.open[""]


def test_a_hang_is_the_kernels_fault(concluded):
    outcome = concluded(
        f"begin({FIRST!r}), right({FIRST!r}), say(name={SECOND!r}, doing='hangs'), time.sleep(600)"
    )
    assert_rest_is_right(outcome, FIRST)
    assert outcome.verdicts[SECOND].wrong == {"": f"it did not end within 120 s in {SECOND}, hangs"}


def test_what_hangs_does_not_take_the_time_of_the_rest(tmp_path, monkeypatch):
    # one thing has a limit of its own, where somebody waits for all of them
    monkeypatch.setattr(proof_runner, "is_loaded", lambda: False)
    monkeypatch.setattr(proof_runner, "LIMIT", 4.0)
    double = tmp_path / "double.py"
    hangs = f"say(name={FIRST!r}, doing='hangs'), time.sleep(600)"
    double.write_text(DOUBLE + f"if {FIRST!r} not in skip: {hangs}\nrest()")
    start = lambda known: [sys.executable, "-S", str(double), *known]  # noqa: E731
    outcome = prove((), "GPU-1", limit=600.0, start=start)
    assert outcome.verdicts[FIRST].wrong == {"": f"it did not end within 4 s in {FIRST}, hangs"}
    assert_rest_is_right(outcome, SECOND)
    assert not outcome.open


def test_a_hang_of_a_loaded_machine_is_not(concluded, monkeypatch):
    monkeypatch.setattr(proof_runner, "is_loaded", lambda: True)
    outcome = concluded(
        f"begin({FIRST!r}), right({FIRST!r}), say(name={SECOND!r}, doing='hangs'), time.sleep(600)"
    )
    assert set(outcome.verdicts) == {FIRST}
    assert "did not end" in outcome.open[""]


def test_the_whole_group_is_killed(concluded, tmp_path):
    # the grandchild holds all pipes open, and minds no signal that can be minded
    grandchild = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    part = f"""
begin({FIRST!r})
os.set_inheritable(file, True)
process = subprocess.Popen([sys.executable, "-S", "-c", {grandchild!r}], close_fds=False)
open({str(tmp_path / "pid")!r}, "w").write(str(process.pid))
"""
    hangs = part + f"say(name={FIRST!r}, doing='hangs'), process.wait()"
    assert "did not end" in concluded(hangs).verdicts[FIRST].wrong[""]
    assert_has_ended(int((tmp_path / "pid").read_text()))
    leaves = part + f"right({FIRST!r})\nskip.append({FIRST!r})\nrest()"
    outcome = concluded(leaves)
    assert_rest_is_right(outcome, FIRST, SECOND)
    assert not outcome.open
    assert_has_ended(int((tmp_path / "pid").read_text()))


def assert_has_ended(pid: int) -> None:
    """It may be a zombie, where nobody waits for orphans."""
    for _ in range(2000):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the grandchild lives")


@pytest.mark.parametrize(
    "garbage",
    [
        "os.write(file, b'Segmentation fault\\n')",
        "os.write(file, b'[1, 2]\\n')",
        "os.write(file, b'\\xff\\xfe\\n')",
        f"say(name={FIRST!r}, verdict=1)",
        f"say(name={FIRST!r}, verdict={{**RIGHT, 'speedups': {{'small float32': [float('nan')]}}}})",
        f"say(name={FIRST!r}, verdict={{'date': 'today', 'wrong': {{}}, 'speedups': {{}}}})",
        "os.write(file, b'[' * 100000 + b'\\n')",
    ],
)
def test_garbage_is_not_believed_nor_what_came_with_it(concluded, garbage):
    outcome = concluded(f"{garbage}\nrest()")
    assert not outcome.verdicts
    assert "nobody can read" in outcome.open[""]


def test_what_kernels_print_is_no_result(concluded):
    outcome = concluded("print('{\"plan\": []}' * 100000, flush=True)\nrest()")
    assert_rest_is_right(outcome, FIRST, SECOND)


def test_half_a_result_is_none(concluded):
    part = f'begin({FIRST!r}), os.write(file, b\'{{"name": "{FIRST}", "verd\'), die(signal.SIGKILL)'
    outcome = concluded(part)
    assert not outcome.verdicts
    assert "SIGKILL" in outcome.open[""]


@pytest.mark.parametrize(
    "part", ["sys.exit(0)", f"begin({FIRST!r}), sys.exit(0)", "sys.exit(1)", "say(done=True), sys.exit(3)"]
)
def test_a_child_that_ends_too_early(concluded, part):
    outcome = concluded(part)
    assert not outcome.verdicts
    assert outcome.open[""]


def test_no_child_can_be_started():
    outcome = prove((), "GPU-1", start=lambda known: ["/nowhere/python"])
    assert not outcome.verdicts
    assert "No such file" in outcome.open[""]


def test_a_child_has_one_gpu_and_no_job(monkeypatch):
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "TRITON_INTERPRET": "1", "KEPT": "yes"}.items():
        monkeypatch.setenv(name, value)
    there = proof_runner.environment("GPU-1")
    assert there["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert there["GEOKERNELS_PROOF"] == "off"
    assert there["KEPT"] == "yes"
    assert not {"RANK", "WORLD_SIZE", "TRITON_INTERPRET"} & set(there)


def test_the_real_child_finds_no_gpu_here():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    outcome = prove((), "GPU-1")
    assert not outcome.verdicts
    assert "status 75" in outcome.open[""]


def test_the_real_child_ends_with_its_parent():
    program = "import time; from geokernels.kernels import proof_child; proof_child._end_with_parent();"
    program += "print('ready', flush=True); time.sleep(600)"
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout.readline() == b"ready\n"
    child.stdin.close()
    assert child.wait(60) == -signal.SIGKILL
    child.stdout.close()
