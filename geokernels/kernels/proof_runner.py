"""A child process that looks at the kernels, and what its life and its lines say of them.

What a kernel may do, an illegal access or a loop without an end, it does there. The child writes a line of
JSON for each thing it begins or has found; how it ends says the rest. It has its own process group, which is
killed with it.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from .proof_cache import Verdict, today, verdict_of

LIMIT = 120.0  # seconds that a child may take for one thing, and all of them where nobody has asked for it
TAIL = 2000  # characters of what it printed that are kept

# ends of a child that the code it ran is to blame for; whoever sends another signal has reasons of their own
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)


class Outcome(NamedTuple):
    """What came of one child, or of several.

    Attributes:
        plan: All that can be proved; empty if no child came so far as to say.
        verdicts: What was concluded, by name.
        open: Why something was not concluded, by name; ``""`` stands for all that is left.
    """

    plan: tuple[str, ...]
    verdicts: dict[str, Verdict]
    open: dict[str, str]


class _Heard:
    """The lines of a child so far."""

    def __init__(self) -> None:
        self.plan: tuple[str, ...] = ()
        self.verdicts: dict[str, Verdict] = {}
        self.open: dict[str, str] = {}
        self.name, self.doing, self.since = "", "", monotonic()
        self.done, self.garbled = False, False
        self.rest = b""

    def hear(self, data: bytes, told: Callable[[str, str], None]) -> None:
        """Take what came through the pipe; half a line waits for its end."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if self.garbled:
                return
            try:
                said = json.loads(line)
                self.garbled = not (isinstance(said, dict) and self._take(said))
            except (ValueError, RecursionError):
                self.garbled = True
            self.since = monotonic()
            told(self.name, self.doing)

    def _take(self, said: dict[str, Any]) -> bool:
        """Whether one line has a meaning; if it does, keep it."""
        match said:
            case {"plan": list(plan)} if all(isinstance(name, str) for name in plan):
                self.plan = tuple(plan)
            case {"name": str(name), "doing": str(doing)}:
                self.name, self.doing = name, doing
            case {"name": str(name), "verdict": verdict} if (found := verdict_of(verdict)) is not None:
                self.verdicts[name], self.name = found, ""
            case {"name": str(name), "open": str(reason)}:
                self.open[name], self.name = reason, ""
            case {"done": True}:
                self.done = True
            case _:
                return False
        return True


class _Ended(NamedTuple):
    """How a child ended: its exit status as :mod:`subprocess` has it, None if it ran out of time."""

    status: int | None
    printed: str


# runs a module of a package that has the name and the folder it has here: a copy may be on no path
_START = """
import importlib.util, runpy, sys
package, file, module, *sys.argv[1:] = sys.argv[1:]
spec = importlib.util.spec_from_file_location(package, file)
sys.modules[package] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[package])
runpy.run_module(f"{package}.{module}", run_name="__main__")
"""


def command(skip: Sequence[str]) -> list[str]:
    """What starts a child that looks at all but ``skip``; nothing is imported from the working folder."""
    package, file = __name__.removesuffix(".kernels.proof_runner"), Path(__file__).parents[1] / "__init__.py"
    child = [package, str(file), "kernels.proof_child"]
    return [sys.executable or "python3", "-P", "-c", _START, *child, *skip]


def environment(gpu: str) -> dict[str, str]:
    """The environment of a child: this one's, with one GPU, and no part in its job."""
    left = ("TRITON_INTERPRET", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in left}
    ours = str(Path(__file__).parents[2])
    return kept | {
        "CUDA_VISIBLE_DEVICES": gpu,
        "GEOKERNELS_PROOF": "off",
        "PYTHONPATH": os.pathsep.join(filter(None, (ours, kept.get("PYTHONPATH", "")))),
    }


