"""CUDA kernels compiled for the host, once a version of their sources."""

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "emulated"
# -O1: compiling takes longer than running; without the checks of longjmp, which goes from stack to stack here
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-U_FORTIFY_SOURCE",
    "-fPIC",
    "-fno-threadsafe-statics",
    "-Wall",
    "-Wextra",
    "-Werror",
]
FLAGS += ["-Wno-unknown-pragmas", "-Wno-clobbered", "-Wno-unknown-warning-option", f"-I{HERE}"]
# the compiler calls a function at every access to memory; which ones, cuda_on_host_races.cpp says
WATCHED = ["-fsanitize=thread"]


def build(name: str, csrc: Path = ROOT / "csrc") -> Path:
    """Compile ``tests/kernels/NAME.cpp`` on ``cuda_on_host.h``, unless it was, with kernels of ``csrc``."""
    source, races = HERE / f"{name}.cpp", HERE / "cuda_on_host_races.cpp"
    headers = [*(csrc / "cuda").glob("*.h"), *(csrc / "core").glob("*.h"), *HERE.glob("cuda_on_host*.h")]
    read = hashlib.sha256(" ".join(FLAGS + WATCHED).encode())
    for path in sorted([source, races, *headers]):
        read.update(path.read_bytes())
    target = CACHE / f"{name}-{read.hexdigest()[:16]}.so"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{target.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not target.exists():
            partial = target.with_suffix(f".{os.getpid()}")
            compile_library(source, races, csrc, partial)
            os.replace(partial, target)
    return target


def compile_library(source: Path, races: Path, csrc: Path, target: Path) -> None:
    """Compile kernels with their accesses watched, and what watches them without, into one library."""
    compiler = [os.environ.get("CXX", "c++"), *FLAGS, f"-I{csrc}"]
    objects = [target.with_suffix(".kernels.o"), target.with_suffix(".races.o")]
    subprocess.run([*compiler, *WATCHED, "-c", source, "-o", objects[0]], check=True)
    subprocess.run([*compiler, "-O2", "-c", races, "-o", objects[1]], check=True)
    # without the flag, which would bring ThreadSanitizer's own runtime
    subprocess.run([*compiler, "-shared", *objects, "-o", target], check=True)
    for path in objects:
        path.unlink()
