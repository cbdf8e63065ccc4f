"""Every Triton kernel compiles for GPUs that are not here: nothing spills, tensor cores are in use."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from geokernels.kernels.triton.registration import of_launch

SCRIPT = Path(__file__).parents[2] / "scripts" / "compile_triton.py"


@pytest.mark.slow
def test_every_kernel_compiles_ahead_of_time(tmp_path):
    # in a process without the interpreter, and without what was compiled before
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        env={**clean, "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]
    assert " 0 at fault" in run.stdout


LOOP = """
    ld.param.b64 %rd1, [some_kernel_param_0];
    ld.param.b64 %rd2, [some_kernel_param_1];
    mad.wide.s32 %rd3, %r1, 4, %rd1;
    bra.uni $L__BB0_2;
$L__BB0_1:
    @%p2 st.global.b32 [ %rd3 + 0 ], { %r3 };
    bar.sync 0;
    @%p3 bra $L__BB0_3;
$L__BB0_2:
    ld.global.b32 { %r3 }, [ %rd3 + 0 ]; // then stored in the block above
    @%p1 ld.global.v2.b32 { %r4, %r5 }, [ %rd2 + 0 ];
    bar.sync 1;
    bra.uni $L__BB0_1;
$L__BB0_3:
    ret;
"""


@pytest.mark.parametrize(
    ("gone", "found"),
    [
        ("", []),
        ("bar.sync 0", [(0, "stored and then loaded, with no barrier in between")]),
        ("bar.sync 1", [(0, "loaded and then stored, with no barrier in between")]),
    ],
)
def test_memory_without_a_barrier_is_found_on_any_path(gone, found):
    spec = importlib.util.spec_from_file_location("ptx_barriers", SCRIPT.with_name("ptx_barriers.py"))
    ptx_barriers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ptx_barriers)
    assert ptx_barriers.unordered(LOOP.replace(gone or "\0", "")) == found


ORDERED = """
import re, sys
sys.path.insert(0, {folder!r})
import compile_triton

(variant,) = (one for one in compile_triton.variants() if one.name == "sinkhorn 64")
code = re.sub(r" loc\\(.*", "", compile_triton.compiled(variant, 80).asm["ttir"])
print(*re.findall(r"load|store|barrier|scf.for", code))
"""


def test_rows_are_stored_when_every_warp_has_loaded_them():
    # said by the kernel itself: below it, conversions of layouts bring barriers by chance
    words = printed_by(ORDERED.format(folder=str(SCRIPT.parent)))
    assert "scf.for load load load store barrier store barrier" in " ".join(words)


TRACED = """
import torch
from torch._functorch.aot_autograd import aot_export_module
from torch._subclasses import FakeTensorMode
from geokernels.kernels.triton import geodesic, subspace, transport, transport_clouds

ops, no = torch.ops.geokernels, None
calls = {
    ops.triton_multiply_clouds: ((2, 70, 5), (2, 90, 5), (2, 70), (2, 90), no, no, (2, 90, 7), 1, 2.0, 2),
    ops.triton_sinkhorn: ((2, 70, 50), no, no, no, no, no, 0.1, 1e9, 10, 1e-3),
    ops.triton_decompose_rows: ((2, 5, 9),),
    ops.triton_geodesic_cosine: ((2, 3, 9), (2, 3, 9), (2, 9, 4), (2, 9, 5), 1e-12),
}
for operator, args in calls.items():
    class Call(torch.nn.Module):
        def forward(self, *tensors):
            given = iter(tensors)
            found = operator(*(next(given) if isinstance(arg, tuple) else arg for arg in args))
            return found if isinstance(found, tuple) else (found,)

    with FakeTensorMode():
        tensors = [torch.empty(arg, device="cuda") for arg in args if isinstance(arg, tuple)]
        graph, _ = aot_export_module(Call(), tensors, trace_joint=False)
    print([str(node.target) for node in graph.graph.nodes].count("triton_kernel_wrapper_functional"))
"""


def printed_by(program: str) -> list[str]:
    """The words that a program prints, in a process without the interpreter."""
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=clean
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.split()


def test_the_compiler_sees_the_kernels():
    # tensors without memory, of a GPU that need not be there
    # small problems: the iteration, and the value where costs are far below eps; cosines: bases, and rows
    assert printed_by(TRACED) == ["1", "2", "1", "2"]


CHAINED = """
import re, sys
sys.path.insert(0, {folder!r})
import compile_triton

wanted = ("sweep square bf16x3 64", "multiply square bf16x3 64")
for variant in (one for one in compile_triton.variants() if one.name in wanted):
    code = compile_triton.compiled(variant, 80).asm["ttir"]
    dots = re.findall(r"(%[\\w.]+) = tt.dot %[\\w.]+, %[\\w.]+, (%[\\w.]+)", code)
    made = {{result for result, _ in dots}}
    print(len(dots), sum(to in made for _, to in dots))
"""


def test_no_product_is_added_to_one_of_the_same_step():
    # wrong on Blackwell under Triton 3.6 to 3.8: triton-lang/triton, issue 10821
    words = printed_by(CHAINED.format(folder=str(SCRIPT.parent)))
    assert all(int(dots) >= 3 for dots in words[::2])
    assert words[1::2] == ["0", "0"]


def test_a_tracer_is_given_no_bound_of_registers():
    # torch.compile knows the number of warps and of stages alone
    options = {"num_warps": 8, "num_stages": 3}
    assert of_launch(torch.zeros(1), 8, 128) == {**options, "maxnreg": 128}
    assert of_launch(torch.zeros(1), 8) == options
    with FakeTensorMode():
        assert of_launch(torch.zeros(1), 8, 128) == options
