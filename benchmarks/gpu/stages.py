"""What is done on a GPU: stages in their order, the minutes of each, and its commands."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")


class Place(NamedTuple):
    """Where things are.

    Attributes:
        python: The interpreter that has torch.
        out: Folder for logs and results.
        site: Folder that brought wheels are unpacked into; the machine's own packages stay as they are.
        wheels: Folder with wheels, or None.
        tag: Of the interpreter, such as ``cp311``; None where it was not asked.
        workers: Processes for tests, 1 where pytest cannot share them out.
    """

    python: str
    out: Path
    site: Path
    wheels: Path | None = None
    tag: str | None = None
    workers: int = 1

    def brought(self) -> tuple[Path | None, list[Path]]:
        """The wheel of geokernels in the folder, and the others."""
        every = sorted(self.wheels.glob("*.whl")) if self.wheels else []
        own = [path for path in every if path.name.startswith("geokernels-")]
        fitting = [path for path in own if self.tag is None or is_for(path, self.tag)]
        return (fitting or [None])[-1], [path for path in every if path not in own]


def is_for(wheel: Path, tag: str) -> bool:
    """Whether a wheel is for an interpreter: by its own tag, or by the stable ABI of an earlier one."""
    python, abi, _ = wheel.stem.split("-")[-3:]
    if abi == "abi3" and tag[2:].isdigit():
        return int(python[2:]) <= int(tag[2:])
    return python == tag


class Command(NamedTuple):
    """One thing that a stage runs.

    Attributes:
        what: Its name, by which a later run knows that it passed.
        words: What is called.
        settings: Variables of the environment that are another for it.
    """

    what: str
    words: list[str]
    settings: Mapping[str, str] = MappingProxyType({})


class Stage(NamedTuple):
    """Attributes: the most minutes it may take, and its commands at a place."""

    minutes: Callable[[Place], float]
    commands: Callable[[Place], list[Command]]


LOADS = "from geokernels.kernels import native; print(native.__file__); raise SystemExit(native.missing_cuda)"
KERNEL = re.compile(r"^def (\w+_kernel)\(", re.MULTILINE)


def build(place: Place) -> list[Command]:
    """Unpack what was brought, and compile only where no wheel of geokernels was."""
    own, others = place.brought()
    wheels = [str(path) for path in (own, *others) if path]
    pip = [place.python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--upgrade"]
    commands = [Command("unpack", [*pip, "--target", str(place.site), *wheels])] if wheels else []
    if own is None:
        # with the numbers of lines, which wheels lack: the sanitizers name them
        words = [place.python, "setup.py", "build_ext", "--inplace"]
        commands.append(Command("compile", words, {"NVCC_APPEND_FLAGS": "-lineinfo"}))
    return [
        *commands,
        Command("load", [place.python, "-c", LOADS]),
        Command("doctor", [place.python, "-m", "geokernels", "doctor"]),
    ]


def _pytest(place: Place, name: str, *words: str) -> list[str]:
    """Tests, a line for each as it ends: a run that is ended half-way leaves what it had."""
    shared = ["-n", str(place.workers), "--dist", "loadfile"] if place.workers > 1 else []
    report = f"--junitxml={place.out / name}.xml"
    plain = ["-v", "--maxfail", "25", "-p", "no:cacheprovider", report]
    return [place.python, "-m", "pytest", *plain, *shared, *words]


def operators(place: Place) -> list[Command]:
    """The CUDA library against the definition, then every operator's own tests on the GPU."""
    library, own = "tests/kernels/test_cuda_library.py", ["--device", "cuda", "tests/ops"]
    return [
        Command("CUDA library", _pytest(place._replace(workers=1), "library", "--device", "cuda", library)),
        Command("operators", _pytest(place, "operators", *own)),
    ]


def sanitizers(place: Place) -> list[Command]:
    """Every kernel at small sizes under every tool of compute-sanitizer."""
    # each tensor in memory of its own: what lies beside it in torch's pool is not free to be read
    settings = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    brought = sorted(place.site.glob("nvidia/*/bin/compute-sanitizer"))
    tool = shutil.which("compute-sanitizer") or str((brought or ["compute-sanitizer"])[0])
    check = [tool, "--error-exitcode", "9", "--print-limit", "20", "--report-api-errors", "no"]
    kernels = {"small": ["kernel_substring=geokernels"], "small_triton": triton_kernels()}
    commands = []
    for name in SANITIZERS:
        for module, ours in kernels.items():
            # what torch's kernels wrote counts as written only where these are watched as well
            watched = [] if name == "initcheck" else [f"--kernel-name={kernel}" for kernel in ours]
            margin = ["--padding=256"] if name == "memcheck" else []
            words = [
                *check,
                "--tool",
                name,
                *margin,
                *watched,
                place.python,
                "-m",
                f"benchmarks.gpu.{module}",
            ]
            commands.append(Command(f"{name} {module}", words, settings))
    return commands


def triton_kernels() -> list[str]:
    """Filters by which the package's own are watched, and not torch's."""
    files = sorted((ROOT / "geokernels/kernels/triton").glob("*.py"))
    return [f"kernel_name={name}" for file in files for name in KERNEL.findall(file.read_text())]


def proof(place: Place) -> list[Command]:
    """What ``backend=None`` goes by, as a user's own card proves it."""
    tune = [place.python, "-m", "geokernels", "tune", "--again", "--json", str(place.out / "proof.json")]
    return [Command("tune", tune, {"GEOKERNELS_PROOF": "on"})]


def triton(place: Place) -> list[Command]:
    # these put on the GPU what belongs there, and hold it to the definition on the CPU
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/kernels/test_triton_*.py"))
    return [Command("triton", _pytest(place, "triton", "-m", "not slow", *files))]


def timings(place: Place) -> list[Command]:
    """Ours and the rivals that are there, written after each case, and gone on with by the next run."""
    measure = [place.python, "-m", "benchmarks.run", "--device", "cuda", "--rivals", "--resume"]
    return [Command("bench", [*measure, "--json", str(place.out / "gpu.json")])]


STAGES = {
    "build": Stage(lambda place: 1 if place.brought()[0] else 4, build),
    "operators": Stage(lambda place: 2.5, operators),
    "sanitizers": Stage(lambda place: 3, sanitizers),
    "proof": Stage(lambda place: 1.5, proof),
    "triton": Stage(lambda place: 1.5, triton),
    "timings": Stage(lambda place: 3, timings),
}
ALWAYS = ("build",)  # its work is gone with the machine, and the others need it
KEPT = ("gpu.json",)  # what a stage goes on with


def plan(chosen: list[str], place: Place, minutes: float) -> list[list[str]]:
    """Stages in their order, cut into runs of at most so many minutes, if each takes as long as it may.

    Every run but the first builds once more, if the first did.
    """
    runs, left = [[]], minutes
    for name in chosen:
        asked = STAGES[name].minutes(place)
        if asked > left and runs[-1]:
            again = [other for other in ALWAYS if other in chosen]
            runs.append(again)
            left = minutes - sum(STAGES[other].minutes(place) for other in again)
        runs[-1].append(name)
        left -= asked
    return runs
