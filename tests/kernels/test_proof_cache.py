"""What is kept of the kernels from one process to the next, and who may write it."""

import json
import os
import subprocess
import sys
import threading

import pytest

from geokernels.kernels import proof_cache
from geokernels.kernels.proof_cache import Record, Verdict

KEY = {"library": "abc", "gpu": "NVIDIA H200", "capability": "9.0"}
GOOD = Verdict("2026-01-02", {"half": "half, plain: value is off"}, {"small float32": [3.0, 4.0, 5.0]})
RECORD = Record(
    ("native sinkhorn", "triton sinkhorn"), {"native sinkhorn": GOOD}, "job", 12.5, {"": "killed"}
)


@pytest.fixture
def at(tmp_path):
    return proof_cache.file_of(KEY, tmp_path / "made" / "geokernels")


def test_what_is_written_is_read(at):
    proof_cache.write(at, KEY, RECORD)
    assert proof_cache.read(at, KEY) == RECORD
    assert not RECORD.is_whole()
    assert RECORD._replace(verdicts={name: GOOD for name in RECORD.plan}).is_whole()
    assert [path.name for path in at.parent.iterdir()] == [at.name]
    # nobody else looks into the folder
    assert at.parent.stat().st_mode & 0o077 == 0


def test_another_key_has_another_file_and_is_not_believed_in_this_one(at):
    proof_cache.write(at, KEY, RECORD)
    for other in ({**KEY, "library": "abd"}, {**KEY, "capability": "9"}, {"gpu": "NVIDIA H200"}):
        assert proof_cache.file_of(other, at.parent) != at
        assert proof_cache.read(at, other) is None


def test_the_key_tells_apart_what_decides(monkeypatch):
    # what torch says of a GPU, which is not here
    class Gpu:
        name, multi_processor_count, total_memory, major, minor = "NVIDIA H200", 132, 150 << 30, 9, 0

    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: Gpu)
    key = proof_cache.key_of(0)
    assert json.loads(json.dumps(key)) == key
    assert set(key) >= {"library", "torch", "triton", "driver", "gpu", "capability"}
    assert key["capability"] == "9.0"
    assert len(key["library"]) == 64


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "null",
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"at": 12.5', '"at": "12.5"'),
        lambda text: text.replace('"at": 12.5', '"at": NaN'),
        lambda text: text.replace('"job": "job"', '"job": null'),
        lambda text: text.replace('"": "killed"', '"": 3'),
        lambda text: text.replace('"triton sinkhorn"', "7"),
        lambda text: text.replace("3.0", '"3.0"'),
        lambda text: text.replace("3.0", "true"),
        lambda text: text.replace("3.0", "-3.0"),
        lambda text: text.replace("2026-01-02", "__import__('os')"),
        lambda text: text.replace('"wrong"', '"right"'),
        lambda text: text + " " * (1 << 20),
    ],
)
def test_a_corrupt_file_says_nothing(at, damage):
    proof_cache.write(at, KEY, RECORD)
    text = at.read_text()
    assert damage(text) != text
    at.write_text(damage(text))
    assert proof_cache.read(at, KEY) is None


def test_bytes_that_are_no_text_a_folder_and_a_pipe_say_nothing(at, tmp_path):
    proof_cache.write(at, KEY, RECORD)
    at.write_bytes(b"\xff\xfe\x00")
    assert proof_cache.read(at, KEY) is None
    os.mkfifo(tmp_path / "pipe")
    assert proof_cache.read(tmp_path / "pipe", KEY) is None
    assert proof_cache.read(tmp_path, KEY) is None
    assert proof_cache.read(tmp_path / "none", KEY) is None


def test_what_others_can_write_is_not_believed_unless_it_was_named(at):
    proof_cache.write(at, KEY, RECORD)
    at.chmod(0o666)
    assert proof_cache.read(at, KEY) is None
    assert proof_cache.read(at, KEY, ours=False) == RECORD


def test_a_full_disk_leaves_what_was_there(at, monkeypatch):
    proof_cache.write(at, KEY, RECORD)

    def full(*given, **how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        proof_cache.write(at, KEY, Record())
    monkeypatch.undo()
    assert proof_cache.read(at, KEY) == RECORD
    assert [path.name for path in at.parent.iterdir()] == [at.name]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/geokernels"),
        ({"HOME": "/h"}, "/h/.cache/geokernels"),
        ({"XDG_CACHE_HOME": "x", "HOME": "/h"}, "/h/.cache/geokernels"),  # relative ones do not count
        ({"XDG_CACHE_HOME": "", "HOME": ""}, None),
        ({}, None),
    ],
)
def test_folder(monkeypatch, variables, expected):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proof_cache.folder()
    assert (found and str(found)) == expected


def test_one_at_a_time(at):
    with proof_cache.locked(at, 1.0), pytest.raises(TimeoutError, match="another process"):  # noqa: SIM117
        with proof_cache.locked(at, 0.0):
            pytest.fail("two have the lock")
    with proof_cache.locked(at, 0.0):
        pass


def test_who_waits_gets_it(at):
    waits, got = threading.Event(), []

    def wait() -> None:
        waits.set()
        with proof_cache.locked(at, 60.0):
            got.append(True)

    waiting = threading.Thread(target=wait)
    with proof_cache.locked(at, 1.0):
        waiting.start()
        assert waits.wait(60)
        assert not got
    waiting.join(60)
    assert got


HOLD = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_the_lock_goes_with_its_owner(at):
    at.parent.mkdir(parents=True)
    words = [sys.executable, "-S", "-c", HOLD, str(at.with_suffix(".lock"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(TimeoutError), proof_cache.locked(at, 0.0):
            pytest.fail("two have the lock")
        owner.kill()
        with proof_cache.locked(at, 60.0):
            pass


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_of_the_owner_does_not_have_the_lock(at):
    # a process that loads data, say, forked by another thread meanwhile
    leave, stay = os.pipe()
    with proof_cache.locked(at, 1.0):
        fork = os.fork()
        if not fork:
            os.close(stay)
            os.read(leave, 1)
            os._exit(0)
    os.close(leave)
    try:
        with proof_cache.locked(at, 60.0):
            pass
    finally:
        os.close(stay)
        os.waitpid(fork, 0)


def test_no_lock_is_taken_through_a_link(at, tmp_path):
    at.parent.mkdir(parents=True)
    at.with_suffix(".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), proof_cache.locked(at, 0.0):  # noqa: PT011
        pytest.fail("the link was followed")
    assert not (tmp_path / "elsewhere").exists()
