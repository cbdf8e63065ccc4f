"""What a newcomer meets first: the import is light, the library keeps to the stable ABI."""

import shutil
import subprocess
import sys

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
