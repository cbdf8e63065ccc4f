"""scripts/inspect_cuda.py reads what nvcc made of kernels, and says what is wrong with it."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = sorted((ROOT / "geokernels" / "kernels").glob("_cuda*.so"))

RESOURCES = """
Fatbin elf code:
================
arch = sm_80

Resource usage:
 Common:
  GLOBAL:28 CONSTANT[4]:224
 Function good:
  REG:64 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:904 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function bad:
  REG:255 STACK:16 SHARED:0 LOCAL:8 CONSTANT[0]:904 TEXTURE:0 SURFACE:0 SAMPLER:0
Fatbin elf code:
================
arch = sm_90a
 Function good:
  REG:80 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:904 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
arch = sm_80
\t\tFunction : good
        /*0000*/                   LDS R1, [R2] ;                  /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 HMMA.1688.F32.TF32 R4, R8, R10, R4 ;  /* 0x000 */
        /*0020*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ;
\t\tFunction : bad
        /*0000*/                   STL [R1+0x48], R4 ;
        /*0010*/               @P1 LDL.64 R4, [R1] ;
arch = sm_90a
\t\tFunction : good
        /*0000*/                   FFMA R1, R2, R3, R4 ;
"""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("inspect_cuda", ROOT / "scripts" / "inspect_cuda.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reads_listings(script):
    good, bad, newer = script.kernels(RESOURCES, SASS)
    assert (good.arch, good.name, good.registers, good.shared, good.local) == ("sm_80", "good", 64, 1024, 0)
    assert good.tensor == {"HMMA.1688.F32.TF32": 2}
    assert (bad.registers, bad.local, bad.local_accesses, bad.tensor) == (255, 24, 2, {})
    assert (newer.arch, newer.registers, newer.tensor) == ("sm_90a", 80, {})


def test_says_what_is_wrong(script):
    good, bad, newer = script.kernels(RESOURCES, SASS)
    promised = {"good": "HMMA"}
    assert good.faults(promised) == []
    (spill,) = bad.faults(promised)
    assert spill == "bad for sm_80 keeps 24 bytes in local memory and reads or writes them in 2 places"
    assert newer.faults(promised) == ["good for sm_90a has no HMMA"]


def test_nothing_to_look_into(script, tmp_path, capsys):
    empty = tmp_path / "empty.o"
    empty.write_bytes(b"")
    assert script.main([str(empty)]) == 2
    assert "none was found in it" in capsys.readouterr().err or script.cuobjdump() is None


@pytest.mark.skipif(not LIBRARIES, reason="geokernels was built without CUDA")
def test_the_built_library(script, capsys, tmp_path):
    if script.cuobjdump() is None:
        pytest.skip("there is no cuobjdump, neither beside nvcc nor in Triton's package")
    assert script.main(["--json", str(tmp_path / "kernels.json")]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "kernels.json").read_text())
    assert any("sinkhorn_kernel" in kernel["name"] for kernel in found)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_a_spill_in_compiled_code(script, tmp_path, capsys):
    if script.cuobjdump() is None:
        pytest.skip("there is no cuobjdump, neither beside nvcc nor in Triton's package")
    source, target = tmp_path / "spilling.cu", tmp_path / "spilling.o"
    source.write_text(
        "__global__ void spilling(float* x, int i) {\n"
        "  float kept[64];\n"
        "  for (int k = 0; k < 64; ++k) kept[(k * i) & 63] = x[k];\n"  # indices known at run time alone
        "  for (int k = 0; k < 64; ++k) x[k] = kept[k];\n"
        "}\n"
    )
    subprocess.run(["nvcc", "-arch=sm_80", "-c", source, "-o", target], check=True)
    assert script.main([str(target)]) == 1
    assert "spilling for sm_80 keeps" in capsys.readouterr().err.replace("(float*, int)", "")
