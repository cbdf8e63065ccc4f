"""Builds, tests, sanitizes and times the GPU's kernels, on a machine with an NVIDIA GPU and no network.

    benchmarks/gpu/checklist.sh [--dry-run] [--wheels FOLDER] [build|tests|triton|sanitizer|bench ...]

Needs a Python with torch (and triton, pybind11, ninja, pytest, hypothesis, scipy, typer, rich), and nvcc; the
sanitizer stage compute-sanitizer. Stages run in the order given, all of them if none is; ``build`` comes
before the others, once. Each ends within ``SECONDS``, whatever hangs. Rivals that are not installed are taken
from the wheels in FOLDER, if they are there.

Under $OUT (or build/gpu): STAGE.log, STAGE.json, and what the stage itself writes. A table comes last; the
exit code is 1 if a stage failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 480  # of a stage; a lease of such a machine allows ten minutes a command
Command = list[str]


@dataclass(frozen=True)
class Place:
    """Where things are.

    Attributes:
        python: The interpreter that has torch.
        out: Folder for logs and results.
        wheels: Folder with wheels of rivals, or None.
    """

    python: str
    out: Path
    wheels: Path | None


def _install(place: Place) -> list[Command]:
    """Unpack carried wheels beside the results; the machine's own packages stay as they are."""
    if place.wheels is None:
        return []
    wheels = sorted(str(path) for path in place.wheels.glob("*.whl"))
    pip = [place.python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--upgrade"]
    return [[*pip, "--target", str(place.out / "site"), *wheels]] if wheels else []


def build(place: Place) -> list[Command]:
    return [
        [place.python, "setup.py", "build_ext", "--inplace"],
        [place.python, "-c", "from geokernels.cli import main; main()", "doctor"],
        [place.python, "scripts/inspect_cuda.py", "--json", str(place.out / "kernels.json")],
    ]


def tests(place: Place) -> list[Command]:
    pytest = [place.python, "-m", "pytest", "-q", "--device", "cuda", "-p", "no:cacheprovider"]
    return [
        [*pytest, f"--junitxml={place.out / 'tests.xml'}", "tests/ops", "tests/kernels/test_cuda_library.py"]
    ]


def triton(place: Place) -> list[Command]:
    # these put on the GPU what belongs there, and hold it to the definition on the CPU
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/kernels/test_triton_*.py"))
    return [[place.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files]]


def sanitizer(place: Place) -> list[Command]:
    check = ["compute-sanitizer", "--error-exitcode", "9", "--print-limit", "20"]
    kernels = [place.python, "-m", "benchmarks.gpu.small"]
    return [[*check, "--tool", tool, *kernels] for tool in ("memcheck", "racecheck")]


def bench(place: Place) -> list[Command]:
    measure = [place.python, "-m", "benchmarks.run", "--device", "cuda", "--rivals", "--resume"]
    return [*_install(place), [*measure, "--json", str(place.out / "gpu.json")]]


STAGES: dict[str, Callable[[Place], list[Command]]] = {
    stage.__name__: stage for stage in (build, tests, triton, sanitizer, bench)
}


def environment(place: Place) -> dict[str, str]:
    """The clone's own package first, then carried wheels; one architecture, that of the GPU at hand."""
    paths = [str(ROOT), str(place.out / "site"), os.environ.get("PYTHONPATH", "")]
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "FORCE_CUDA": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return os.environ | settings


def architecture(python: str) -> str | None:
    """The compute capability of the GPU, such as ``9.0a``; None where torch sees none."""
    ask = "import torch; print(*torch.cuda.get_device_capability(), sep='.')"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    if done.returncode != 0:
        return None
    capability = done.stdout.split()[-1]
    # from Hopper on, an architecture's own instructions have a name of their own
    return f"{capability}a" if int(capability.split(".")[0]) >= 9 else capability


def run(commands: list[Command], log: Path, settings: dict[str, str], seconds: float) -> tuple[int, float]:
    """Run commands one after the other until one fails or the time is up.

    Returns:
        The exit code of the last one, 124 for one that was ended, and the seconds all took.
    """
    start = time.monotonic()
    with log.open("w") as file:
        for command in commands:
            print("$", *command, file=file, flush=True)
            left = seconds - (time.monotonic() - start)
            try:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=settings,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that its children end with it
                )
            except OSError as error:
                print(error, file=file)
                return 127, time.monotonic() - start
            try:
                code = process.wait(max(left, 0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = 124
            if code != 0:
                break
    return code, time.monotonic() - start


def table(results: list[dict]) -> str:
    """A line for every stage."""
    lines = [f"{'stage':10} {'result':10} {'seconds':>8}  last line"]
    for result in results:
        lines.append(f"{result['stage']:10} {result['result']:10} {result['seconds']:8.0f}  {result['last']}")
    return "\n".join(lines)


def perform(stage: str, place: Place, settings: dict[str, str]) -> dict:
    """Run one stage and write what came of it."""
    log = place.out / f"{stage}.log"
    code, seconds = run(STAGES[stage](place), log, settings, SECONDS)
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    result = {0: "passed", 124: "timed out"}.get(code, f"failed {code}")
    outcome = {"stage": stage, "result": result, "seconds": seconds, "last": lines[-1][:100] if lines else ""}
    (place.out / f"{stage}.json").write_text(json.dumps(outcome | {"code": code}) + "\n")
    return outcome


def main(arguments: list[str] | None = None) -> int:
    """The chosen stages, then the table; 0 if all passed, 1 if not, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", help=" ".join(STAGES))
    parser.add_argument("--dry-run", action="store_true", help="Print the commands alone.")
    parser.add_argument("--wheels", type=Path, help="Folder with wheels of rivals.")
    options = parser.parse_args(arguments)
    if unknown := [stage for stage in options.stages if stage not in STAGES]:
        parser.error(f"stages must be among {', '.join(STAGES)}, got {', '.join(unknown)}")
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu")
    place = Place(os.environ.get("PYTHON", sys.executable), out, options.wheels)
    chosen = options.stages or list(STAGES)
    if options.dry_run:
        for stage in chosen:
            for command in STAGES[stage](place):
                print(f"{stage}:", *command)
        return 0
    settings = environment(place)
    if "TORCH_CUDA_ARCH_LIST" not in settings:
        capability = architecture(place.python)
        if capability is None:
            print(f"the checklist needs a GPU, the torch of {place.python} sees none", file=sys.stderr)
            return 2
        settings["TORCH_CUDA_ARCH_LIST"] = capability
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for stage in chosen:
        results.append(perform(stage, place, settings))
        if results[-1]["result"] != "passed":
            print((out / f"{stage}.log").read_text(errors="replace")[-4000:])
    print(table(results))
    return 0 if all(capability["result"] == "passed" for capability in results) else 1


if __name__ == "__main__":
    sys.exit(main())
