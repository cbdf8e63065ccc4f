"""Builds, tests, sanitizes, proves and times the GPU's kernels where there is an NVIDIA GPU and no network.

    benchmarks/gpu/checklist.sh [--dry-run] [--wheels FOLDER] [--earlier FOLDER] [--minutes 10] [STAGE ...]

Made for a quarter of an hour of a GPU, in runs of at most ten minutes. Bring a wheel: ``python -m
benchmarks.gpu.bring FOLDER`` fills the folder that ``--wheels`` names; without one, the kernels are compiled
there, with nvcc, and it takes longer. Python needs torch (and triton, scipy, typer, rich, pytest, hypothesis;
ninja to compile).

Stages run in their order, all of them if none is named; each has its most minutes and is ended then, whatever
hangs. One is begun only if the run has as many left. ``checklist.json`` under $OUT (or build/gpu) is written
after every command, beside STAGE.log and what stages write themselves. The next run goes on there, or from
the folder that ``--earlier`` names: what passed on the same sources and GPU is not done again.

A table comes last. The exit code is 0 where everything has passed, 1 where not, 2 where nothing was possible.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from .sources import LIBRARY, ROOT, TREE, commit, digest
from .stages import ALWAYS, KEPT, STAGES, Command, Place, plan

MINUTES = 10  # of a run
FILE = "checklist.json"
LEAST = 5  # seconds left in which nothing is worth beginning
PROBE = """
import importlib.util, json, subprocess, sys, torch
def has(name): return importlib.util.find_spec(name) is not None
driver = "--query-gpu=driver_version --format=csv,noheader"
facts = {
    "gpu": torch.cuda.get_device_name(),
    "capability": "{}.{}".format(*torch.cuda.get_device_capability()),
    "torch": torch.__version__,
    "triton": __import__("triton").__version__ if has("triton") else None,
    "python": "{}.{}".format(*sys.version_info),
    "shares_out": has("xdist"),
}
try:
    answer = subprocess.run(["nvidia-smi", *driver.split()], capture_output=True, text=True).stdout
    facts["driver"] = answer.split()[0]
except (OSError, IndexError):
    facts["driver"] = None
print(json.dumps(facts))
"""


def machine(python: str) -> dict | None:
    """GPU, capability, driver and versions; None where torch sees no GPU."""
    done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except (ValueError, IndexError):
        return None


def environment(place: Place, here: dict) -> dict[str, str]:
    """What was brought first, then the clone; the GPU's architecture alone; nothing is proved unasked."""
    paths = [str(place.site), str(ROOT), os.environ.get("PYTHONPATH", "")]
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "FORCE_CUDA": "1",
        "GEOKERNELS_PROOF": "off",
        "BENCHMARK_COMMIT": here["commit"] or "",
    }
    return {"TORCH_CUDA_ARCH_LIST": here["capability"]} | os.environ | settings