def prove(
    skip: Sequence[str],
    gpu: str,
    *,
    limit: float = LIMIT,
    start: Callable[[Sequence[str]], list[str]] = command,
    told: Callable[[str, str], None] = lambda name, doing: None,
    keep: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Look at all implementations but ``skip``, in children one after another, within ``limit`` seconds.

    A child that dies in the middle of one leaves the rest to the next.

    Args:
        skip: Names that are known already.
        gpu: The GPU, as CUDA_VISIBLE_DEVICES names it.
        limit: Seconds for all of it.
        start: What starts a child.
        told: Called with each name and what is done to it.
        keep: Called with what is concluded so far, whenever that is more.
    """
    ends = monotonic() + limit
    plan: tuple[str, ...] = ()
    verdicts: dict[str, Verdict] = {}
    left: dict[str, str] = {}
    kept = 0

    def hears(name: str, doing: str) -> None:
        nonlocal kept
        told(name, doing)
        so_far = verdicts | heard.verdicts
        if len(so_far) > kept and not heard.garbled:
            kept = len(so_far)
            keep(Outcome(plan or heard.plan, so_far, {}))

    while True:
        heard = _Heard()
        ended = _run(start([*skip, *verdicts, *left]), gpu, ends, heard, hears)
        if heard.garbled:
            return Outcome(plan, verdicts, left | {"": "its child wrote what nobody can read"})
        plan = plan or heard.plan
        verdicts |= heard.verdicts
        left |= heard.open
        if ended.status == 0 and heard.done:
            return Outcome(plan, verdicts, left)
        name, reason = heard.name, _reason(ended, heard, limit)
        blamed = bool(name) and _is_to_blame(ended, heard)
        if blamed:
            verdicts[name] = Verdict(today(), {"": reason}, {})
        if not blamed or monotonic() > ends:
            # for a reason that the next child would meet too, or with no time left
            return Outcome(plan, verdicts, left | {"": reason})


def _reason(ended: _Ended, heard: _Heard, limit: float) -> str:
    """How a child ended that did not end well."""
    at = f" in {heard.name}, {heard.doing}" if heard.name else ""
    if ended.status is None:
        return f"it did not end within {min(limit, LIMIT):.0f} s{at}"
    last = ended.printed.strip().rsplit("\n", 1)[-1][:200]
    if ended.status < 0:
        with contextlib.suppress(ValueError):
            return f"it died by {signal.Signals(-ended.status).name}{at}"
    return f"it ended with status {ended.status}{at}{': ' * bool(last)}{last}"


def _is_to_blame(ended: _Ended, heard: _Heard) -> bool:
    """Whether an end is the fault of what was looked at, and not of the circumstances."""
    if ended.status is None:
        return monotonic() - heard.since >= LIMIT / 2 and not is_loaded()
    return -ended.status in CRASHES or ended.status == BROKEN


BROKEN = 70  # the status of a child whose GPU has been left unusable by what it ran


def is_loaded() -> bool:
    """Whether this machine has more to do than it has processors."""
    try:
        return os.getloadavg()[0] > (os.cpu_count() or 1)
    except OSError:
        return True


def _run(words: list[str], gpu: str, ends: float, heard: _Heard, told: Callable[[str, str], None]) -> _Ended:
    """Run a child to its end, or to the end of its time."""
    report, write_report = os.pipe()
    try:
        child = subprocess.Popen(
            [*words, f"--report={write_report}"],
            env=environment(gpu),
            # it ends when this is closed: with us
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[write_report],
            start_new_session=True,
        )
    except OSError as error:
        os.close(report)
        return _Ended(127, str(error))
    finally:
        os.close(write_report)
    printed = bytearray()
    try:
        status = _follow(child, report, printed, ends, heard, told)
    finally:
        _end(child)
        os.close(report)
    return _Ended(status, printed.decode(errors="replace"))


def _follow(child, report: int, printed: bytearray, ends: float, heard: _Heard, told) -> int | None:
    """Read all that a child says until it ends; its status, or None if its time is over first."""
    with selectors.DefaultSelector() as pipes:
        for pipe in (report, child.stdout.fileno()):
            os.set_blocking(pipe, False)
            pipes.register(pipe, selectors.EVENT_READ)
        while True:
            # looked at before reading, so that nothing it said is missed
            ended, late = _has_ended(child.pid), monotonic() > min(ends, heard.since + LIMIT)
            if ended:
                _kill_group(child.pid)  # what it left behind
            ready = pipes.select(0.0 if ended else 0.05)
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    pipes.unregister(key.fd)
                elif key.fd == report:
                    heard.hear(data, told)
                else:
                    printed += data
                    del printed[:-TAIL]
            if ended and (late or not ready):
                return child.wait()
            if late:
                return None
            if not pipes.get_map():
                sleep(0.05)


def _has_ended(pid: int) -> bool:
    # without taking its status: until then nobody else gets the number of its group
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody else has
        return True


def _end(child) -> None:
    """Kill a child and all it has started, unless that is done."""
    if child.returncode is None:
        _kill_group(child.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that a driver holds cannot be killed
            child.wait(10)
    for pipe in (child.stdin, child.stdout):
        pipe.close()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
