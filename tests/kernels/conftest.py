"""CUDA kernels compiled for the host, once a version of their sources."""

import ctypes
import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "emulated"
# -O1: compiling takes longer than running; without the checks of longjmp, which goes from stack to stack here
FLAGS = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
FLAGS += [
    "-Wno-unknown-pragmas",
    "-Wno-clobbered",
    "-Wno-unknown-warning-option",
    f"-I{ROOT / 'csrc'}",
    f"-I{HERE}",
]


@pytest.fixture(scope="session")
def emulated():
    """Compile ``tests/kernels/NAME.cpp`` on ``cuda_on_host.h``, unless that was done before, and load it."""

    def load(name: str) -> ctypes.CDLL:
        source = HERE / f"{name}.cpp"
        headers = [*(ROOT / "csrc" / "cuda").glob("*.h"), *(ROOT / "csrc" / "core").glob("*.h")]
        read = hashlib.sha256(" ".join(FLAGS).encode())
        for path in sorted([source, HERE / "cuda_on_host.h", *headers]):
            read.update(path.read_bytes())
        target = CACHE / f"{name}-{read.hexdigest()[:16]}.so"
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
            if not target.exists():
                partial = target.with_suffix(f".{os.getpid()}")
                subprocess.run([os.environ.get("CXX", "c++"), *FLAGS, source, "-o", partial], check=True)
                os.replace(partial, target)
        return ctypes.CDLL(str(target))

    return load
