"""What can run here, and for what cannot, why. Needs torch alone."""

import platform
from importlib import util

import torch

from ..kernels import dispatch, native, triton
from .record import PACKAGES, versions

# what each extra is for, and the modules it brings
EXTRAS = {
    "morph": (
        "demo, morph, adapt and world",
        ("torchvision", "open_clip", "lpips", "safetensors", "numpy", "PIL"),
    ),
    "video": ("video and interpolate --mp4", ("av", "cv2")),
    "diffusion": (
        "interpolate, edit, eval, and the prompts of demo and world",
        ("diffusers", "transformers", "accelerate", "safetensors", "torchmetrics"),
    ),
}


def backends() -> dict[str, str | None]:
    """Every implementation of the operators, with the reason it cannot run here, or None."""
    reasons = {"reference": None, "native (CPU)": native.missing, "native (CUDA)": native.missing_cuda}
    if reasons["native (CUDA)"] is None and not torch.cuda.is_available():
        reasons["native (CUDA)"] = "torch sees no CUDA device"
    return {**reasons, "triton": _refuse_triton()}


def choices() -> list[tuple[str, str, str]]:
    """What ``backend=None`` means: devices, in which order implementations are asked, the evidence."""
    return [(row.device, ", ".join(row.order), row.evidence) for row in dispatch.PREFERENCES]


def facts() -> dict[str, str]:
    """Versions, the machine, and how the compiled libraries were built."""
    info = native.build_info()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    known = {
        name: version or "not installed"
        for name, version in versions().items()
        if name in ("python", "geokernels", *PACKAGES)
    }
    return {
        **known,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "GPU": ", ".join(gpus) or "none that torch can use",
        **{name.replace("_", " "): _say(value) for name, value in info.items()},
    }


def missing_extras() -> dict[str, tuple[str, list[str]]]:
    """The extras that are not whole: what each is for, and its modules that are not installed."""
    absent = {
        extra: (purpose, [module for module in modules if util.find_spec(module) is None])
        for extra, (purpose, modules) in EXTRAS.items()
    }
    return {extra: (purpose, modules) for extra, (purpose, modules) in absent.items() if modules}


def extra_of(module: str) -> str:
    """The extra that brings ``module``; the one of the models where none is known to."""
    package = module.partition(".")[0]
    return next((extra for extra, (_, modules) in EXTRAS.items() if package in modules), "morph")


def _refuse_triton() -> str | None:
    if triton.missing or not torch.cuda.is_available():
        return triton.missing or "torch sees no CUDA device"
    return "TRITON_INTERPRET is set: kernels run on the CPU, for tests" if triton.interpreted else None


def _say(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value not in ("", None) else "none"
