"""Commands of the command line, small, each in a process of its own that starts at once and can be killed."""

import csv
import hashlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

RED, BLUE = (
    "a large plain red circle on a white background",
    "a large plain blue circle on a white background",
)
# of records: what no two runs share, and checksums of files in which such things stand
VOLATILE = {
    "seconds",
    "steps_per_second",
    "per_second",
    "peak_memory_mib",
    "machine",
    "versions",
    "seal",
    "made",
}
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
PAGES = (".html", ".md")  # hold times


def commands(given: Path) -> dict[str, list[str]]:
    """The arguments of each command, without ``--out``; ``given`` is what :func:`write_inputs` made."""
    texts, picture = ["--from", RED, "--to", BLUE], str(given / "source.png")
    edited = ["--steps", "6", "--size", "64"]
    quick = ["--no-start", "--set", "views=2"]
    windows = ["--set", "crops=2", "--set", "screen_views=2"]
    return {
        "demo": ["demo"],
        "morph": ["morph", picture, *texts, "--steps", "12", *quick],
        "morph, layered": [
            "morph",
            picture,
            *texts,
            "--method",
            "text2live",
            "--steps",
            "8",
            *quick,
            *windows,
        ],
        "adapt": [
            "adapt",
            *texts,
            "--steps",
            "6",
            "--pool",
            "8",
            "--real",
            picture,
            "--real-steps",
            "4",
            "--no-start",
        ],
        "video": [
            *("video", str(given / "clip"), *texts, "--masks", str(given / "masks"), "--steps", "4"),
            *("--config", str(given / "atlas.yaml"), *quick, *windows),
        ],
        "interpolate": [
            *("interpolate", "--prompt", "a red circle", "--prompt", "a blue star", "--frames", "4"),
            *("--steps", "2", "--batch", "1"),
        ],
        "blend": [
            *("blend", picture, str(given / "other.png"), "--frames", "9", "--set", "matching.points=16"),
            *("--set", "matching.first=16", "--set", "palette=32"),
        ],
        "edit": ["edit", picture, *texts, *edited],
        "eval": [
            "eval",
            "--world",
            "3",
            "--steps",
            "4",
            "--batch",
            "1",
            "--method",
            "ddim_swap",
            "--size",
            "64",
        ],
        "sample scenes": ["world", "sample", "scenes", "--count", "96"],
        "sample clips": ["world", "sample", "clips", "--count", "4", "--frames", "4", "--size", "32"],
    }


RESUMED_BY_ITSELF = ("demo",)  # has no --resume: it begins again


# settings of a small fit
ATLAS = """
atlas:
  steps: 40
  samples: 128
  learning_rate: 0.02
  bootstrap: 1.0
  bootstrapped: 2.0
  shape: {width: 16, layers: 2, map_layers: 1, octaves: 3}
"""


def write_inputs(given: Path) -> None:
    """A picture and a clip of the rendered world, with masks, and settings of the clip's atlas."""
    import torch

    from geokernels import world
    from geokernels.media.pictures import write_picture

    scene = world.sample_scenes(1, generator=torch.Generator().manual_seed(0))
    write_picture(given / "source.png", world.render(scene)[0])
    other = world.render(world.sample_scenes(1, generator=torch.Generator().manual_seed(2)))[0]
    write_picture(given / "other.png", other[:, :40])
    (given / "atlas.yaml").write_text(ATLAS)
    clip = world.render_clip(scene, 4, 32, generator=torch.Generator().manual_seed(1))
    for i, (frame, mask) in enumerate(zip(clip.frames, clip.masks)):
        write_picture(given / "clip" / f"{i}.png", frame)
        write_picture(given / "masks" / f"{i}.png", mask.expand(3, -1, -1))


