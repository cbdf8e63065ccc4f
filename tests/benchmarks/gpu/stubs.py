"""A machine for the checklist where a stub stands for everything that it calls, and what it is given."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import bring
from benchmarks.gpu.stages import STAGES

ROOT = Path(__file__).parents[3]
ORDER = ["build", "operators", "sanitizers", "proof", "triton", "timings"]
WHEEL = "geokernels-0.1.0-cp311-cp311-linux_x86_64.whl"
# stands for Python and compute-sanitizer at once: says what it was asked, fails or hangs on request
STUB = """#!/bin/sh
case "$*" in
  *get_device_capability*) echo "$FACTS"; exit ;;
esac
echo "called $*"
case "$*" in
  *"$FAIL_ON"*) exit 3 ;;
  *"$HANG_ON"*) sleep 60 & echo $! > "$OUT/child"; wait ;;
esac
"""
NOTHING = "nothing of the kind"


def call(*arguments, **settings):
    return subprocess.run(
        [ROOT / "benchmarks/gpu/checklist.sh", *map(str, arguments)],
        env=os.environ | {"PYTHON": sys.executable} | settings,
        capture_output=True,
        text=True,
    )


class Machine:
    """A stub in the place of everything that the checklist calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        for name in ("python", "compute-sanitizer"):
            (folder / name).write_text(STUB)
            (folder / name).chmod(0o755)

    def settings(self, *, fail_on=NOTHING, hang_on=NOTHING, gpu="GPU one", out=None):
        facts = {"gpu": gpu, "capability": "9.0", "python": "3.11"}
        told = {
            "FAIL_ON": fail_on,
            "HANG_ON": hang_on,
            "FACTS": json.dumps(facts),
            "PYTHON": str(self.folder / "python"),
        }
        path = f"{self.folder}:{os.environ['PATH']}"
        return os.environ | told | {"OUT": str(out or self.out), "PATH": path}

    def command(self, *arguments):
        return [sys.executable, "-m", "benchmarks.gpu.checklist", *map(str, arguments)]

    def run(self, *arguments, **told):
        settings = self.settings(**told)
        return subprocess.run(
            self.command(*arguments), cwd=ROOT, env=settings, capture_output=True, text=True
        )

    def record(self, out=None):
        return json.loads(((out or self.out) / "checklist.json").read_text())

    def log(self, stage, out=None):
        return ((out or self.out) / f"{stage}.log").read_text()


def results(done):
    """Stage and result of every line of the table that names a stage."""
    rows = [re.match(r"(\w+) +(.+?)  ", line) for line in done.stdout.splitlines()]
    found = {row[1]: row[2] for row in rows if row and row[1] in STAGES}
    return found


def wheels(folder, library=None):
    folder.mkdir()
    (folder / WHEEL).touch()
    (folder / "rival-1-py3-none-any.whl").touch()
    bring.write_facts(folder)
    if library:
        facts = json.loads((folder / "brought.json").read_text())
        (folder / "brought.json").write_text(json.dumps(facts | {"library": library}))
    return folder
