"""Which kernels a process goes by on a GPU: what it concludes, from what, how often, and that it stays so.

There is no GPU: tensors without memory stand for those on one, and a function for the child.
"""

import logging
import os
import subprocess
import sys
import threading

import pytest
import torch

from geokernels.kernels import dispatch, native, proof, proof_cache, proof_runner, triton
from geokernels.kernels.proof_cache import Record, Verdict
from geokernels.kernels.proof_runner import Outcome

KEY = {"library": "abc", "gpu": "NVIDIA H200"}
PLAN = ("native sinkhorn", "triton sinkhorn")


def verdict(*ratios: float, asked: str = "small float32", **wrong: str) -> Verdict:
    return Verdict("2026-01-02", wrong, {asked: list(ratios)} if ratios else {})


NATIVE = Outcome(PLAN, {PLAN[0]: verdict(5.0, 9.0, 7.0), PLAN[1]: verdict(2.0, 3.0, 4.0)}, {})
KERNELS = ("native", "triton", "reference", "native", "triton")


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A process that has concluded nothing, on a machine with a GPU."""
    monkeypatch.setattr(proof, "_is_on_gpu", lambda x: True)
    monkeypatch.setattr(proof, "refuse", lambda device: None)
    monkeypatch.setattr(proof, "gpu_of", lambda device: "GPU-1")
    monkeypatch.setattr(proof_cache, "key_of", lambda device: KEY)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (
        proof.VARIABLE,
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_STEP_NUM_NODES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(proof, "_said", set())
    begin_anew(monkeypatch)


def begin_anew(monkeypatch) -> None:
    """As another process would."""
    monkeypatch.setattr(proof, "_concluded", {})


@pytest.fixture
def looks(monkeypatch):
    """What the child concludes, and how often it was asked and of what it knew."""

    class Looks(list):
        outcome = NATIVE

    asked = Looks()

    def prove(skip, gpu, **how) -> Outcome:
        asked.append(tuple(skip))
        plan, verdicts, left = asked.outcome
        return Outcome(plan, {name: v for name, v in verdicts.items() if name not in skip}, left)

    monkeypatch.setattr(proof_runner, "prove", prove)
    return asked


def clouds(N=33, M=20, D=8, dtype=torch.float32):
    return torch.empty(2, N, D, dtype=dtype, device="meta"), torch.empty(2, M, D, dtype=dtype, device="meta")


def order(*sizes, **how):
    return proof.order("sinkhorn", *clouds(*sizes, **how))


def test_the_fastest_right_one_runs(gpu, looks):
    assert order() == KERNELS
    refusals = {"native": None, "triton": None, "reference": None}
    assert dispatch.choose("sinkhorn", refusals, None, *clouds()) == "native"
    refusals["native"] = lambda: "it cannot"
    assert dispatch.choose("sinkhorn", refusals, None, *clouds()) == "triton"
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (verdict(1.2, 1.1, 50.0), "native"),
        (verdict(50.0, 1.09, 50.0), "reference"),  # not at every size
        (verdict(0.5, 0.5, 0.5), "reference"),
        (verdict(5.0, 5.0, 5.0, float32="wrong"), "reference"),
        (verdict(5.0, 5.0, 5.0, float64="wrong"), "native"),
        (Verdict("2026-01-02", {"": "it died"}, {"small float32": [5.0]}), "reference"),
        (verdict(), "reference"),
        (verdict(9.0, asked="middle float32"), "reference"),
        (verdict(9.0, asked="small float64"), "reference"),
    ],
)
def test_what_is_taken(gpu, looks, found, expected):
    looks.outcome = Outcome(PLAN[:1], {PLAN[0]: found}, {})
    assert order()[0] == expected


def test_triton_is_taken_where_it_is_faster(gpu, looks):
    looks.outcome = NATIVE._replace(
        verdicts={PLAN[0]: verdict(2.0, 3.0, 4.0), PLAN[1]: verdict(5.0, 5.0, 5.0)}
    )
    assert order()[:2] == ("triton", "native")


def test_classes_of_size_and_precision(gpu, looks):
    three = {"small float32": [2.0], "large and wide float32": [2.0], "middle half": [2.0]}
    looks.outcome = Outcome(PLAN[:1], {PLAN[0]: Verdict("2026-01-02", {}, three)}, {})
    for expected, sizes, dtype in (
        ("native", (64, 1, 999), torch.float32),
        ("reference", (65, 1), torch.float32),
        ("reference", (1, 257, 128), torch.float32),
        ("native", (1, 257, 129), torch.float32),
        ("native", (65, 256), torch.bfloat16),
        ("native", (65, 256), torch.float16),
        ("reference", (1, 1), torch.float64),
    ):
        assert order(*sizes, dtype=dtype)[0] == expected, (sizes, dtype)
    assert proof.order("project", *clouds()) == proof.DEFINITION
    assert len(looks) == 1


def test_the_answer_is_kept_for_later_processes(gpu, looks, monkeypatch):
    assert order() == KERNELS
    begin_anew(monkeypatch)
    assert order() == KERNELS
    assert len(looks) == 1
    assert proof.holds(PLAN[0]) == NATIVE.verdicts[PLAN[0]]
    assert proof.holds("native nothing") is None


def test_asking_what_is_known_proves_nothing(gpu, looks):
    assert proof.holds(PLAN[0]) is None
    assert not looks


def test_another_key_is_another_answer(gpu, looks, monkeypatch):
    order()
    begin_anew(monkeypatch)
    monkeypatch.setattr(proof_cache, "key_of", lambda device: {**KEY, "library": "abd"})
    order()
    assert len(looks) == 2


def test_it_stays_while_the_process_runs(gpu, looks):
    assert order() == KERNELS
    looks.outcome = Outcome(PLAN, {PLAN[0]: verdict(0.1)}, {})
    for path in (proof_cache.folder()).iterdir():
        path.unlink()
    assert order() == KERNELS
    assert len(looks) == 1


def test_one_line_says_that_it_waits(gpu, looks, caplog, monkeypatch):
    with caplog.at_level(logging.WARNING):
        order(), order(64, 64), order(300, 300)
    assert len(caplog.messages) == 1
    assert "NVIDIA H200" in caplog.text
    assert "GEOKERNELS_PROOF=off" in caplog.text
    begin_anew(monkeypatch)
    caplog.clear()
    order()
    assert not caplog.messages


def test_what_was_not_concluded_is_the_definition_and_asked_again_by_the_next(gpu, looks, monkeypatch):
    looks.outcome = Outcome(PLAN, {PLAN[0]: NATIVE.verdicts[PLAN[0]]}, {PLAN[1]: "out of memory"})
    assert order() == ("native", *proof.DEFINITION)
    assert order() == ("native", *proof.DEFINITION)
    assert looks == [()]
    begin_anew(monkeypatch)
    looks.outcome = NATIVE
    assert order() == KERNELS
    # what is known is not proved again
    assert looks == [(), (PLAN[0],)]


@pytest.mark.parametrize("left", [{"": "it did not end within 120 s"}, {"": "busy or unavailable"}])
def test_nothing_concluded_is_nothing_cached(gpu, looks, monkeypatch, left, caplog):
    looks.outcome = Outcome((), {}, left)
    assert order() == proof.DEFINITION
    assert f"could not find out about kernels: {left['']}" in caplog.text
    assert proof.known(0).open == left
    begin_anew(monkeypatch)
    looks.outcome = NATIVE
    assert order() == KERNELS


def test_what_was_concluded_before_it_was_killed_is_kept(gpu, looks, monkeypatch):
    def killed(skip, gpu, keep, **how):
        keep(Outcome(PLAN, {PLAN[0]: NATIVE.verdicts[PLAN[0]]}, {}))
        raise KeyboardInterrupt

    whole = proof_runner.prove
    monkeypatch.setattr(proof_runner, "prove", killed)
    with pytest.raises(KeyboardInterrupt):
        order()
    monkeypatch.setattr(proof_runner, "prove", whole)
    assert order() == KERNELS
    assert looks == [(PLAN[0],)]


def test_off_is_the_definition(gpu, looks, monkeypatch):
    order()
    begin_anew(monkeypatch)
    monkeypatch.setenv(proof.VARIABLE, "off")
    assert order() == proof.DEFINITION
    assert len(looks) == 1


def test_a_setting_that_nobody_knows(gpu, looks, monkeypatch):
    monkeypatch.setenv(proof.VARIABLE, "of")
    with pytest.raises(ValueError, match=r"GEOKERNELS_PROOF must be on, off or a file .* got 'of'"):
        order()
    assert not looks


def test_a_file_that_is_named_decides(gpu, looks, monkeypatch, tmp_path, caplog):
    record = Record(PLAN, {PLAN[1]: verdict(3.0)})
    proof_cache.write(tmp_path / "given.json", KEY, record)
    monkeypatch.setenv(proof.VARIABLE, str(tmp_path / "given.json"))
    assert order() == ("triton", *proof.DEFINITION)
    for word in ("none.json", "other.json"):
        proof_cache.write(tmp_path / "other.json", {"gpu": "another"}, record)
        begin_anew(monkeypatch)
        monkeypatch.setenv(proof.VARIABLE, str(tmp_path / word))
        assert order() == proof.DEFINITION
        assert f"{word} holds nothing of this GPU" in caplog.text
    assert not looks


def test_a_named_backend_asks_nobody(gpu, looks):
    refusals = {"native": None, "reference": None}
    assert dispatch.choose("sinkhorn", refusals, "native", *clouds()) == "native"
    refusals["native"] = lambda: "compute capability 7.0"
    with pytest.raises(dispatch.BackendError, match=r"native: compute capability 7\.0"):
        dispatch.choose("sinkhorn", refusals, "native", *clouds())
    assert not looks


def test_the_cpu_asks_nobody(gpu, looks):
    x = torch.zeros(1, 2, 3)
    assert dispatch.choose("sinkhorn", {"native": None, "reference": None}, None, x, x) == "native"
    assert not looks


def test_what_is_no_gpu_asks_nobody(looks):
    # the fixture that makes tensors without memory stand for a GPU is not there
    assert order() == proof.DEFINITION
    assert not looks


def test_other_gpus_run_the_definition_and_say_so_once(gpu, looks, monkeypatch, caplog):
    monkeypatch.setattr(proof, "refuse", lambda device: "the GPU kernels need compute capability 8.0")
    for _ in range(2):
        assert order() == proof.DEFINITION
    assert caplog.messages == [
        "geokernels runs its definitions on this GPU: the GPU kernels need compute capability 8.0"
    ]
    monkeypatch.undo()
    monkeypatch.setattr(proof, "_said", set())
    caplog.clear()

    class OnApple:
        device = torch.device("mps")

    for _ in range(2):
        assert proof.order("sinkhorn", OnApple) == proof.DEFINITION
    assert caplog.messages == ["geokernels runs its definitions on mps: its GPU kernels are for NVIDIA's"]
    assert not looks


def test_old_cards_rocm_and_installations_without_kernels_are_refused(monkeypatch):
    class Gpu:
        name, major, minor = "Tesla T4", 7, 5

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: Gpu)
    assert "Tesla T4 has 7.5" in proof.refuse(0)
    Gpu.major = 9
    monkeypatch.setattr(native, "missing_cuda", "built without CUDA")
    monkeypatch.setattr(triton, "missing", None)
    assert proof.refuse(0) is None
    monkeypatch.setattr(triton, "missing", "triton is not installed")
    assert proof.refuse(0) == "built without CUDA; triton is not installed"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "ROCm 6.4" in proof.refuse(0)


def test_nothing_is_concluded_while_a_graph_is_captured(gpu, looks, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    assert order() == proof.DEFINITION
    assert not looks
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    assert order() == KERNELS
    # what is known then holds for graphs too
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    assert order() == KERNELS


def compiled():
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="eager")
    def first_is_native(x, y):
        return x + (1 if proof.order("sinkhorn", x, y)[0] == "native" else 0)

    return lambda size=3: bool(first_is_native(torch.zeros(1, size, 2), torch.zeros(1, size, 2))[0, 0, 0])


def test_nothing_is_concluded_while_a_graph_is_traced(gpu, looks):
    run = compiled()
    assert not run()
    assert not looks
    assert order() == KERNELS
    # what is compiled keeps its choice
    assert not run()
    assert compiled()()


def test_a_traced_graph_goes_by_what_was_kept(gpu, looks, monkeypatch):
    order()
    begin_anew(monkeypatch)
    assert compiled()()
    assert len(looks) == 1


@pytest.mark.parametrize("strict", [True, False])
def test_a_program_that_is_exported_is_the_definition(gpu, looks, strict):
    order()

    class Chooses(torch.nn.Module):
        def forward(self, x, y):
            return x + (1 if proof.order("sinkhorn", x, y)[0] == "native" else 0)

    points = torch.export.Dim("points", min=2, max=500)  # of more than one class
    sizes = {"x": {1: points}, "y": {1: points}}
    x = torch.zeros(1, 3, 2)
    program = torch.export.export(Chooses(), (x, x), dynamic_shapes=sizes, strict=strict)
    assert not program.module()(x, x).any()


def test_threads_wait_for_the_one_that_asks(gpu, monkeypatch):
    begun, go, children, found = threading.Event(), threading.Event(), [], []

    def prove(skip, gpu, **how):
        children.append(gpu)
        begun.set()
        assert go.wait(60)
        return NATIVE

    monkeypatch.setattr(proof_runner, "prove", prove)
    threads = [threading.Thread(target=lambda: found.append(order())) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert found == [KERNELS] * 3
    assert children == ["GPU-1"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("known", [True, False])
def test_a_fork_goes_by_it_too(gpu, looks, known):
    if known:
        order()
    read, write = os.pipe()
    with proof._lock:  # another thread may be at it
        fork = os.fork()
        if not fork:
            os.write(write, " ".join(order()).encode())
            os._exit(len(looks))
    os.close(write)
    with os.fdopen(read) as said:
        assert tuple(said.read().split()) == KERNELS
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 1


def test_no_home(gpu, looks, monkeypatch, caplog):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert order() == KERNELS
    begin_anew(monkeypatch)
    assert order() == KERNELS
    assert len(looks) == 2
    assert caplog.text.count("neither XDG_CACHE_HOME nor HOME is set") == 1


def test_a_folder_that_cannot_be_made(gpu, looks, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert order() == KERNELS
    assert "cannot keep" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_is_read_only(gpu, looks, monkeypatch, tmp_path, caplog):
    (tmp_path / "geokernels").mkdir(mode=0o500)
    assert order() == KERNELS
    assert "cannot keep" in caplog.text


def test_a_read_only_file_system(gpu, looks, monkeypatch, caplog):
    opened = os.open

    def read_only(path, flags, *mode, **how):
        if flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return opened(path, flags, *mode, **how)

    monkeypatch.setattr("os.open", read_only)
    assert order() == KERNELS
    assert "Read-only file system" in caplog.text


def test_a_full_disk(gpu, looks, monkeypatch, caplog):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(proof_cache, "write", full)
    assert order() == KERNELS
    assert "No space left" in caplog.text


def test_a_corrupt_file_is_replaced(gpu, looks, monkeypatch):
    order()
    (path,) = proof_cache.folder().glob("*.json")
    path.write_text(path.read_text()[:40])
    begin_anew(monkeypatch)
    assert order() == KERNELS
    assert len(looks) == 2
    begin_anew(monkeypatch)
    order()
    assert len(looks) == 2


class TestJobs:
    """Processes that compute one thing together choose alike."""

    @pytest.fixture(autouse=True)
    def one_of_two(self, gpu, monkeypatch):
        for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "7"}.items():
            monkeypatch.setenv(name, value)

    def test_the_second_takes_what_the_first_found(self, looks, monkeypatch):
        looks.outcome = Outcome(PLAN, {PLAN[0]: NATIVE.verdicts[PLAN[0]]}, {PLAN[1]: "out of memory"})
        first = order()
        begin_anew(monkeypatch)
        looks.outcome = NATIVE
        # the second has memory, and would conclude more
        assert order() == first == ("native", *proof.DEFINITION)
        assert len(looks) == 1
        begin_anew(monkeypatch)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "8")
        assert order() == KERNELS

    def test_a_job_of_another_day_that_was_called_the_same_decides_nothing(self, looks, monkeypatch):
        looks.outcome = Outcome(PLAN, {}, {"": "out of memory"})
        assert order() == proof.DEFINITION
        begin_anew(monkeypatch)
        looks.outcome = NATIVE
        monkeypatch.setattr(proof, "STARTED", proof.STARTED + 3600)
        assert order() == KERNELS

    def test_a_job_that_shares_no_folder_proves_nothing(self, looks, monkeypatch, caplog):
        for name in ("XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        assert order() == proof.DEFINITION
        assert not looks
        assert "geokernels tune" in caplog.text

    def test_nor_one_that_cannot_write_there(self, looks, monkeypatch):
        def full(*given):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(proof_cache, "write", full)
        assert order() == proof.DEFINITION
        assert not looks

    @pytest.mark.parametrize(
        "told",
        [
            {"WORLD_SIZE": "4"},
            {"WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NUM_NODES": "2"},
            {"LOCAL_WORLD_SIZE": "", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"},
        ],
        ids=["torchrun", "Slurm", "both"],
    )
    def test_several_machines_prove_nothing_but_take_what_is_known(self, looks, monkeypatch, told, caplog):
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        assert order() == proof.DEFINITION
        assert not looks
        assert "geokernels tune" in caplog.text
        begin_anew(monkeypatch)
        proof_cache.write(proof._where(0)[1], KEY, Record(PLAN, NATIVE.verdicts))
        assert order() == KERNELS
        assert not looks


def test_who_waited_does_not_look_again(gpu, looks, monkeypatch):
    # the other had the lock meanwhile, and concluded half of it
    half = Record(PLAN, {PLAN[1]: verdict(3.0)}, "", float("inf"), {PLAN[0]: "out of memory"})
    locked = proof_cache.locked

    def waited(path, limit):
        proof_cache.write(path, KEY, half._replace(at=4e9))
        return locked(path, limit)

    monkeypatch.setattr(proof_cache, "locked", waited)
    assert order() == ("triton", *proof.DEFINITION)
    assert not looks


def test_who_waits_too_long_runs_the_definition(gpu, looks, monkeypatch, caplog):
    monkeypatch.setattr(proof, "PATIENCE", 0.0)
    with proof_cache.locked(proof._where(0)[1], 1.0):
        assert order() == proof.DEFINITION
    assert not looks
    assert "another process has held" in caplog.text


PARENT = """
import sys, time
from pathlib import Path
from geokernels.kernels import proof, proof_cache, proof_runner

