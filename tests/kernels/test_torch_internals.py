"""Private names of PyTorch: all are there in the versions that are tested, and none is needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import geokernels
from geokernels import _torch_internals as internals
from geokernels.kernels import autograd_kernels, derivatives, native

HERE = Path(__file__).parent
TRANSFORMS = "tests/ops/test_function_transforms.py"
COMPILED_TANGENTS = f"{TRANSFORMS}::test_compiled_without_graph_breaks[native]"


def test_this_version_has_them_all():
    assert [name for name, value in vars(internals).items() if value is None] == []
    assert derivatives.autograd is autograd_kernels


def test_norms_are_those_of_each_tensor(monkeypatch):
    tensors = [torch.ones(3), torch.full((2, 2), 2.0), torch.zeros(())]
    expected = torch.tensor([3.0, 16.0, 0.0]).sqrt()
    assert torch.equal(internals.norms(tensors), expected)
    monkeypatch.setattr(internals, "_norms", None)
    assert torch.equal(internals.norms(tensors), expected)


def private_names(path: Path) -> list[str]:
    """What a file takes from torch by a name that begins with an underscore."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "torch":
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"torch(\.\w+)+", ast.unparse(node)):
            names.append(ast.unparse(node))
    return [name for name in names if re.search(r"\._(?!_)", name)]


def test_nothing_else_in_the_package_names_what_is_private():
    package = Path(geokernels.__file__).parent
    paths = [path for path in package.rglob("*.py") if path.name != "_torch_internals.py"]
    assert len(paths) > 200
    assert {str(path): names for path in paths if (names := private_names(path))} == {}


@pytest.mark.slow
@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
@pytest.mark.parametrize(
    "group", ["all", "transforms", "forward mode", "gradients", "listeners", "dispatcher"]
)
def test_operators_run_the_public_way(group):
    tests = [TRANSFORMS]
    if group == "all":
        tests += ["tests/kernels/test_geodesic_transforms.py", "tests/losses/test_geodesic.py"]
        # torch.compile has gradients then, and refuses tangents
        tests += ["--deselect", COMPILED_TANGENTS]
    else:
        tests += ["-k", "Compositions or coincide or losses"]
    command = [sys.executable, str(HERE / "hidden_internals.py"), group, *tests]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "failed" not in done.stdout
