"""Floors on a GPU are those that the cases of the CPU count, and the tables show what files say."""

import json

import pytest
import torch

from benchmarks import tables
from benchmarks.gpu import compiled, floors
from benchmarks.gpu import tables as gpu_tables
from benchmarks.operators import clouds as cloud_cases
from benchmarks.operators import geodesic as geodesic_cases
from benchmarks.operators import gpu as gpu_cases
from benchmarks.operators import transport as transport_cases


def test_small_transport_counts_as_its_cases_do():
    cost, eps = transport_cases.given_cost(64, transport_cases.EPS)
    steps = transport_cases.solve(cost, eps, transport_cases.TOLERANCE).iterations.double().mean().item()
    assert steps == pytest.approx(floors.SMALL_STEPS, rel=0.01)
    counted = transport_cases.work_of(cost, eps, transport_cases.TOLERANCE)
    found = floors.small(64, 77, None, steps, 4)
    assert found["flops"] == pytest.approx(counted.flops)
    assert found["exps"] == counted.exps
    assert found["bytes"] == counted.bytes
    x, y, eps = transport_cases.points(64)
    counted = transport_cases.work_from_points(x, y, eps)
    found = floors.small(64, 77, 768, floors.SMALL_STEPS, 4)
    assert found["flops"] + found["products"] == pytest.approx(counted.flops, rel=0.01)
    assert found["bytes"] == pytest.approx(counted.bytes, rel=0.01)


def test_clouds_count_as_their_cases_do():
    x, y, eps = cloud_cases.clouds(8, 1000)
    counted = cloud_cases.work_of((x, y, eps), cloud_cases.TOLERANCE)
    found = floors.clouds(1000, 8, counted.exps / 1000**2)
    assert found["products"] == pytest.approx(counted.flops)
    assert found["bytes"] == pytest.approx(counted.bytes, rel=0.2)  # with what comes out


def test_cosines_count_as_their_case_does():
    case = next(case for case in geodesic_cases.cases() if case.name.startswith("1024 times"))
    counted = case.work(tuple(torch.empty(1024, 16, 512, device="meta") for _ in range(4)))
    found = floors.cosines(1024, 16, 512)
    assert found["flops"] == counted.flops
    assert found["bytes"] == counted.bytes


def test_the_slowest_unit_decides():
    card = floors.Card("a card", multiprocessors=10, bandwidth=100.0, flops=1000.0, products=10_000.0)
    work = {"work": "", "asked": "", "case": ""}
    assert floors.Target(**work, problems=99, bytes=200, flops=1000).floor(card) == (2.0, "memory")
    assert floors.Target(**work, problems=99, bytes=50, flops=1000).floor(card) == (1.0, "float32")
    # two problems keep two of ten multiprocessors busy
    assert floors.Target(**work, problems=2, bytes=200, flops=1000).floor(card) == (5.0, "float32")
    assert floors.Target(**work, problems=99, bytes=0, exps=125).floor(card) == (2.0, "exponentials")


def test_every_target_has_its_case(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    names = {case.name for case in gpu_cases.cases()}
    assert {target.case for target in floors.TARGETS} <= names


def rows(case):
    who = {"case": case, "gpu": "a card", "targets": {}}
    ours = {"side": "ours", "name": "native", "median_s": 2e-3}
    return [who | ours, who | {"side": "rival", "name": "POT", "median_s": 3e-2}]


def test_what_was_measured_is_shown_and_what_was_not_is_said():
    first, *others = floors.TARGETS
    shown = gpu_tables.targets({"rows": rows(first.case)}, tables.as_table).splitlines()[2:]
    assert "| 2 ms (a card), 15 x faster than POT |" in shown[0]
    assert len(shown) == len(others) + 1
    assert all("| not measured |" in line for line in shown[1:])
    assert gpu_tables.targets(None, tables.as_table).count("| not measured |") == len(floors.TARGETS)


CUDA = [
    {"arch": "sm_90", "name": "sinkhorn_kernel<float>", "registers": 96, "threads": 384, "shared": 2048}
    | {"blocks": 2, "counts": {"instructions a pair": 7.25}, "tensor": None}
    | {"iteration": {"all": 812, "double": 0}, "in_flight": [2, 16]},
    {"arch": "sm_90", "name": "sinkhorn_kernel<double>", "registers": 200},
    {"arch": "sm_80", "name": "sinkhorn_kernel<float>", "registers": 97},
]
TRITON = [{"arch": "sm_90", "name": "sweep square bf16x3 64", "registers": 99, "threads": 128}]


class TestCompiled:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        pytest.importorskip("triton")
        monkeypatch.setattr(compiled, "RESULTS", tmp_path / "results.json")

        def with_files(cuda, triton):
            for name, kernels in (("cuda", cuda), ("triton", triton)):
                (tmp_path / name).write_text(json.dumps(kernels))
            return compiled.main([str(tmp_path / "cuda"), str(tmp_path / "triton")])

        return with_files

    def test_keeps_what_is_shown(self, run):
        assert run(CUDA, TRITON) == 0
        contents = json.loads(compiled.RESULTS.read_text())
        assert [kernel["registers"] for kernel in contents["kernels"]] == [96, 99]
        shown = gpu_tables.kernels(contents, tables.as_table)
        counted = "all an iteration 812; loads before the first store 16; instructions a pair 7.25"
        assert f"| `sinkhorn_kernel<float>`, CUDA | 96 | 384 |  | 2 | {counted} |" in shown
        assert "| `sweep square bf16x3 64`, Triton | 99 | 128 |  |  |  |" in shown

    def test_files_without_kernels_are_refused(self, run, capsys):
        assert run(CUDA, []) == 2
        assert "the Triton file must have kernels for sm_90, it has none" in capsys.readouterr().err
        assert not compiled.RESULTS.exists()
