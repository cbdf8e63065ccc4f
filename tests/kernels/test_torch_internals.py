"""Private names of PyTorch: all are there in the versions that are tested, and none is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from geokernels import _torch_internals as internals
from geokernels.kernels import autograd_kernels, derivatives, native

HERE = Path(__file__).parent
TRANSFORMS = "tests/ops/test_function_transforms.py"
COMPILED_TANGENTS = f"{TRANSFORMS}::test_compiled_without_graph_breaks[native]"


def test_this_version_has_them_all():
    assert [name for name, value in vars(internals).items() if value is None] == []
    assert derivatives.autograd is autograd_kernels


@pytest.mark.slow
@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
@pytest.mark.parametrize("group", ["all", "transforms", "forward mode", "gradients", "dispatcher"])
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
