"""``run.json``: what was run, with what, how it went, and how long it took."""

import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

import torch

from .._files import sha256

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "lpips",
    "diffusers",
    "transformers",
    "torchmetrics",
    "safetensors",
    "numpy",
    "pillow",
    "av",
    "opencv-python-headless",
)


def versions() -> dict[str, str | None]:
    """Versions of Python, geokernels and what it builds on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("geokernels", *PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def peak_memory_mib(device: str = "cpu") -> float:
    """Largest memory of this process so far, in MiB: on CUDA what torch allocated, else resident memory."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    # ru_maxrss is in kilobytes, in bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def machine(device: str) -> dict[str, object]:
    """Where a run took place: the processor's name, the threads, the GPU."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {"cpu": cpu, "threads": torch.get_num_threads(), "device": device, "gpu": gpu}


def circumstances() -> dict[str, object]:
    """What the rounding of a run's results depends on."""
    where, made_by = machine("cuda" if torch.cuda.is_available() else "cpu"), versions()
    made_by = {name: made_by[name] for name in ("geokernels", "torch")}
    return made_by | {name: where[name] for name in ("cpu", "threads", "gpu")}


def checksums(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files in ``folder``, by name."""
    return {name: sha256(folder / name) for name in names}
