"""Of threads, forks and processes that ask about a GPU at once, one looks and the others wait for it."""

import os
import subprocess
import sys
import threading

import pytest

from geokernels.kernels import proof, proof_cache, proof_runner
from geokernels.kernels.proof_cache import Record

from .proofs import KERNELS, KEY, NATIVE, PLAN, order, verdict


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
