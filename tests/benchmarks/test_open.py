"""Benchmarks, trainings and examples use what is open: no private name, nothing put in another's place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    # not scripts: campaign_runs.py makes commands small in processes of their own, which it then kills
    for folder in ("benchmarks", "training", "examples", "integrations")
    for path in (ROOT / folder).rglob("*.py")
)
# private to users, who should not build on them; the repository's own programs write files and errors alike
OWN_MODULES = {"_checks", "_files", "_sealed"}
# of others, not of geokernels: named tuples' methods, and the address by which torch tells storages apart
OTHERS = {"_asdict", "_replace", "_cdata"}
REPLACING = {"setattr", "patch.object", "mock.patch.object", "patch", "mock.patch"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_from_geokernels(tree: ast.Module) -> set[str]:
    """What a file calls the things that it imports from the package."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "geokernels":
            found |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {
                alias.asname or "geokernels"
                for alias in node.names
                if alias.name.split(".")[0] == "geokernels"
            }
    return found


def root_of(node: ast.expr) -> str | None:
    """The name at the beginning of ``name.more.and_more``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Every part of the dotted names that an import of geokernels has."""
    if isinstance(node, ast.Import):
        dotted = [alias.name for alias in node.names]
    else:
        dotted = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in dotted:
        first, *parts = name.split(".")
        if first == "geokernels":
            yield from parts


def faults(text: str) -> list[str]:
    """Lines that use what is private, or put something in the place of a part of the package."""
    tree = ast.parse(text)
    ours, found = names_from_geokernels(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [
                f"{node.lineno}: imports {part}"
                for part in imported(node)
                if private(part) and part not in OWN_MODULES
            ]
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in OTHERS:
            # what a class keeps for itself, and what starts at torch or another library, is not the package's
            if root_of(node.value) not in ("self", "cls", "torch"):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [
                f"{node.lineno}: sets {ast.unparse(target)}"
                for target in targets
                if isinstance(target, ast.Attribute) and root_of(target) in ours
            ]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in REPLACING and node.args:
            first = node.args[0]
            named = isinstance(first, ast.Constant) and str(first.value).startswith("geokernels")
            if named or root_of(first) in ours:
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("name", FILES)
def test_only_what_is_open_is_used(name):
    assert faults((ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "from geokernels._precision import wide",
        "from geokernels.pipelines.run import _begin",
        "import geokernels.models\ngeokernels.models.clip.NAME = 1",
        "from geokernels.models.clip import ClipEncoder\nClipEncoder.encode_image = None",
        "from geokernels import models\nwith patch.object(models, 'load_clip', None): pass",
        "patch('geokernels.models.load_clip')",
        "run._choose()",
    ],
)
def test_what_is_not_open_is_seen(text):
    assert len(faults(text)) == 1
