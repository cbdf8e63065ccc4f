"""What the checklist calls on a GPU can be called, and leaves no kernel out."""

import re
import sys

import pytest
import torch

from benchmarks.gpu.stages import triton_kernels

from .stubs import ROOT


def test_the_sanitizers_see_every_cuda_operator():
    registered = {
        name
        for path in (ROOT / "csrc/cuda").glob("*.cu")
        for name in re.findall(r'm\.impl\("(\w+)"', path.read_text())
    }
    called = set(re.findall(r"ops\.geokernels\.(\w+)\(", (ROOT / "benchmarks/gpu/small.py").read_text()))
    assert registered
    assert registered <= called


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("part", ["transport", "geodesic", "gradients_and_assignment"])
def test_what_the_sanitizers_call_can_be_called(part, dtype, monkeypatch):
    # on the CPU, whose operators take the same: minutes of a GPU are too dear for a wrong argument
    from benchmarks.gpu import small

    if small.native.missing:
        pytest.skip(small.native.missing)
    monkeypatch.setattr(small, "DEVICE", "cpu")
    getattr(small, part)(dtype)


@pytest.mark.slow
def test_the_sanitizers_see_every_triton_kernel(monkeypatch, capsys):
    pytest.importorskip("triton")
    from triton.runtime import interpreter

    from benchmarks.gpu import small_triton

    if not small_triton.triton.interpreted:
        pytest.skip("the interpreter is not in use")
    launched, launch = set(), interpreter.GridExecutor.__call__

    def noting(self, *args, **options):
        launched.add(f"kernel_name={self.fn.__name__}")
        return launch(self, *args, **options)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", noting)
    monkeypatch.setattr(sys, "argv", ["small_triton"])
    assert small_triton.main() == 0
    assert launched == set(triton_kernels())
