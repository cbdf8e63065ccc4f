"""Runs what stands in ``training/`` of a clone: it is no part of the installed package."""

import importlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
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
    "generator": ("generator",),
}
EVALUATIONS = {
    "clip": ("evaluate_clip",),
    "evaluation-clip": ("evaluate_clip", "--model", "evaluation"),
    "judge": ("evaluate_judge",),
    "generator": ("evaluate_generator",),
    "diffusion": ("evaluate_diffusion",),
}
UNCOMPARED = ("loading",)  # blocks of timings, which no two runs share


class Block(NamedTuple):
    """One measured block of a model card."""

    card: str
    path: str
    name: str
    text: str
    differs: bool  # from what the card in the clone says


def run_training(name: str, options: list[str]) -> None:
    """Run a training of :data:`TRAININGS` in this process.

    Raises:
        ValueError: If there is no clone to run it from.
    """
    _run(_clone(), TRAININGS[name], options, f"geokernels world train {name}")


def evaluate_model(name: str, options: list[str], *, write: bool) -> list[Block]:
    """Run an evaluation of :data:`EVALUATIONS` on a copy of the cards, and say what it wrote.

    Args:
        name: Which.
        options: For the evaluation itself.
        write: Whether the cards and pictures of the clone are replaced.

    Raises:
        ValueError: If there is no clone to run it from.
    """
    root = _clone()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for folder in (CARDS, PICTURES):
            shutil.copytree(root / folder, copy / folder)
        # the evaluations find weights and cards from the folder they run in
        (copy / "geokernels").symlink_to(root / "geokernels")
        before = {path: path.stat().st_mtime_ns for path in (copy / "docs").rglob("*.*")}
        with chdir(copy):
            _run(root, EVALUATIONS[name], options, f"geokernels world evaluate {name} --")
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


def _clone() -> Path:
    """The root of the clone that this package is run from."""
    if not all((ROOT / name).is_file() for name in ("pyproject.toml", "training/__init__.py")):
        raise ValueError(
            "training and evaluation need a clone of the repository, with the package installed from there "
            f"(make env); this one is installed in {ROOT}"
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


def _run(root: Path, script: tuple[str, ...], options: list[str], name: str) -> None:
    with _arguments(root, [name, *script[1:], *options]):
        importlib.import_module(f"training.{script[0]}").main()


@contextmanager
def _arguments(root: Path, argv: list[str]) -> Iterator[None]:
    """Let a script see ``argv``, and find the package of scripts."""
    kept = sys.argv
    sys.argv = argv
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.argv = kept
        sys.path.remove(str(root))
