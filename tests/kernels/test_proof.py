"""Which kernels a process goes by on a GPU: what it concludes, from what, and how often.

There is no GPU: tensors without memory stand for those on one, and a function for the child.
"""

import logging

import pytest
import torch

from geokernels.kernels import dispatch, native, proof, triton
from geokernels.kernels.proof_cache import Verdict
from geokernels.kernels.proof_runner import Outcome

from .proofs import KERNELS, NATIVE, PLAN, begin_anew, clouds, order, verdict


def test_the_fastest_right_one_runs(gpu, looks):
    assert order() == KERNELS
    refusals = {"native": None, "triton": None, "reference": None}
    assert dispatch.choose("sinkhorn", refusals, None, *clouds()) == "native"
    refusals["native"] = lambda: "it cannot"
    assert dispatch.choose("sinkhorn", refusals, None, *clouds()) == "triton"
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (verdict(1.2, 1.1, 50.0), "native"),
        (verdict(50.0, 1.09, 50.0), "reference"),  # not at every size
        (verdict(0.5, 0.5, 0.5), "reference"),
        (verdict(5.0, 5.0, 5.0, float32="wrong"), "reference"),
        (verdict(5.0, 5.0, 5.0, float64="wrong"), "native"),
        (Verdict("2026-01-02", {"": "it died"}, {"small float32": [5.0]}), "reference"),
        (verdict(), "reference"),
        (verdict(9.0, asked="middle float32"), "reference"),
        (verdict(9.0, asked="small float64"), "reference"),
    ],
)
def test_what_is_taken(gpu, looks, found, expected):
    looks.outcome = Outcome(PLAN[:1], {PLAN[0]: found}, {})
    assert order()[0] == expected


def test_triton_is_taken_where_it_is_faster(gpu, looks):
    looks.outcome = NATIVE._replace(
        verdicts={PLAN[0]: verdict(2.0, 3.0, 4.0), PLAN[1]: verdict(5.0, 5.0, 5.0)}
    )
    assert order()[:2] == ("triton", "native")


def test_classes_of_size_and_precision(gpu, looks):
    three = {"small float32": [2.0], "large and wide float32": [2.0], "middle half": [2.0]}
    looks.outcome = Outcome(PLAN[:1], {PLAN[0]: Verdict("2026-01-02", {}, three)}, {})
    for expected, sizes, dtype in (
        ("native", (64, 1, 999), torch.float32),
        ("reference", (65, 1), torch.float32),
        ("reference", (1, 257, 128), torch.float32),
        ("native", (1, 257, 129), torch.float32),
        ("native", (65, 256), torch.bfloat16),
        ("native", (65, 256), torch.float16),
        ("reference", (1, 1), torch.float64),
    ):
        assert order(*sizes, dtype=dtype)[0] == expected, (sizes, dtype)
    assert proof.order("project", *clouds()) == proof.DEFINITION
    assert len(looks) == 1


def test_asking_what_is_known_proves_nothing(gpu, looks):
    assert proof.holds(PLAN[0]) is None
    assert not looks


def test_one_line_says_that_it_waits(gpu, looks, caplog, monkeypatch):
    with caplog.at_level(logging.WARNING):
        order(), order(64, 64), order(300, 300)
    assert len(caplog.messages) == 1
    assert "NVIDIA H200" in caplog.text
    assert "GEOKERNELS_PROOF=off" in caplog.text
    begin_anew(monkeypatch)
    caplog.clear()
    order()
    assert not caplog.messages


def test_off_is_the_definition(gpu, looks, monkeypatch):
    order()
    begin_anew(monkeypatch)
    monkeypatch.setenv(proof.VARIABLE, "off")
    assert order() == proof.DEFINITION
    assert len(looks) == 1


def test_a_setting_that_nobody_knows(gpu, looks, monkeypatch):
    monkeypatch.setenv(proof.VARIABLE, "of")
    with pytest.raises(ValueError, match=r"GEOKERNELS_PROOF must be on, off or a file .* got 'of'"):
        order()
    assert not looks


def test_a_named_backend_asks_nobody(gpu, looks):
    refusals = {"native": None, "reference": None}
    assert dispatch.choose("sinkhorn", refusals, "native", *clouds()) == "native"
    refusals["native"] = lambda: "compute capability 7.0"
    with pytest.raises(dispatch.BackendError, match=r"native: compute capability 7\.0"):
        dispatch.choose("sinkhorn", refusals, "native", *clouds())
    assert not looks


