"""The two compiled libraries: loaded once, and where one cannot be, the reason."""

import ctypes
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _checks
from ..reference.problem import Solution
from ._ops import NAMESPACE

try:
    from . import _C
except ImportError as error:
    _C = None
    missing = f"the compiled library is not there ({error}); reinstall geokernels with a C++ compiler"
else:
    missing = None


_told = False


def tell_that_it_is_missing() -> None:
    """Say once that there are no compiled kernels, and the remedy; not while torch.compile traces."""
    global _told
    if _told or torch.compiler.is_compiling():
        return
    _told = True
    warnings.warn(
        f"geokernels runs its definitions in PyTorch, up to a hundred times slower: {missing}; where Python "
        "was started in a clone of the repository, start it elsewhere or run pip install -e . there",
        RuntimeWarning,
        stacklevel=3,
    )


def build_info() -> dict:
    """How the CPU library was built and which SIMD level is in force; empty when it is missing."""
    return _C.build_info() if _C else {}


def set_simd_level(name: str) -> None:
    """Run the kernels at one of ``build_info()["simd_levels"]``; for tests and benchmarks."""
    _C.set_simd_level(name)


def require_simd_level(name: str, level: str) -> None:
    """Refuse a SIMD level that this processor does not have, or that was not compiled."""
    known = build_info().get("simd_levels", [])
    if level not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)} on this machine, got {level!r}")


@contextmanager
def storing(most: int) -> Iterator[None]:
    """Let Sinkhorn's kernel matrices take no more than ``most`` bytes at once; for tests and benchmarks."""
    before = _C.most_stored()
    _C.set_most_stored(most)
    try:
        yield
    finally:
        _C.set_most_stored(before)


def is_finite(x: Tensor) -> bool:
    """Whether ``x`` is free of NaN and infinities, as far as values can be read."""
    direct = not missing and x.dtype in (torch.float32, torch.float64) and x.is_contiguous()
    if direct and _checks.values_can_be_read(x):
        return direct_is_finite(x)
    return _checks.is_finite(x)


def is_solved(solution: Solution, tol: float) -> bool:
    """Whether all that a solver found is finite, and no error above ``tol``; values can be read."""
    value, f, g, error, _ = solution
    double = f.dtype is torch.float64
    if missing or not (
        f.is_contiguous() and g.is_contiguous() and value.is_contiguous() and error.is_contiguous()
    ):
        return all(map(_checks.is_finite, (value, f, g))) and bool((error <= tol).all())
    return _C.is_solved(
        value.data_ptr(),
        error.data_ptr(),
        value.numel(),
        f.data_ptr(),
        f.numel(),
        g.data_ptr(),
        g.numel(),
        tol,
        double,
    )


def direct_is_finite(x: Tensor) -> bool:
    """The same of one that is known to be dense, in CPU memory, and float32 or float64."""
    return _C.all_finite(x.data_ptr(), x.numel(), x.dtype is torch.float64)


def assign(*numbers: int) -> int:
    """The operator ``assignment`` on numbers at an address: csrc/cpu/assignment.h."""
    return _C.assign(*numbers)


def interruptible(run: Callable, *args):
    """Call what may run a compiled operator for long.

    Handlers of signals run in the middle of it. What one of them raises, as Ctrl-C's does, ends the operator,
    and is raised here.
    """
    if torch.compiler.is_compiling():
        return run(*args)
    try:
        return run(*args)
    except RuntimeError:
        raised = _C.take_raised() if _C else None
        if raised is None:
            raise
        raise raised from None


