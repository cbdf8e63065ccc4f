"""What is installed and can run here, and for what cannot, why; needs torch alone."""

import platform
import resource
import sys
from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path

import torch

from .kernels import dispatch, native, proof, triton
from .kernels.proof_cache import Verdict

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


# what each extra is for, and the modules it brings
EXTRAS = {
    "morph": (
        "demo, morph, adapt and world",
        ("torchvision", "open_clip", "lpips", "safetensors", "numpy", "PIL"),
    ),
    "video": ("blend, video and interpolate --mp4", ("av", "cv2")),
    "diffusion": (
        "interpolate, edit, eval, and the prompts of demo and world",
        ("diffusers", "transformers", "accelerate", "safetensors", "torchmetrics"),
    ),
    "ui": ("ui", ("gradio",)),
    "ray": ("batch --ray", ("ray",)),
}


def backends() -> dict[str, str | None]:
    """Every implementation of the operators, with the reason it cannot run here, or None."""
    return {
        "reference": None,
        "native (CPU)": native.missing,
        "native (CUDA)": native.missing_cuda or native.refuse_library(None),
        "triton": _refuse_triton(),
    }


def choices() -> list[tuple[str, str, str]]:
    """What ``backend=None`` means: devices, in which order implementations are asked, the evidence."""
    return [(row.device, ", ".join(row.order), row.evidence) for row in dispatch.PREFERENCES]


def proofs() -> list[str]:
    """What is known of the kernels on each kind of GPU here; looks at none of them."""
    if not torch.cuda.is_available():
        return []
    said = []
    for name, device in {gpu_name(i): i for i in reversed(range(torch.cuda.device_count()))}.items():
        verdicts = proof.known(device).verdicts
        said += [f"{kernels}: {told_of(verdict)}" for kernels, verdict in sorted(verdicts.items())]
        if not verdicts:
            reason = proof.refuse(device)
            said.append(
                f"{name}: {reason or 'no kernel proved yet; geokernels tune does, or the first call'}"
            )
    if (chosen := proof.setting()) != "on":
        said.append(f"{proof.VARIABLE}={chosen} is set")
    return said


def gpu_name(device: int) -> str:
    """What a GPU is called."""
    return torch.cuda.get_device_name(device)


def told_of(verdict: Verdict) -> str:
    """A verdict in words."""
    if "" in verdict.wrong:
        return f"not trusted here since {verdict.date}: {verdict.wrong['']}"
    parts = [f"not in {precision}: {reason}" for precision, reason in verdict.wrong.items()]
    trusted = [ratios for asked, ratios in verdict.speedups.items() if asked.split()[-1] not in verdict.wrong]
    if trusted:
        ratios = [ratio for each in trusted for ratio in each]
        speed = " to ".join(dict.fromkeys(f"{ratio:.3g}x" for ratio in (min(ratios), max(ratios))))
        parts.insert(0, f"proved here on {verdict.date}, {speed}")
        if slow := [asked for asked, found in verdict.speedups.items() if min(found) < proof.FASTER]:
            parts.append(f"left to the definition where that is as fast: {', '.join(slow)}")
    return "; ".join(parts) or f"cannot run here, found on {verdict.date}"


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
    if reason := triton.missing or native.refuse_device(None):
        return reason
    return "TRITON_INTERPRET is set: kernels run on the CPU, for tests" if triton.interpreted else None


def _say(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value not in ("", None) else "none"


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Versions of Python, geokernels and ``packages``; None for what is not installed."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("geokernels", *packages):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return installed


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