def preload() -> None:
    """Import what the commands import, and compute nothing: threads do not survive a fork."""
    import av  # noqa: F401
    import cv2
    import diffusers  # noqa: F401
    import open_clip  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401
    import transformers  # noqa: F401

    import geokernels.cli
    import geokernels.pipelines.comparators
    import geokernels.runs.adapt
    import geokernels.runs.blend
    import geokernels.runs.demo
    import geokernels.runs.edit
    import geokernels.runs.evaluate
    import geokernels.runs.interpolate
    import geokernels.runs.samples
    import geokernels.runs.video  # noqa: F401

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def make_small() -> None:
    """Let commands that have no such options do little, and save often."""
    from geokernels.pipelines import BlendConfig, ClipInversionConfig, MatchingConfig
    from geokernels.runs import adapt, blend, demo, edit, morph, video

    morphs = ClipInversionConfig(recipe="world", steps=2, views=2, guess=2.0)
    film = BlendConfig(recipe="world", frames=3, palette=32, matching=MatchingConfig(points=8, first=8))
    small = {"walk": 9, "line": 2, "prompts": 2, "steps": 2, "blend": film}
    demo.DemoConfig = partial(demo.DemoConfig, ("colour",), morphs, **small)
    morph.MorphJob.every = adapt.AdaptJob.every = edit.EditJob.every = blend.BlendJob.every = 2
    video.VideoJob.every = 5


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: Of the exit; negative for the signal that killed it.
        said: On stderr.
    """

    code: int
    said: str

    @property
    def traceback(self) -> bool:
        """Whether it ended in a way that no user should see."""
        crashed = self.code < 0 and -self.code not in SIGNALS
        return crashed or self.code in (70, 99) or "Traceback" in self.said

    @property
    def refused(self) -> bool:
        """Whether it ended by a sentence about its input."""
        return self.code == 2 and "Error: " in self.said and not self.traceback


class Process:
    """Something that runs in a fork of this process.

    Args:
        work: What to do; :func:`command` for a command.
        log: File for what it says on stderr.
        largest: Bytes that a file may have, as on a disk that is full; None for any number.

    Attributes:
        seconds: Of the processor, once it has ended; how busy the machine is does not count.
    """

    def __init__(self, work: Callable[[], None], log: Path, *, largest: int | None = None):
        self.log, self.seconds = log, 0.0
        self.pid = os.fork()
        if self.pid == 0:
            _run(work, log, largest)  # never returns

    def kill(self, number: int) -> None:
        """Send a signal; it may have ended."""
        os.kill(self.pid, number)

    def reach(self, seconds: float) -> None:
        """Wait until it has used so many seconds of the processor, or has ended."""
        stat, ticks = Path(f"/proc/{self.pid}/stat"), os.sysconf("SC_CLK_TCK")
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            # what comes after the name, in parentheses, has no spaces
            used = stat.read_text().rpartition(")")[2].split()[11:13]
            if sum(map(int, used)) / ticks >= seconds:
                return
            time.sleep(0.01)

    def wait(self) -> Ended:
        """Wait for its end."""
        _, status, used = os.wait4(self.pid, 0)
        self.seconds = used.ru_utime + used.ru_stime
        return Ended(os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace"))


def command(arguments: list[str]) -> Callable[[], None]:
    """A command, small."""

    def work() -> None:
        make_small()
        sys.argv = ["geokernels", *arguments]
        from geokernels.cli import main

        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            main()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    return work


def _run(work: Callable[[], None], log: Path, largest: int | None) -> None:
    code = 99
    try:
        for number in SIGNALS[1:]:
            signal.signal(number, signal.SIG_DFL)
        err = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        if largest is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
        work()
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def contents(folder: Path) -> dict[str, object]:
    """What a finished run left, by name, without what no two runs share."""
    return {
        str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _content(path: Path) -> object:
    if path.suffix in PAGES:
        return "text with times"
    if path.suffix == ".json":
        return _lasting(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_lasting(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(path.read_text()))
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lasting(value: object) -> object:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in VOLATILE}
        timed = (*PAGES, ".csv", ".json", ".jsonl")
        return {k: _lasting(v) for k, v in kept.items() if not k.endswith(timed)}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def differences(folder: Path, whole: Path) -> list[str]:
    """Names of what differs from an uninterrupted run."""
    ours, theirs = contents(folder), contents(whole)
    return sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
