"""What a newcomer meets first: the import is light, the library keeps to the stable ABI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import geokernels
from geokernels.kernels import native

CXX_OF_TORCH = ("_ZN2at", "_ZNK2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch", "_ZNK5torch")
HEAVY = (
    "torchvision",
    "open_clip",
    "lpips",
    "numpy.f2py",
    "diffusers",
    "triton",
    "imageio",
    "PIL",
    "scipy",
    "typer",
)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_takes_under_a_second_on_top_of_torch():
    code = "import torch, time; t = time.perf_counter(); import geokernels; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 1.0


def test_import_brings_nothing_heavy_that_torch_did_not():
    code = (
        "import sys, torch; before = set(sys.modules); import geokernels;"
        f"print([m for m in {HEAVY} if m in sys.modules and m not in before])"
    )
    assert python(code) == "[]"


def test_every_public_name_is_there_and_documented():
    for name in geokernels.__all__:
        assert getattr(geokernels, name).__doc__, name


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm from binutils")
@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
def test_the_library_uses_the_stable_abi_only():
    library = native._C.__file__
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    unstable = [
        line
        for line in listed.stdout.split()
        if line.startswith(("_ZN2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch"))
    ]
    assert unstable == []


@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
def test_an_unknown_simd_level_is_refused():
    with pytest.raises(ValueError, match="this processor has no SIMD level 'mmx'"):
        native.set_simd_level("mmx")


def python_in_a_clone(tmp_path, code: str) -> str:
    """What code prints where Python starts in a folder with the package as it was before it was built."""
    package = Path(geokernels.__file__).parent
    for file in package.rglob("*"):
        if file.suffix != ".so" and "__pycache__" not in file.parts and file.is_file():
            link = tmp_path / "geokernels" / file.relative_to(package)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_missing_library_is_told_once_by_the_first_operator_that_wants_it(tmp_path):
    code = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import geokernels as gk
    x = torch.eye(3)
    torch.compile(lambda x: gk.subspace_basis(x).values, fullgraph=True, backend="eager")(x)
    gk.sinkhorn(x, x, eps=1.0, backend="reference")
    assert not [w for w in caught if "geokernels" in str(w.message)], caught
    gk.sinkhorn(x, x, eps=1.0)
    gk.geodesic_cosine(x, x, x[:, :1], x[:, 1:])
told = [str(w.message) for w in caught if w.category is RuntimeWarning and "geokernels" in str(w.message)]
print(len(told), told[0])
"""
    count, message = python_in_a_clone(tmp_path, code).split(maxsplit=1)
    assert count == "1"
    assert "the compiled library is not there (" in message
    assert "run pip install -e ." in message
