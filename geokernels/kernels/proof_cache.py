"""What was concluded of the kernels, from one process to the next: the key, the file, and the lock.

Nothing in a file is run: it is read as JSON, held to its types, and to the key of this installation and GPU.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from datetime import date
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import _files

FORMAT = 1
MOST_BYTES = 1 << 20  # of a file; ours have a hundredth of it
POLL = 0.05  # seconds between two looks at a lock


class Verdict(NamedTuple):
    """What is known of one implementation of an operator.

    Attributes:
        date: The day on which it was found out.
        wrong: What is wrong, by precision; ``""`` stands for all of them.
        speedups: How many times faster than the definition, at each size of a class.
    """

    date: str
    wrong: dict[str, str]
    speedups: dict[str, list[float]]


class Record(NamedTuple):
    """What a file says.

    Attributes:
        plan: Names of all that can be proved, ``"native sinkhorn"``.
        verdicts: What was concluded, by name.
        job: The job that last tried to conclude the rest, or an empty word.
        at: When that was, in seconds of :func:`time.time`.
        open: Why it could not, by name.
    """

    plan: tuple[str, ...] = ()
    verdicts: dict[str, Verdict] = {}  # noqa: RUF012  never changed
    job: str = ""
    at: float = 0.0
    open: dict[str, str] = {}  # noqa: RUF012  never changed

    def is_whole(self) -> bool:
        """Whether nothing is left to be proved."""
        return bool(self.plan) and set(self.plan) <= set(self.verdicts)


def today() -> str:
    """The date of a verdict."""
    return date.today().isoformat()


@cache
def library() -> str:
    """Checksum of all that the kernels compute by: both libraries, Triton's kernels, the definitions."""
    here = Path(__file__).parent
    sources = [*here.glob("_C*.so"), *here.glob("_cuda*.so"), *here.rglob("*.py")]
    sources += (here.parent / "reference").glob("*.py")
    read = hashlib.sha256()
    for path in sorted(sources):
        read.update(f"{path.name} {_files.sha256(path)}\n".encode())
    return read.hexdigest()


def _driver() -> str:
    """Version of the GPU's driver, an empty word where the system does not say."""
    for path, pattern in (
        ("/sys/module/nvidia/version", r"(\S+)"),
        ("/proc/driver/nvidia/version", r"Module\D*([\d.]+)"),
    ):
        with contextlib.suppress(OSError):
            if found := re.search(pattern, Path(path).read_text()):
                return found[1]
    return ""


def key_of(device: int) -> dict[str, Any]:
    """What a conclusion holds for: this installation, and GPUs of this kind.

    By its name and size, not its number: the GPUs of one machine, and of a cluster that shares a home, then
    share what was concluded, and the ranks of a job agree.
    """
    gpu = torch.cuda.get_device_properties(device)
    try:
        triton = metadata.version("triton")
    except metadata.PackageNotFoundError:
        triton = ""
    return {
        "library": library(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "triton": triton,
        "driver": _driver(),
        "gpu": gpu.name,
        "multiprocessors": gpu.multi_processor_count,
        "memory": gpu.total_memory >> 30,
        "capability": f"{gpu.major}.{gpu.minor}",
    }


def folder() -> Path | None:
    """Where conclusions are kept; None where no variable says."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "geokernels"
    home = os.environ.get("HOME", "")
    return Path(home) / ".cache" / "geokernels" if os.path.isabs(home) else None


def file_of(key: dict[str, Any], within: Path) -> Path:
    """The file of a key."""
    word = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return within / f"proof-{word}.json"


def read(path: Path, key: dict[str, Any], *, ours: bool = True) -> Record | None:
    """What a file says of this key; None where it is not there, damaged, or of something else.

    Args:
        path: The file.
        key: What it must be of.
        ours: Whether to believe it only where nobody else can have written it.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return None
        if ours and (found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH):
            return None
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return _record(json.loads(os.read(file, MOST_BYTES)), key)
    finally:
        os.close(file)
    return None


def write(path: Path, key: dict[str, Any], record: Record) -> None:
    """Keep a record; raises OSError where that cannot be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = record._asdict() | {"verdicts": {name: v._asdict() for name, v in record.verdicts.items()}}
    _files.write_json(path, {"format": FORMAT, "key": key} | said)


def _record(said: Any, key: dict[str, Any]) -> Record | None:
    """A record of what JSON says, or None for anything but one of this key."""
    if not isinstance(said, dict) or said.get("format") != FORMAT or said.get("key") != key:
        return None
    plan, verdicts, job, at, left = (said.get(name) for name in Record._fields)
    if not (isinstance(plan, list) and all(isinstance(name, str) for name in plan)):
        return None
    if not (isinstance(job, str) and _is_number(at) and _holds(left, str) and isinstance(verdicts, dict)):
        return None
    read = {name: verdict_of(verdict) for name, verdict in verdicts.items()}
    if None in read.values():
        return None
    return Record(tuple(plan), read, job, float(at), left)


def verdict_of(said: Any) -> Verdict | None:
    """A verdict of what JSON says, or None for anything else."""
    if not isinstance(said, dict) or set(said) != set(Verdict._fields):
        return None
    day, wrong, speedups = (said[name] for name in Verdict._fields)
    if not (isinstance(day, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", day) and _holds(wrong, str)):
        return None
    if not _holds(speedups, list) or not all(
        ratios and all(map(_is_number, ratios)) for ratios in speedups.values()
    ):
        return None
    return Verdict(day, wrong, speedups)


def _holds(said: Any, kind: type) -> bool:
    return isinstance(said, dict) and all(isinstance(value, kind) for value in said.values())


def _is_number(said: Any) -> bool:
    return isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said < 1e12  # not NaN either


_held: set[int] = set()


def _let_go_after_fork() -> None:
    # a fork holds the lock too, and would keep it when its owner has ended
    for file in _held:
        with contextlib.suppress(OSError):
            os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_after_fork)


@contextlib.contextmanager
def locked(path: Path, limit: float) -> Iterator[None]:
    """Hold the lock of a file, which goes with its owner however that ends.

    Args:
        path: The file that is to be written.
        limit: Seconds to wait for whoever has it.

    Raises:
        TimeoutError: If somebody has it for longer.
        OSError: If there can be no lock in this folder.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _held.add(file)
    try:
        ends = time.monotonic() + limit
        while not _lock(file):
            if time.monotonic() > ends:
                raise TimeoutError(f"another process has held {path.with_suffix('.lock')} for {limit:.0f} s")
            time.sleep(POLL)
        yield
    finally:
        if file in _held:  # not in a fork
            _held.discard(file)
            os.close(file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