folder, me, double = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
proof_cache.key_of = lambda device: {"library": "abc", "gpu": "NVIDIA H200"}
proof.gpu_of = lambda device: "GPU-1"
proof.refuse = lambda device: None
found = proof_runner.prove
command = lambda skip: [sys.executable, "-S", double, *skip]
proof_runner.prove = lambda skip, gpu, **how: found(skip, gpu, start=command, **how)
(folder / f"parent-{me}").touch()
print(proof._found(0, True).orders, flush=True)
"""
CHILD = """
import json, os, sys, time
from pathlib import Path
folder, file = Path(sys.argv[0]).parent, int(sys.argv[-1].removeprefix("--report="))
def say(**what):
    os.write(file, (json.dumps(what) + "\\n").encode())
name = "native sinkhorn"
(folder / f"child-{os.getpid()}").touch()
say(plan=[name]), say(name=name, doing="float32, plain")
while not (folder / "go").exists():
    if not select_parent():
        os._exit(9)
    time.sleep(0.01)
say(name=name, verdict={"date": "2026-01-02", "wrong": {}, "speedups": {"small float32": [3.0]}})
say(done=True)
"""
# as the real one does, it ends with who started it
SELECT = """
import select
def select_parent():
    return not select.select([0], [], [], 0)[0]
