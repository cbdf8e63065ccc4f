"""Peak memory of commands against the size of pictures, and against how many there are.

    python -m benchmarks.cost.memory_large --files runs/memory --out benchmarks/results/memory-large.json

Each command is a process of its own, and the peak that of its resident memory, libraries and models
included, as the kernel counts it: what else the machine does changes nothing about it. Runs that are in
``--out`` already are not repeated. Photographs of scikit-image, enlarged, are blended; the rendered world's
models draw and edit. Where ``eval`` has many edits, all are of a few small pictures, a method gives back the
picture and every measure is a constant: what is measured is what a run holds of its edits and results.
"""

import argparse
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import NamedTuple

from geokernels._files import write_json
from geokernels.environment import versions

from ..harness.machine import machine

MIB = 2**20
PHOTOGRAPHS = ("chelsea", "coffee")
DRAWN = ("--model", "world", "--prompt", "a red circle", "--prompt", "a blue star", "--distance", "none")
DRAWN += ("--steps", "1", "--batch", "4")


class Case(NamedTuple):
    """One run.

    Attributes:
        command: Of geokernels.
        side: Of its pictures, in pixels.
        count: How many there are.
    """

    command: str
    side: int
    count: int

    @property
    def name(self) -> str:
        """As results have it."""
        return f"{self.command}, {self.side} px, {self.count}"


CASES = (
    *(Case("blend", side, 3) for side in (1024, 2048, 4096)),
    *(Case("blend", 1024, count) for count in (12, 48)),
    *(Case("interpolate", 256, count) for count in (8, 32, 128)),
    *(Case("eval", side, 4) for side in (512, 4096)),
    *(Case("eval", 64, count) for count in (100, 1000, 10_000)),
)
THINGS = {"blend": "frames", "interpolate": "pictures", "eval": "edits"}


def photographs(folder: Path, side: int) -> list[Path]:
    """Two photographs of that size, made where they are missing."""
    from PIL import Image
    from skimage import data

    paths = [folder / f"{name}-{side}.png" for name in PHOTOGRAPHS]
    for name, path in zip(PHOTOGRAPHS, paths):
        if path.exists():
            continue
        image = Image.fromarray(getattr(data, name)()[..., :3])
        least = min(image.size)
        left, top = (image.width - least) // 2, (image.height - least) // 2
        whole = image.crop((left, top, left + least, top + least)).resize((side, side), Image.BICUBIC)
        partial = path.with_name(f"partial-{path.name}")
        whole.save(partial)
        partial.rename(path)
    return paths


