"""No call of a compiled operator, however wrong, crashes the process or runs for ever.

Calls are made in child processes by ``fuzz_operators.py``, so that every crash is counted and named. More of
them: ``GEOKERNELS_FUZZ_CALLS=10000``; others: ``GEOKERNELS_FUZZ_SEED``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geokernels.kernels import native

pytestmark = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))

SCRIPT = Path(__file__).with_name("fuzz_operators.py")
CALLS = int(os.environ.get("GEOKERNELS_FUZZ_CALLS", "2000"))
SEED = os.environ.get("GEOKERNELS_FUZZ_SEED", "0")
MOST_CRASHES = 5  # by then it is clear


def calls_from(first: int) -> tuple[int, str]:
    """At which call a child ended, and what it told in the end; CALLS when all went well."""
    child = [sys.executable, str(SCRIPT), SEED, str(first), str(CALLS)]
    done = subprocess.run(child, capture_output=True, text=True)
    if done.returncode == 0:
        return CALLS, ""
    made = [line for line in done.stdout.split("\n") if line and not line.startswith(" ")]
    number = int(made[-1].split()[0]) if made else first
    return number, f"{made[-1:]} of seed {SEED} ended with {done.returncode}\n{done.stderr[-1500:]}"


def test_no_call_crashes():
    crashes, first = [], 0
    while first < CALLS and len(crashes) < MOST_CRASHES:
        number, told = calls_from(first)
        if told:
            crashes.append(told)
        first = number + 1
    assert not crashes, "\n".join(crashes)