def run(command: Command, log: Path, settings: dict[str, str], seconds: float) -> int:
    """Run one command; its exit code, 124 where its time was up, 127 where there is no such."""
    with log.open("a") as file:
        print("$", *command.words, file=file, flush=True)
        try:
            process = subprocess.Popen(
                command.words,
                cwd=ROOT,
                env=settings | dict(command.settings),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children end with it
            )
        except OSError as error:
            print(error, file=file)
            return 127
        try:
            return process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return 124
        finally:
            if process.poll() is None:  # too late, or we are stopped ourselves
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Record:
    """What has been done: ``checklist.json``, written whole after every command."""

    def __init__(self, folder: Path, here: dict, earlier: Path | None) -> None:
        self.path, self.here, self.stages = folder / FILE, here, {}
        for file in (self.path, earlier / FILE if earlier else None):
            if file and file.exists() and not self.stages:
                self._take_over(file)

    def _take_over(self, file: Path) -> None:
        try:
            found = json.loads(file.read_text())
            other = [
                key for key, value in self.here.items() if key != "commit" and found["machine"][key] != value
            ]
            stages = {name: found["stages"][name] for name in STAGES if name in found["stages"]}
        except (ValueError, KeyError, TypeError) as error:
            print(f"{file} is no record of this checklist ({error!r}): begun anew")
            return
        if other:
            print(f"{file} is of another {', '.join(other)}: begun anew")
            return
        self.stages = stages
        for name in KEPT:
            if (file.parent / name).exists() and not (self.path.parent / name).exists():
                shutil.copy(file.parent / name, self.path.parent / name)

    def passed(self, stage: str) -> bool:
        """Whether a stage need not be done again."""
        return stage not in ALWAYS and self.stages.get(stage, {}).get("result") == "passed"

    def begin(self, stage: str) -> dict[str, dict]:
        """The commands of a stage that have been run, to add to."""
        before = {} if stage in ALWAYS else self.stages.get(stage, {}).get("commands", {})
        commands = {what: done for what, done in before.items() if done["code"] == 0}
        self.stages[stage] = {"result": "ended half-way", "seconds": 0.0, "last": "", "commands": commands}
        return commands

    def write(self) -> None:
        """Replace the file whole: who is killed meanwhile leaves the one before."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"machine": self.here, "stages": self.stages}, indent=1) + "\n")
        os.replace(partial, self.path)


def perform(name: str, place: Place, settings: dict[str, str], record: Record, until: float) -> str:
    """Run what is left of a stage; its result."""
    start, log = time.monotonic(), place.out / f"{name}.log"
    until = min(until, start + 60 * STAGES[name].minutes(place))
    done = record.begin(name)
    stage, results = record.stages[name], []
    record.write()
    for command in STAGES[name].commands(place):
        if command.what in done:
            continue
        began = time.monotonic()
        code = run(command, log, settings, until - began)
        results.append({0: "passed", 124: "timed out"}.get(code, f"failed {code}"))
        done[command.what] = {"code": code, "seconds": round(time.monotonic() - began, 1)}
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        stage["last"], stage["seconds"] = lines[-1][:100], round(time.monotonic() - start, 1)
        record.write()
        # of a build every step needs the one before; elsewhere what failed says nothing of the next
        if code == 124 or (code != 0 and name in ALWAYS):
            break
    stage["result"] = next((result for result in results if result != "passed"), "passed")
    record.write()
    return stage["result"]


def table(record: Record, chosen: list[str], notes: dict[str, str]) -> str:
    """A line for every stage, and one for every command that failed."""
    lines = [f"{'stage':11} {'result':14} {'seconds':>8}  last line"]
    for name in chosen:
        stage = record.stages.get(name, {"result": "not begun", "seconds": 0.0, "last": "", "commands": {}})
        result = notes.get(name) or stage["result"]
        lines.append(f"{name:11} {result:14} {stage['seconds']:8.0f}  {stage['last']}")
        failed = {what: done["code"] for what, done in stage["commands"].items() if done["code"] != 0}
        lines += [f"  {what}: {'timed out' if code == 124 else code}" for what, code in failed.items()]
    return "\n".join(lines)


def brought(place: Place) -> dict:
    """What the folder of wheels says of its own; empty where it says nothing."""
    try:
        return dict(json.loads((place.wheels / "brought.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def refuse_wheel(place: Place) -> str | None:
    """Say why the wheel that was brought is not of these sources."""
    if place.wheels is None or not (every := sorted(place.wheels.glob("geokernels-*.whl"))):
        return None
    anew = f"python -m benchmarks.gpu.bring {place.wheels} builds it anew"
    own, _ = place.brought()
    if own is None:
        return f"{every[-1].name} must be for Python {place.tag}; {anew} where that is the Python"
    if brought(place).get("library") != digest(*LIBRARY):
        return f"{own.name} must be of these sources; {anew}"
    return None


def show_plan(chosen: list[str], place: Place, minutes: float) -> None:
    """Print runs, stages and commands with the most minutes that each takes."""
    total = 0.0
    for number, names in enumerate(plan(chosen, place, minutes), 1):
        asked = sum(STAGES[name].minutes(place) for name in names)
        total += asked
        print(f"run {number}: at most {asked:g} minutes")
        for name in names:
            print(f"  {name}: at most {STAGES[name].minutes(place):g} minutes")
            for command in STAGES[name].commands(place):
                print(f"    {command.what}:", *command.words)
    print(f"in all at most {total:g} minutes, and what starting the machine takes")


def options(arguments: list[str] | None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="checklist", description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", help=" ".join(STAGES))
    parser.add_argument("--dry-run", action="store_true", help="Print the plan with its minutes alone.")
    parser.add_argument("--wheels", type=Path, help="Folder that benchmarks.gpu.bring filled.")
    parser.add_argument("--earlier", type=Path, help="Folder with the results of a run before.")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="Of this run, at most; 10 by default.")
    given = parser.parse_args(arguments)
    if unknown := [stage for stage in given.stages if stage not in STAGES]:
        parser.error(f"stages must be among {', '.join(STAGES)}, got {', '.join(unknown)}")
    if given.wheels and not given.wheels.is_dir():
        parser.error(f"--wheels must be a folder, got {given.wheels}")
    return given


def perform_all(chosen: list[str], place: Place, record: Record, until: float) -> dict[str, str]:
    """Every stage that has not passed and that there is time for; notes of those that were not begun."""
    settings, notes, stopped = environment(place, record.here), {}, False
    for name in chosen:
        left = until - time.monotonic()
        if record.passed(name):
            notes[name] = "passed before"
        elif stopped or left < 60 * STAGES[name].minutes(place):
            notes[name] = "not begun"
            stopped = stopped or name in ALWAYS
        else:
            result = perform(name, place, settings, record, until - LEAST)
            print(f"{name}: {result}", flush=True)
            if result != "passed":
                print((place.out / f"{name}.log").read_text(errors="replace")[-3000:])
                stopped = name in ALWAYS
    return notes


def main(arguments: list[str] | None = None) -> int:
    """The chosen stages, then the table."""
    start, given = time.monotonic(), options(arguments)
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu")
    python = os.environ.get("PYTHON", sys.executable)
    place = Place(python, out, ROOT / "build" / "gpu-site", given.wheels)
    chosen = [stage for stage in STAGES if stage in given.stages or not given.stages]
    if given.dry_run:
        show_plan(chosen, place, given.minutes)
        return 0
    here = machine(python)
    if here is None:
        print(f"the checklist needs a GPU, the torch of {python} sees none", file=sys.stderr)
        return 2
    shares_out = here.pop("shares_out", False) or any("xdist" in path.name for path in place.brought()[1])
    workers = min(8, (os.cpu_count() or 2) // 2) if shares_out else 1
    place = place._replace(tag=f"cp{here['python'].replace('.', '')}", workers=workers)
    if reason := refuse_wheel(place):
        print(reason, file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    known = commit() or (brought(place).get("commit") if given.wheels else None)
    record = Record(out, here | {"sources": digest(*TREE), "commit": known}, given.earlier)
    notes = perform_all(chosen, place, record, start + 60 * given.minutes)
    print(table(record, chosen, notes))
    if not all(record.stages.get(name, {}).get("result") == "passed" for name in chosen):
        print("run it again: what passed on these sources and this GPU is not done again")
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