def test_the_cpu_asks_nobody(gpu, looks):
    x = torch.zeros(1, 2, 3)
    assert dispatch.choose("sinkhorn", {"native": None, "reference": None}, None, x, x) == "native"
    assert not looks


def test_what_is_no_gpu_asks_nobody(looks):
    # the fixture that makes tensors without memory stand for a GPU is not there
    assert order() == proof.DEFINITION
    assert not looks


def test_other_gpus_run_the_definition_and_say_so_once(gpu, looks, monkeypatch, caplog):
    monkeypatch.setattr(proof, "refuse", lambda device: "the GPU kernels need compute capability 8.0")
    for _ in range(2):
        assert order() == proof.DEFINITION
    assert caplog.messages == [
        "geokernels runs its definitions on this GPU: the GPU kernels need compute capability 8.0"
    ]
    monkeypatch.undo()
    monkeypatch.setattr(proof, "_said", set())
    caplog.clear()

    class OnApple:
        device = torch.device("mps")

    for _ in range(2):
        assert proof.order("sinkhorn", OnApple) == proof.DEFINITION
    assert caplog.messages == ["geokernels runs its definitions on mps: its GPU kernels are for NVIDIA's"]
    assert not looks


def test_old_cards_rocm_and_installations_without_kernels_are_refused(monkeypatch):
    class Gpu:
        name, major, minor = "Tesla T4", 7, 5

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: Gpu)
    assert "Tesla T4 has 7.5" in proof.refuse(0)
    Gpu.major = 9
    monkeypatch.setattr(native, "missing_cuda", "built without CUDA")
    monkeypatch.setattr(triton, "missing", None)
    assert proof.refuse(0) is None
    monkeypatch.setattr(triton, "missing", "triton is not installed")
    assert proof.refuse(0) == "built without CUDA; triton is not installed"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "ROCm 6.4" in proof.refuse(0)


def test_nothing_is_concluded_while_a_graph_is_captured(gpu, looks, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    assert order() == proof.DEFINITION
    assert not looks
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    assert order() == KERNELS
    # what is known then holds for graphs too
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    assert order() == KERNELS


def compiled():
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="eager")
    def first_is_native(x, y):
        return x + (1 if proof.order("sinkhorn", x, y)[0] == "native" else 0)

    return lambda size=3: bool(first_is_native(torch.zeros(1, size, 2), torch.zeros(1, size, 2))[0, 0, 0])


def test_nothing_is_concluded_while_a_graph_is_traced(gpu, looks):
    run = compiled()
    assert not run()
    assert not looks
    assert order() == KERNELS
    # what is compiled keeps its choice
    assert not run()
    assert compiled()()


def test_a_traced_graph_goes_by_what_was_kept(gpu, looks, monkeypatch):
    order()
    begin_anew(monkeypatch)
    assert compiled()()
    assert len(looks) == 1


@pytest.mark.parametrize("strict", [True, False])
def test_a_program_that_is_exported_is_the_definition(gpu, looks, strict):
    order()

    class Chooses(torch.nn.Module):
        def forward(self, x, y):
            return x + (1 if proof.order("sinkhorn", x, y)[0] == "native" else 0)

    points = torch.export.Dim("points", min=2, max=500)  # of more than one class
    sizes = {"x": {1: points}, "y": {1: points}}
    x = torch.zeros(1, 3, 2)
    program = torch.export.export(Chooses(), (x, x), dynamic_shapes=sizes, strict=strict)
    assert not program.module()(x, x).any()


def test_the_gpu_is_called_what_this_process_was_told(monkeypatch):
    class Gpu:
        uuid = "1234"

    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: Gpu)
    for visible, device, expected in (
        ("", 1, "GPU-1234"),
        ("2,3", 1, "GPU-1234"),
        ("GPU-a,GPU-b", 1, "GPU-b"),
        ("MIG-a", 0, "MIG-a"),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert proof.gpu_of(device) == expected
    monkeypatch.delattr(Gpu, "uuid")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert proof.gpu_of(1) == "3"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert proof.gpu_of(1) == "1"