class Image(NamedTuple):
    """Code for GPUs in the CUDA library.

    Attributes:
        capability: What it was compiled for.
        own: Whether it runs on no other capability.
        ptx: Whether PTX is there beside the machine code.
    """

    capability: tuple[int, int]
    own: bool
    ptx: bool

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Machine code runs on later capabilities of its major number too, PTX on all later ones."""
        if self.own or capability < self.capability:
            return capability == self.capability
        return self.ptx or capability[0] == self.capability[0]


def images_of(listed: str) -> list[Image]:
    """From a list like TORCH_CUDA_ARCH_LIST, such as ``8.0;9.0a;12.0+PTX``."""
    found = re.findall(r"(\d+)\.(\d)(a?)(\+PTX)?", listed)
    return [Image((int(major), int(minor)), bool(own), bool(ptx)) for major, minor, own, ptx in found]


IMAGES = images_of(build_info().get("cuda_archs", ""))


def _load_cuda() -> str | None:
    """Register the CUDA kernels; a reason when that cannot be."""
    if missing:
        return missing
    built = sorted(Path(__file__).parent.glob("_cuda*.so"))
    if not built or not IMAGES:  # one of an earlier build may be left there
        return "geokernels was built without CUDA (no nvcc at build time, or FORCE_CUDA=0)"
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    try:
        library = ctypes.CDLL(str(built[0]))
        library.geokernels_register(NAMESPACE.encode())
    except (OSError, AttributeError) as error:  # one of an earlier build registers nothing
        return f"the CUDA library does not load ({error}); reinstall geokernels where there is nvcc"
    return None


missing_cuda = _load_cuda()

LEAST_CAPABILITY = 8, 0  # of a GPU: bfloat16 and tf32 products, copies to shared memory beside the work

_gpus: dict[int, Any] = {}


def _gpu(index: int | None) -> Any:
    """The properties of a GPU; asked once, as torch takes microseconds to answer."""
    if index is None or torch.compiler.is_compiling():
        return torch.cuda.get_device_properties(index)
    if index not in _gpus:
        _gpus[index] = torch.cuda.get_device_properties(index)
    return _gpus[index]


def refuse_gpu(x: Tensor) -> str | None:
    """Say why no kernel for GPUs, compiled or Triton's, takes ``x``, which is on a GPU; or None.

    Waits for nothing that the GPU does.
    """
    return refuse_device(x.device.index)


def refuse_device(index: int | None) -> str | None:
    """The same of a GPU by its number; None for the current one."""
    if torch.version.hip:
        return f"the GPU kernels are for NVIDIA's, and this torch is for AMD's (ROCm {torch.version.hip})"
    if not (torch.cuda.is_initialized() or torch.cuda.is_available()):  # a tensor that a tracer made up
        return "torch sees no CUDA device"
    gpu = _gpu(index)
    if (gpu.major, gpu.minor) < LEAST_CAPABILITY:
        least = ".".join(map(str, LEAST_CAPABILITY))
        return f"the GPU kernels need compute capability {least}, {gpu.name} has {gpu.major}.{gpu.minor}"
    return None


def refuse_library(index: int | None) -> str | None:
    """Say why the CUDA library does not run on a GPU, by its number, or None; None is the current one."""
    if reason := refuse_device(index) or missing_cuda:
        return reason
    gpu = _gpu(index)
    if not any(image.runs_on((gpu.major, gpu.minor)) for image in IMAGES):
        held = ", ".join(f"{image.capability[0]}.{image.capability[1]}" for image in IMAGES)
        return f"the CUDA library was built for {held}, {gpu.name} has {gpu.major}.{gpu.minor}"
    return None


def refuse(x: Tensor, *, devices: tuple[str, ...] = ("cpu",)) -> str | None:
    """Say why no compiled kernel can take ``x``, or None.

    Args:
        x: The tensor that decides device and dtype.
        devices: Devices the operator has kernels for.
    """
    if missing:
        return missing
    device = "cpu" if x.is_cpu else x.device.type  # one call where it is the usual one
    if device not in devices:
        return f"no compiled kernel for device {device}"
    if device == "cuda" and (reason := refuse_library(x.device.index)):
        return reason
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"no compiled kernel for {x.dtype}"
    return None