def edits(folder: Path, case: Case) -> Path:
    """A folder of so many edits, all of a few pictures of that size; made where it is missing."""
    from PIL import Image

    from geokernels.world import write_edit_folder

    few, many = folder / "few-edits", folder / f"edits-{case.side}-{case.count}"
    if (many / "mapping_file.json").exists():
        return many
    write_edit_folder(few, 5, size=64)
    given = list(json.loads((few / "mapping_file.json").read_text(encoding="utf-8")).values())
    for entry in given:
        path = many / "annotation_images" / entry["image_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(few / "annotation_images" / entry["image_path"]) as image:
            image.resize((case.side, case.side), Image.NEAREST).save(path)
    entries = {f"{number:012d}": given[number % len(given)] for number in range(case.count)}
    write_json(many / "mapping_file.json", entries)
    return many


def make_files(folder: Path, case: Case) -> None:
    """What a run is given."""
    folder.mkdir(parents=True, exist_ok=True)
    if case.command == "blend":
        photographs(folder, case.side)
    elif case.command == "eval":
        edits(folder, case)


def arguments_of(folder: Path, case: Case) -> list[str]:
    """Of the command."""
    given = {
        "blend": lambda: [*map(str, photographs(folder, case.side)), "--frames", str(case.count)],
        "interpolate": lambda: [
            *DRAWN,
            *("--frames", str(case.count)),
            *("--height", str(case.side), "--width", str(case.side)),
        ],
        "eval": lambda: [str(edits(folder, case)), "--method", "no_edit", "--steps", "3", "--skip", "0"],
    }[case.command]()
    return [case.command, *given, "--out", str(folder / "out"), "--overwrite", "--device", "cpu"]


def evaluate_trivially(folder: Path, out: Path) -> None:
    """An evaluation whose edits are the pictures, of 16 pixels, and whose measures are constants."""
    from geokernels.metrics.summary import BETTER
    from geokernels.models import load_clip, load_diffusion
    from geokernels.pipelines.comparators import EditMethod, EditModels
    from geokernels.pipelines.comparators.no_edit import NoEditConfig
    from geokernels.runs.edit_batch import Contender, Plan
    from geokernels.runs.evaluate import EvalFolder, EvalJob
    from geokernels.runs.loop import drive
    from geokernels.runs.measures import Measures
    from geokernels.world import read_edit_folder

    class Constant(Measures):
        """Measures nothing."""

        def __call__(self, case, source, edit):
            return dict.fromkeys(BETTER, 0.5)

    given = EditMethod("given back", NoEditConfig, lambda models, task, settings: task.pictures)
    plan = Plan([Contender("given", given, NoEditConfig())], steps=2, skip=0, batch=50, size=16)
    measures = Constant(load_clip("world"), None, None, {"structure": "none", "perceptual": "none"})
    cases, results = read_edit_folder(folder), EvalFolder(out, ("given",))
    facts = {"model": "world", "encoders": [], "seeds": [0], "decoder": None, "dtype": "float32"}
    with results.claim(resume=False, overwrite=True):
        models = EditModels(load_diffusion("world"))
        drive(EvalJob(plan, lambda: cases, models, measures, results, facts=facts))


def peak_of(folder: Path, case: Case) -> int:
    """The peak of one run, in MiB.

    Raises:
        RuntimeError: If it fails.
    """
    # by itself: to the kernel, the peak of a process is never below that of the one that began it
    making = multiprocessing.get_context("spawn").Process(target=make_files, args=(folder, case))
    making.start()
    making.join()
    if making.exitcode:
        raise RuntimeError(f"the files of {case.name} could not be made")
    command = [sys.executable, "-m", "geokernels", *arguments_of(folder, case)]
    if case.command == "eval" and case.count > 4:
        command[2:] = [f"{__package__}.memory_large", *map(str, (edits(folder, case), folder / "out"))]
        command.insert(3, "--trivially")
    print(" ".join(command[2:]), flush=True)
    pid = os.spawnve(os.P_NOWAIT, sys.executable, command, {**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"geokernels {case.name} ended with {os.waitstatus_to_exitcode(status)}")
    return round(usage.ru_maxrss * 1024 / MIB)


def as_markdown(results: dict) -> str:
    """Of every command, the peak against size and count."""
    lines = ["| command | pictures of | how many | peak MiB |", "|---|---|---|---|"]
    for name, peak in results["peaks"].items():
        command, side, count = name.split(", ")
        lines.append(f"| `{command}` | {side} | {int(count):,} {THINGS[command]} | {peak:,} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--trivially"]:
        evaluate_trivially(*map(Path, sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=Path, required=True, help="folder of what runs are given, and leave")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("cases", nargs="*", help="run those whose names begin so alone, again if need be")
    args = parser.parse_args()
    names = [case.name for case in CASES]
    if unknown := [word for word in args.cases if not any(name.startswith(word) for name in names)]:
        parser.error(f"a run must be one of {'; '.join(names)}, got {unknown[0]!r}")
    peaks = json.loads(args.out.read_text(encoding="utf-8"))["peaks"] if args.out.exists() else {}
    for case in CASES:
        if any(case.name.startswith(word) for word in args.cases) if args.cases else case.name not in peaks:
            peaks[case.name] = peak_of(args.files, case)
            ordered = {name: peaks[name] for name in names if name in peaks}
            write_json(args.out, {"peaks": ordered, "machine": machine(), "versions": versions()})
            print(as_markdown({"peaks": ordered}), flush=True)


if __name__ == "__main__":
    main()