"""


@pytest.fixture
def parents(tmp_path):
    """Real processes that conclude, with a child that waits for a word to go on."""
    (tmp_path / "double.py").write_text(SELECT + CHILD)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("WORLD_SIZE", None)
    running = []

    def start(name: str) -> subprocess.Popen:
        words = [sys.executable, "-c", PARENT, str(tmp_path), name, str(tmp_path / "double.py")]
        running.append(subprocess.Popen(words, stdout=subprocess.PIPE, env=environment))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(folder, pattern: str, count: int = 1):
    for _ in range(12_000):
        found = list(folder.glob(pattern))
        if len(found) >= count:
            return found
        threading.Event().wait(0.01)
    return pytest.fail(f"no {pattern}")


ORDERS = b"{('sinkhorn', 'small float32'): ('native', 'reference', 'native', 'triton')}\n"


def test_of_two_processes_one_looks_and_the_lock_goes_with_who_is_killed(parents, tmp_path):
    first = parents("first")
    wait_for(tmp_path, "child-*")
    second, third = parents("second"), parents("third")
    wait_for(tmp_path, "parent-*", 3)
    # the one that looks is killed, and its child ends with it: one of the others looks
    first.kill()
    wait_for(tmp_path, "child-*", 2)
    (tmp_path / "go").touch()
    assert [process.stdout.read() for process in (second, third)] == [ORDERS] * 2
    assert len(list(tmp_path.glob("child-*"))) == 2


def test_the_gpu_is_called_what_this_process_was_told(monkeypatch):
    class Gpu:
        uuid = "1234"

    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: Gpu)
    for visible, device, expected in (
        ("", 1, "GPU-1234"),
        ("2,3", 1, "GPU-1234"),
        ("GPU-a,GPU-b", 1, "GPU-b"),
        ("MIG-a", 0, "MIG-a"),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert proof.gpu_of(device) == expected
    monkeypatch.delattr(Gpu, "uuid")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert proof.gpu_of(1) == "3"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert proof.gpu_of(1) == "1"
