"""The vector exponential and logarithm are as close to the exact values as their header says."""

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from geokernels.kernels import native

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "csrc"
LEVELS = native.build_info().get("simd_levels", [])


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    target = tmp_path_factory.mktemp("exponential") / "exponential.so"
    command = [
        os.environ.get("CXX", "c++"),
        "-std=c++17",
        "-O2",
        "-fPIC",
        "-shared",
        f"-I{SOURCES}",
        f"-I{HERE}",
    ]
    command += ["-Wno-psabi", HERE / "exponential.cpp", SOURCES / "cpu" / "level.cpp", "-o", target]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


def run(library, x, logarithm, level):
    padded = np.concatenate([x, np.ones(-len(x) % 16, x.dtype)])
    out = np.empty_like(padded)
    function = library.map_float if x.dtype == np.float32 else library.map_double
    pointers = (ctypes.c_void_p(part.ctypes.data) for part in (padded, out))
    function(*pointers, ctypes.c_int64(len(padded)), ctypes.c_bool(logarithm), level.encode())
    return out[: len(x)]


def ulps(found, exact):
    """Distance in units of the last place of the exact value."""
    spacing = np.spacing(np.abs(exact).astype(found.dtype)).astype(np.longdouble)
    return np.max(np.abs(found.astype(np.longdouble) - exact) / spacing)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
class TestAgainstExact:
    def test_exp(self, library, dtype, level):
        low, high = (-87, 88) if dtype == np.float32 else (-708, 709)
        chance = np.random.default_rng(0)
        x = np.concatenate([chance.uniform(low, high, 200_000), chance.uniform(-1, 1, 200_000)]).astype(dtype)
        bound = 1.0 if level != "baseline" else 1.25
        assert ulps(run(library, x, False, level), np.exp(x.astype(np.longdouble))) < bound

    def test_log(self, library, dtype, level):
        chance = np.random.default_rng(0)
        exponents = chance.uniform(-80, 80, 200_000)
        x = np.concatenate([np.exp(exponents), chance.uniform(0.5, 2, 200_000)]).astype(dtype)
        assert ulps(run(library, x, True, level), np.log(x.astype(np.longdouble))) < 2

    def test_special_values(self, library, dtype, level):
        x = np.array([0, -np.inf, np.inf, np.nan, -1e6, 1e6], dtype)
        np.testing.assert_array_equal(
            run(library, x, False, level), np.array([1, 0, np.inf, np.nan, 0, np.inf], dtype)
        )
        x = np.array([1, 0, np.inf, np.nan], dtype)
        np.testing.assert_array_equal(
            run(library, x, True, level), np.array([0, -np.inf, np.inf, np.nan], dtype)
        )
