"""Ctrl-C ends a long call with KeyboardInterrupt; handlers of the user run in the middle of it, and decide.

Every call would take minutes: a child process that goes on to the end of it is killed, and fails.
"""

import subprocess
import sys

import pytest

from geokernels.kernels import native

pytestmark = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))

HANG = 120  # seconds, however slow the machine
PRELUDE = """
import os, signal, threading, torch
import geokernels as gk
ops = torch.ops.geokernels
x, y = torch.rand(20000, 3), torch.rand(20000, 3)
small = dict(eps=1e-4, tol=0.0, max_iter=10**9)
calls = {
    "one small problem": lambda: gk.sinkhorn(x[:200], y[:200], **small),
    "a batch": lambda: gk.sinkhorn(x[:600].view(10, 60, 3), y[:600].view(10, 60, 3), **small),
    "points": lambda: gk.sinkhorn(x, y, eps=1e-4, tol=0.0, max_iter=10**6),
    "costs": lambda: gk.sinkhorn_from_cost(torch.rand(2, 250, 250), **small),
    "large costs": lambda: gk.sinkhorn_from_cost(torch.rand(600, 600), **small),
    "an assignment": lambda: gk.assignment(torch.rand(1, 1).expand(9000, 9000) * torch.rand(9000, 1)
                                           * torch.rand(9000)),
    "exact transport": lambda: gk.exact_transport(torch.rand(9000, 9000)),
}
def later(number=signal.SIGINT, after=0.7):
    timer = threading.Timer(after, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
def goes_on():
    found = gk.sinkhorn(x[:5], y[:7], eps=0.1, backend="native")
    wanted = gk.sinkhorn(x[:5], y[:7], eps=0.1, backend="reference")
    assert found.converged and torch.allclose(found.value, wanted.value, rtol=1e-4)
    print("went on")
"""


def run(script: str) -> str:
    child = [sys.executable, "-c", PRELUDE + script]
    done = subprocess.run(child, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_ctrl_c_ends_a_call_and_the_process_goes_on():
    told = run(
        """
for name, call in calls.items():
    later()
    try:
        call()
    except KeyboardInterrupt:
        print(name)
        goes_on()
"""
    )
    names = [
        "one small problem",
        "a batch",
        "points",
        "costs",
        "large costs",
        "an assignment",
        "exact transport",
    ]
    assert told.split("\n")[:-1] == [line for name in names for line in (name, "went on")]


def test_a_backward_pass_is_interrupted_too():
    told = run(
        """
class Long(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        calls["one small problem"]()
        return grad

leaf = torch.zeros((), requires_grad=True)
value = Long.apply(leaf)
later()
try:
    value.backward()
except KeyboardInterrupt:
    print("interrupted", leaf.grad)
goes_on()
"""
    )
    assert told.split("\n")[:2] == ["interrupted None", "went on"]


def test_handlers_of_the_user_run_in_the_middle_and_may_let_it_go_on():
    told = run(
        """
seen = []
def stop_later(number, frame):
    seen.append(number)
    if len(seen) == 3:
        raise TimeoutError("enough")
signal.signal(signal.SIGINT, stop_later)
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
later(after=0.5), later(signal.SIGUSR1, after=1.0), later(after=1.5)
try:
    calls["one small problem"]()
except TimeoutError as error:
    print(error, seen == [signal.SIGINT, signal.SIGUSR1, signal.SIGINT])
assert signal.getsignal(signal.SIGINT) is stop_later
goes_on()
"""
    )
    assert told.split("\n")[:2] == ["enough True", "went on"]


def test_a_signal_that_is_ignored_ends_nothing():
    told = run(
        """
signal.signal(signal.SIGINT, signal.SIG_IGN)
later(after=0.3)
timed = threading.Event()
def alarm(number, frame):
    raise TimeoutError
signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 1.0)
try:
    calls["one small problem"]()
except TimeoutError:
    print("only the alarm")
"""
    )
    assert told == "only the alarm\n"


def test_a_call_in_another_thread_is_left_alone():
    told = run(
        """
found = []
def work():
    found.append(gk.sinkhorn(x[:200], y[:200], eps=1e-3, tol=0.0, max_iter=50000).value)
thread = threading.Thread(target=work)
thread.start()
later(after=0.3)
try:
    calls["one small problem"]()
except KeyboardInterrupt:
    print("interrupted")
thread.join()
again = gk.sinkhorn(x[:200], y[:200], eps=1e-3, tol=0.0, max_iter=50000).value
print(torch.equal(found[0], again))
"""
    )
    assert told == "interrupted\nTrue\n"
