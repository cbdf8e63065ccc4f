"""Every barrier of the CUDA kernels is missed by a test that runs them on the host without it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOR_THE_COMPILER = "to save registers"  # the comment of a barrier that orders nothing
# how many barriers of a file are not needed, as what follows waits before it reads what others wrote
MORE_THAN_NEEDED = {
    "angles_kernel.h": 1,
    "geodesic_backward_kernel.h": 1,
    "geodesic_frame.h": 2,
    "transport_iteration.h": 2,
    "transport_points_kernel.h": 1,
}


def comment(barrier):
    file, line = barrier.rsplit(":", 1)
    return Path(file).read_text().splitlines()[int(line) - 1]


@pytest.mark.long
def test_every_barrier_is_missed(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, HERE / "leave_out_barriers.py", report]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    fates = json.loads(report.read_text())
    assert len(fates) > 20
    assert [barrier for barrier, fate in fates.items() if fate == "never reached"] == []
    unmissed = [b for b, fate in fates.items() if fate == "reached" and FOR_THE_COMPILER not in comment(b)]
    counts = Counter(Path(barrier.rsplit(":", 1)[0]).name for barrier in unmissed)
    assert not counts - Counter(MORE_THAN_NEEDED), unmissed
