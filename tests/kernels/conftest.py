"""CUDA kernels on the host; a process that thinks it has a GPU, and who looks at kernels for it."""

import ctypes

import pytest

from geokernels.kernels import proof, proof_cache, proof_job, proof_runner
from geokernels.kernels.proof_job import LAUNCHERS
from geokernels.kernels.proof_runner import Outcome

from .emulation import build
from .proofs import KEY, NATIVE, begin_anew


@pytest.fixture(scope="session")
def emulated(request):
    """Compile ``tests/kernels/NAME.cpp`` on ``cuda_on_host.h``, unless that was done before, and load it."""

    def load(name: str) -> ctypes.CDLL:
        library = ctypes.CDLL(str(build(name)))
        if watcher := request.config.pluginmanager.get_plugin("barriers"):
            watcher.load(library)
        return library

    return load


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A process that has concluded nothing, on a machine with a GPU."""
    monkeypatch.setattr(proof, "_is_on_gpu", lambda x: True)
    monkeypatch.setattr(proof, "refuse", lambda device: None)
    monkeypatch.setattr(proof, "gpu_of", lambda device: "GPU-1")
    monkeypatch.setattr(proof_cache, "key_of", lambda device: KEY)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (proof.VARIABLE, proof_job.MACHINES, *(launcher.processes for launcher in LAUNCHERS)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(proof, "_said", set())
    begin_anew(monkeypatch)


@pytest.fixture
def looks(monkeypatch):
    """What the child concludes, and how often it was asked and of what it knew."""

    class Looks(list):
        outcome = NATIVE

    asked = Looks()

    def prove(skip, gpu, **how) -> Outcome:
        asked.append(tuple(skip))
        plan, verdicts, left = asked.outcome
        return Outcome(plan, {name: v for name, v in verdicts.items() if name not in skip}, left)

    monkeypatch.setattr(proof_runner, "prove", prove)
    return asked
