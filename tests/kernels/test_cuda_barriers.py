"""Every barrier of the CUDA kernels is missed by a test that runs them on the host without it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
# how many barriers of a file nobody misses, as others make up for each of them
MORE_THAN_NEEDED = {
    # what is read behind it is the thread's own, and another follows; at the end of a problem, one before it
    "geodesic_backward_kernel.h": 2,
    # lanes read only what they wrote; after the last row another barrier follows
    "geodesic_frame.h": 2,
    # the next problem's first barrier comes before it overwrites what is still read
    "geodesic_kernel.h": 1,
    # the last piece's barrier comes before the end of the problem
    "subspace_backward_kernel.h": 1,
    # signs are read until the next ones are found, behind a barrier
    "subspace_kernel.h": 1,
    # the largest size is known behind one already, and orthonormalising ends with one
    "subspace_room.h": 2,
}


def test_every_barrier_is_missed(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, HERE / "leave_out_barriers.py", report]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    fates = json.loads(report.read_text())
    assert len(fates) > 20
    assert [barrier for barrier, fate in fates.items() if fate == "never reached"] == []
    unmissed = [barrier for barrier, fate in fates.items() if fate == "reached"]
    counts = Counter(Path(barrier.rsplit(":", 1)[0]).name for barrier in unmissed)
    assert not counts - Counter(MORE_THAN_NEEDED), unmissed
