"""What the figures are measured on, and the best it can do: products, exponentials, memory."""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from geokernels.kernels import native

from .case import Work

ROOT = Path(__file__).resolve().parents[2]
# bytes a copy touches: within L2, within L3, memory; on a GPU within L2, and memory
COPIES = {"cpu": (2**19, 2**24, 2**28), "cuda": (2**24, 2**31)}
# what tells torch, its libraries and JAX at their start to use no wider vectors; KeOps compiles for the
# processor as it is, and is told nothing
NARROWED = {
    "baseline": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    },
}


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch with so many threads; as it is for None."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hold_to(level: str) -> None:
    """Keep ours, torch and JAX to one SIMD level, as on a processor that has no wider one.

    The others read it when they start, so this program is started again unless it was started so.

    Raises:
        ValueError: For a level that this processor does not have, or that ours was not compiled for.
    """
    native.require_simd_level("--simd", level)
    wanted = dict(NARROWED.get(level, {}))
    if wanted:
        # torch.compile would load from its cache what it compiled for another level, and crash
        wanted["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"geokernels-compiled-{level}")
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **wanted})
    native.set_simd_level(level)


def _best(run: Callable[[], object], seconds: float, device: str) -> float:
    """The shortest of many calls: what the machine can do when nothing is in the way."""
    wait = (lambda: None) if device == "cpu" else torch.cuda.synchronize
    run()
    wait()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


@dataclass(frozen=True)
class Peaks:
    """Rates measured here, with so many threads.

    Attributes:
        threads: Threads of torch.
        flops: Of a product, a second: 1024 x 1024 x 1024 in float32; on a GPU 8192 x 8192 x 8192 in bfloat16.
        exps: Of the faster of ``torch.exp`` and ``torch.exp2``, float32, in the cache, a second.
        copies: Bytes read and written a second, by how many bytes the copy touches.
    """

    threads: int
    flops: float
    exps: float
    copies: dict[int, float]

    @classmethod
    def measure(cls, count: int, device: str = "cpu", *, seconds: float = 0.4) -> "Peaks":
        """Measure for ``seconds`` each."""
        size, dtype = (1024, torch.float32) if device == "cpu" else (8192, torch.bfloat16)
        with threads(count), torch.device(device):
            a, product = torch.randn(2, size, size).to(dtype)
            flops = 2 * size**3 / _best(lambda: torch.mm(a, a, out=product), seconds, device)
            x = torch.linspace(-20, 0, 2**16 * count if device == "cpu" else 2**22)
            result = torch.empty_like(x)
            # with a factor of log2(e) folded into its argument, exp2 does as well
            calls = [lambda f=f: f(x, out=result) for f in (torch.exp, torch.exp2)]
            exps = len(x) / min(_best(call, seconds / 2, device) for call in calls)
            copies = {}
            for size in COPIES[device]:
                source, target = torch.zeros(2, size // 2, dtype=torch.uint8)
                copies[size] = size / _best(lambda s=source, t=target: t.copy_(s), seconds, device)
        return cls(count, flops, exps, copies)

    def floor(self, work: Work) -> float:
        """Seconds below which the work cannot be done.

        The larger of two times: that of the arithmetic (products and exponentials share their units, so these
        add up), and that of the memory, at the rate of the cache that so many bytes fit.
        """
        fitting = [size for size in self.copies if size >= work.bytes] or [max(self.copies)]
        return max(work.flops / self.flops + work.exps / self.exps, work.bytes / self.copies[min(fitting)])

    def facts(self) -> dict:
        """For a results file."""
        return asdict(self)


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _commit() -> str:
    """The last commit of anything but results and pages, and whether the code differs from it."""
    code = [".", ":!benchmarks/results", ":!docs", ":!README.md"]
    changed = _git("status", "--porcelain", "-uno", "--", *code)
    found = _git("log", "-1", "--format=%H", "--", *code)
    # a copy without its history is told, as benchmarks/gpu/checklist.py does
    return (
        found + (" with changes" if changed else "")
        if found
        else os.environ.get("BENCHMARK_COMMIT", "unknown")
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def machine() -> dict:
    """Processor, threads, versions, commit: the part of every row that says where it comes from."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "simd": native.build_info().get("simd"),
        "torch_simd": torch.backends.cpu.get_cpu_capability().lower(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(),
    }
