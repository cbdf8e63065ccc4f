"""scripts/inspect_cuda.py reads what nvcc made of kernels, and says what is wrong with it."""

import importlib.util
import json
import shutil
import struct
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


# two barriers that agree in every iteration; behind a rare branch float64 and a load, out of line
ITERATION = """
		code for sm_90
		Function : sinkhorn_kernel<float,Layout<2,true>>
        /*0000*/                   LDG.E R1, [R2.64] ;
        /*0010*/                   FFMA R4, R5, R6, R4 ;
        /*0020*/                   SHFL.BFLY PT, R7, R4, 0x1, 0x1f ;
        /*0028*/                   BRA.DIV UR4, 0x00c0 ;
        /*0030*/                   BAR.RED.AND.DEFER_BLOCKING 0x0, P0 ;
        /*0040*/              @!P0 BRA 0x0090 ;
        /*0050*/                   BSSY B0, 0x0070 ;
        /*0060*/                   BSYNC B0 ;
        /*0070*/                   BAR.RED.AND.DEFER_BLOCKING 0x0, P1 ;
        /*0080*/               @P1 BRA 0x0010 ;
        /*0090*/                   DADD R8, R8, R10 ;
        /*00a0*/                   LDG.E R1, [R2.64] ;
        /*00b0*/                   BRA 0x0050 ;
        /*00c0*/                   EXIT ;
"""
LOADS = """
		code for sm_90
		Function : serial
        /*0000*/                   LDG.E R1, [R2.64] ;
        /*0010*/                   STS [R3], R1 ;
        /*0020*/                   LDG.E R1, [R2.64+0x80] ;
        /*0030*/                   STS [R3+0x80], R1 ;
        /*0040*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ;
        /*0050*/               @P0 BRA 0x0000 ;
		Function : together
        /*0000*/                   LDG.E R1, [R2.64] ;
        /*0010*/                   LDG.E R5, [R2.64+0x80] ;
        /*0020*/                   LDG.E R6, [R2.64+0xa0] ;
        /*0030*/                   STS [R3], R1 ;
        /*0040*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ;
        /*0050*/               @P0 BRA 0x0000 ;
		Function : copied
        /*0000*/                   LDGSTS.E.BYPASS.128 [R3], [R2.64] ;
        /*0010*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ;
        /*0020*/               @P0 BRA 0x0000 ;
		Function : not_in_a_loop
        /*0000*/                   LDG.E R1, [R2.64] ;
        /*0010*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ;
        /*0020*/                   EXIT ;
"""


def test_counts_the_shortest_way_round(script):
    (kernel,) = script.kernels("", ITERATION)
    kinds = {"instructions": 9, "double": 0, "loads": 0, "shuffles": 1, "multiply-adds": 1, "barriers": 2}
    assert kernel.iteration == kinds
    assert not any("iterates" in fault for fault in kernel.faults({}))


@pytest.mark.parametrize(
    ("worse", "fault"),
    [
        (("FFMA R4, R5, R6, R4", "DFMA R4, R6, R8, R4"), "iterates with 1 instructions of float64"),
        (("FFMA R4, R5, R6, R4", "F2F.F64.F32 R4, R5"), "iterates with 1 instructions of float64"),
        (("FFMA R4, R5, R6, R4", "LDG.E R4, [R2.64]"), "iterates with 1 loads from device memory"),
        (("BAR.RED.AND.DEFER_BLOCKING 0x0, P1", "NOP"), "has no iteration between two barriers that agree"),
    ],
)
def test_an_iteration_that_does_more(script, monkeypatch, worse, fault):
    monkeypatch.setattr(script, "FLOAT64", {})
    (kernel,) = script.kernels("", ITERATION.replace(*worse))
    assert any(fault in each for each in kernel.faults({}))


def test_counts_loads_before_a_store(script, monkeypatch):
    kernels = {kernel.name: kernel for kernel in script.kernels("", LOADS)}
    flights = {name: kernel.in_flight for name, kernel in kernels.items()}
    assert flights == {"serial": [1], "together": [3], "copied": [16], "not_in_a_loop": []}
    monkeypatch.setattr(script, "ITERATING", "")
    fault = "serial for sm_90 stores a point after at most 1 loads, 8 are expected"
    assert fault in kernels["serial"].faults({})
    assert not any("stores" in each for each in kernels["copied"].faults({}))


class TestBlocks:
    """How many fit a multiprocessor: 65,536 registers, given to a warp 256 at a time."""

    @pytest.mark.parametrize(
        ("arch", "registers", "threads", "shared", "blocks"),
        [
            ("sm_90", 168, 384, 0, 1),
            ("sm_90", 128, 256, 0, 2),
            ("sm_90", 129, 256, 0, 1),  # 136 are given
            ("sm_90a", 32, 128, 0, 16),
            ("sm_86", 32, 1024, 0, 1),  # of 1,536 threads
            ("sm_86", 32, 128, 40_000, 2),
            ("sm_999", 32, 128, 0, 0),
            ("sm_90", 32, 0, 0, 0),
        ],
    )
    def test_are_counted(self, script, arch, registers, threads, shared, blocks):
        kernel = script.Kernel(arch, "some", registers, shared, threads=threads)
        kernel.count_blocks()
        assert kernel.blocks == blocks

    def test_one_needs_a_reason(self, script, monkeypatch):
        kernel = script.Kernel("sm_90", "some<float>", 168, threads=384, blocks=1)
        (fault,) = kernel.faults({})
        assert "1 block(s) of 384 threads with 168 registers each, where two must fit" in fault
        monkeypatch.setitem(script.ONE_BLOCK, "some<", "because")
        assert kernel.faults({}) == []

    def test_threads_are_read_from_an_elf(self, script):
        # a table of two parts, the names of parts and what is known of a kernel
        names = b"\0.nv.info.some\0.other\0"
        info = bytes([3, 0x1B, 255, 0, 4, 5, 12, 0, *(384).to_bytes(4, "little"), 1, 0, 0, 0, 1, 0, 0, 0])
        at_info, at_table = 64 + len(names), 64 + len(names) + len(info)
        header = bytearray(64)
        header[40:48] = at_table.to_bytes(8, "little")
        header[58:64] = struct.pack("<3H", 64, 2, 0)
        parts = [(15, 3, 0, 0, 64, len(names)), (1, 0x70000000, 0, 0, at_info, len(info))]
        table = b"".join(struct.pack("<IIQQQQ", *part).ljust(64, b"\0") for part in parts)
        assert script.threads(bytes(header) + names + info + table) == {"some": 384}


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
    assert all(kernel["threads"] and kernel["blocks"] for kernel in found)


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
