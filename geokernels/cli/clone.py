"""Runs what stands in ``benchmarks/`` and ``training/`` of a clone, in a process of its own.

They are no part of the installed package, and nothing of it imports them: what a command asks for runs as
``python -m geokernels.cli.in_clone MODULE``, in the same terminal, and its exit code is the command's.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CARDS, PICTURES = "docs/model-cards", "docs/pictures"
# scripts of each model, with the options that choose it
TRAININGS = {
    "clip": ("clip",),
    "evaluation-clip": ("clip", "--model", "evaluation"),
    "vae": ("vae",),
    "diffusion": ("diffusion",),
    "flow": ("flow",),
    "generator": ("generator",),
}
EVALUATIONS = {
    "clip": ("evaluate_clip",),
    "evaluation-clip": ("evaluate_clip", "--model", "evaluation"),
    "judge": ("evaluate_judge",),
    "generator": ("evaluate_generator",),
    "diffusion": ("evaluate_diffusion",),
    "flow": ("evaluate_flow",),
}
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNCOMPARED = ("loading",)  # blocks of timings, which no two runs share


class Block(NamedTuple):
    """One measured block of a model card."""

    card: str
    path: str
    name: str
    text: str
    differs: bool  # from what the card in the clone says


class Stopped(Exception):  # noqa: N818
    """A script of the clone ended with another exit code than 0, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def run_benchmarks(options: list[str]) -> None:
    """Run the benchmarks of the clone.

    Raises:
        ValueError: If there is no clone to run them from.
        Stopped: If they end with another exit code than 0.
    """
    root = _clone("bench needs", "benchmarks/run.py")
    _run(root, "benchmarks.run", options, called="geokernels bench", extra="bench")


def run_training(name: str, options: list[str]) -> None:
    """Run a training of :data:`TRAININGS`.

    Raises:
        ValueError: If there is no clone to run it from.
        Stopped: If it ends with another exit code than 0.
    """
    script, *chosen = TRAININGS[name]
    root = _clone("training and evaluation need", "training/__init__.py")
    _run(root, f"training.{script}", [*chosen, *options], called=f"geokernels world train {name}")


def evaluate_model(name: str, options: list[str], *, write: bool) -> list[Block]:
    """Run an evaluation of :data:`EVALUATIONS` on a copy of the cards, and say what it wrote.

    Args:
        name: Which.
        options: For the evaluation itself.
        write: Whether the cards and pictures of the clone are replaced.

    Raises:
        ValueError: If there is no clone to run it from.
        Stopped: If it ends with another exit code than 0.
    """
    root = _clone("training and evaluation need", "training/__init__.py")
    script, *chosen = EVALUATIONS[name]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for folder in (CARDS, PICTURES):
            shutil.copytree(root / folder, copy / folder)
        # the evaluations find weights and cards from the folder they run in
        (copy / "geokernels").symlink_to(root / "geokernels")
        before = {path: path.stat().st_mtime_ns for path in (copy / "docs").rglob("*.*")}
        called = f"geokernels world evaluate {name} --"
        _run(root, f"training.{script}", [*chosen, *options], called=called, folder=copy)
        changed = [p for p in (copy / "docs").rglob("*.*") if p.stat().st_mtime_ns != before.get(p)]
        blocks = [
            block
            for path in sorted(changed)
            if path.suffix == ".md"
            for block in _compare(path, root / path.relative_to(copy), root)
        ]
        if write:
            for path in changed:
                shutil.copyfile(path, root / path.relative_to(copy))
    return blocks


def _clone(needs: str, file: str) -> Path:
    """The root of the clone that this package is run from, which has ``file``."""
    if not all((ROOT / name).is_file() for name in ("pyproject.toml", file)):
        raise ValueError(
            f"{needs} a clone of the repository, with the package installed from there (make env); "
            f"this one is installed in {ROOT}"
        )
    return ROOT


def _compare(measured: Path, card: Path, root: Path) -> list[Block]:
    """The blocks of a card just measured, beside those of the card in the clone."""
    old = blocks_of(card.read_text(encoding="utf-8")) if card.exists() else {}
    path = str(card.relative_to(root))
    return [
        Block(card.stem, path, name, text, name not in UNCOMPARED and old.get(name) != text)
        for name, text in blocks_of(measured.read_text(encoding="utf-8")).items()
    ]


def blocks_of(card: str) -> dict[str, str]:
    """What stands between ``<!-- name -->`` and ``<!-- /name -->`` in a card, by name."""
    return {
        name: text.strip() for name, text in re.findall(r"<!-- ([\w-]+) -->\n(.*?)<!-- /\1 -->", card, re.S)
    }


def _run(
    root: Path, module: str, options: list[str], *, called: str, extra: str = "", folder: Path | None = None
) -> None:
    """Run a module of the clone as a script.

    Args:
        root: Of the clone.
        module: Its name; ``main`` of it is called.
        options: What it finds in ``sys.argv``.
        called: What the user typed for it.
        extra: That brings what it needs; by default the one that brings the missing module.
        folder: To run it in; the current one by default.
    """
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    # -P: nothing in the current folder is imported in place of the clone's
    command = [sys.executable, "-P", "-m", "geokernels.cli.in_clone", called, extra, module, *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # the child takes them up itself
    try:
        with subprocess.Popen(command, env=environment, cwd=folder) as process:
            while process.poll() is None:
                got = signal.sigtimedwait(PASSED_ON, 0.1)
                # what a terminal sends for Ctrl-C has no sender, and has reached the child as well
                if got is not None and got.si_code <= 0:
                    process.send_signal(got.si_signo)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if process.returncode:
        raise Stopped(process.returncode if process.returncode > 0 else 128 - process.returncode)
