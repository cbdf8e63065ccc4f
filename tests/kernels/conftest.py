"""CUDA kernels on the host."""

import ctypes
import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def emulation():
    """The module beside this file that compiles CUDA kernels for the host."""
    spec = importlib.util.spec_from_file_location("emulation", Path(__file__).with_name("emulation.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulated(emulation, request):
    """Compile ``tests/kernels/NAME.cpp`` on ``cuda_on_host.h``, unless that was done before, and load it."""

    def load(name: str) -> ctypes.CDLL:
        library = ctypes.CDLL(str(emulation.build(name)))
        if watcher := request.config.pluginmanager.get_plugin("barriers"):
            watcher.load(library)
        return library

    return load
