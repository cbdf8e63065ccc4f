"""Peak extra memory of one call, in a process of its own.

python -m benchmarks.operators.memory FEATURES NAME
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..harness.case import MEMORY
from ..harness.machine import ROOT
from . import clouds as cloud_cases

WARM_POINTS = 600  # streamed as well: whatever a library loads or compiles is loaded and compiled
MOST_MEGABYTES = 200
SECONDS = 40


def _status(word: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(word))


def peak_extra(run: Callable[[], object]) -> int:
    """Bytes of memory held at the worst moment of a call, less those held before it."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory would otherwise be used again, unseen
    # ru_maxrss cannot be set back; the kernel's own mark can
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def contenders(features: int) -> dict[tuple[str, str], tuple[Callable, str | None]]:
    """By side and name: the call, and what is missing for it."""
    wanted = cloud_cases.case_name(features)
    (case,) = [c for c in cloud_cases.cases() if c.name == wanted]
    everybody = case.contenders(rivals=True)
    # KeOps forms no matrix whatever the features, so one number of them says enough
    kept = ("native", "eager in blocks", *(("KeOps",) if features == min(cloud_cases.FEATURES) else ()))

    def with_setting(rival):
        return lambda *inputs: rival.run(*inputs, *rival.settings[:1])

    return {key: (with_setting(rival), rival.missing()) for key, rival in everybody.items() if key[1] in kept}


def _in_this_process(features: int, name: str) -> None:
    (run,) = [run for (_, known), (run, _) in contenders(features).items() if known == name]
    run(*cloud_cases.clouds(features, WARM_POINTS))
    inputs = cloud_cases.clouds(features)
    print(json.dumps(peak_extra(lambda: run(*inputs))))


def case_name(features: int) -> str:
    return f"peak extra memory, clouds {cloud_cases.POINTS} x {features}"


def measure(features: int, *, rivals: bool) -> list[dict]:
    """A row per contender, with ``megabytes`` or why there are none."""
    rows = []
    for (side, name), (_, missing) in contenders(features).items():
        if side == "rival" and not rivals:
            continue
        row = {
            "case": case_name(features),
            "reason": "what a call holds at its worst, beyond its inputs, in a process of its own",
            "series": MEMORY,
            "curve": "",
            "at": features,
            "side": side,
            "name": name,
            "targets": {"megabytes": MOST_MEGABYTES},
        }
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.operators.memory", str(features), name]
        if missing:
            rows.append(row | {"why": f"not installed: {missing}"})
            continue
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            rows.append(row | {"why": f"over {SECONDS} s"})
            continue
        if done.returncode:
            rows.append(row | {"why": (done.stderr.strip().splitlines() or ["it died"])[-1]})
        else:
            rows.append(row | {"megabytes": json.loads(done.stdout.splitlines()[-1]) / 1e6})
    return rows


def main() -> None:
    """Print the bytes of one contender's call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=int, choices=tuple(cloud_cases.FEATURES), help="of the clouds")
    parser.add_argument("name", help="of the contender, such as native")
    arguments = parser.parse_args()
    _in_this_process(arguments.features, arguments.name)


if __name__ == "__main__":
    main()
