"""Leaves out every barrier of the CUDA kernels in turn, where the tests that run them on the host reach it.

    python leave_out_barriers.py REPORT [pytest arguments]

Each test runs as it is, and then again in a process of its own for every barrier that it reached and that
nobody has missed so far: without it, the test must fail, or the process end with a race. REPORT is JSON: of
each barrier in ``csrc/cuda``, as FILE:LINE, how it was missed, ``reached`` where it was not, or ``never
reached``.
"""

import ctypes
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BARRIER = re.compile(r"^[^/]*\b__sync(threads|warp)\w*\(")
LIMIT = 60  # seconds that a test may take without a barrier
ATTEMPTS = 20  # tests that a barrier is left out of at most
TESTS = [
    "test_cuda_subspace.py",
    "test_cuda_geodesic.py",
    "test_cuda_assignment.py",
    "test_cuda_gradients.py",
    "test_cuda_transport.py",
    "test_cuda_transport_points.py",
]


def barriers(folder: Path = ROOT / "csrc" / "cuda") -> list[str]:
    """All of them, as FILE:LINE."""
    return [
        f"{path}:{number}"
        for path in sorted(folder.glob("*.h"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BARRIER.match(line)
    ]


class LeaveOut:
    """A pytest plugin that runs tests without the barriers that they reach."""

    def __init__(self, wanted: list[str]):
        self.fates = dict.fromkeys(wanted, "never reached")
        self.attempts = dict.fromkeys(wanted, 0)
        self.libraries: list[ctypes.CDLL] = []

    def load(self, library: ctypes.CDLL) -> None:
        """Hear of a library of kernels."""
        self.libraries.append(library)

    def pytest_collection_modifyitems(self, items):
        """Begin with tests of orders, where blocks take several problems, then with those of odd inputs."""
        items.sort(key=lambda item: ("Order" not in item.nodeid, "::Test" not in item.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        """Run a test, and again without each barrier whose fate is open."""
        self.reached()
        result = yield
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        for library, barrier in self.reached():
            if barrier in self.open():
                fate = self.run_without(library, barrier, lambda: pyfuncitem.obj(**arguments))
                self.fates[barrier] = f"{fate}: {pyfuncitem.nodeid}" if fate else "reached"
                self.attempts[barrier] += 1
        if not self.open():
            pyfuncitem.session.shouldstop = "the fate of every barrier is known"
        return result

    def open(self) -> list[str]:
        """The barriers that nobody has missed, and that were not left out often enough to give up."""
        return [
            barrier
            for barrier, fate in self.fates.items()
            if fate in ("never reached", "reached") and self.attempts[barrier] < ATTEMPTS
        ]

    def reached(self) -> list[tuple[ctypes.CDLL, str]]:
        """The barriers reached since the last time."""
        found = []
        for library in self.libraries:
            text = ctypes.create_string_buffer(1 << 20)
            library.reached_barriers(text, len(text))
            found += [(library, line) for line in text.value.decode().splitlines()]
        return found

    def run_without(self, library: ctypes.CDLL, barrier: str, test) -> str | None:
        """How a test notices that a barrier is not there."""
        sys.stdout.flush(), sys.stderr.flush()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
            signal.alarm(LIMIT)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            file, line = barrier.rsplit(":", 1)
            library.leave_out_barrier(file.encode(), int(line))
            try:
                test()
            except BaseException:
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        known = {0: None, 1: "the test failed", -signal.SIGABRT: "a race", -signal.SIGALRM: "it did not end"}
        return known.get(status, f"it ended with {status}")


class Named:
    """Registers the plugin under the name that conftest.py asks for."""

    def __init__(self, plugin: LeaveOut):
        self.plugin = plugin

    def pytest_configure(self, config):
        """Register it."""
        config.pluginmanager.register(self.plugin, "barriers")


def main(report: Path, arguments: list[str]) -> int:
    """Run the tests; 1 where one fails with all barriers in place."""
    plugin = LeaveOut(barriers())
    tests = arguments or [str(Path(__file__).with_name(name)) for name in TESTS]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    status = pytest.main([*options, *tests], [Named(plugin)])
    report.write_text(json.dumps(plugin.fates, indent=1) + "\n")
    return int(status not in (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
