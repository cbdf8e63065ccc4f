"""``geokernels tune``, and what ``doctor`` says of kernels; the GPU, and what is found on it, are doubles."""

import json
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.kernels import proof, proof_cache, proof_runner
from geokernels.kernels.proof_cache import Verdict
from geokernels.kernels.proof_cases import names
from geokernels.kernels.proof_runner import Outcome

KEY = {"library": "abc", "gpu": "NVIDIA H200"}
FOUND = {name: Verdict("2026-01-02", {}, {"small float32": [12.0, 41.0, 20.0]}) for name in names()}
FOUND |= {
    "triton sinkhorn": Verdict("2026-01-02", {"": "it died by SIGSEGV in triton sinkhorn"}, {}),
    "native assignment": Verdict("2026-01-02", {"float64": "columns differs"}, {"small float32": [0.5]}),
    "native displacement": Verdict("2026-01-02", {}, {}),
}


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU, on which children find ``FOUND``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(proof.VARIABLE, raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA H200")
    properties = SimpleNamespace(name="NVIDIA H200", major=9, minor=0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    monkeypatch.setattr(proof_cache, "key_of", lambda device: KEY)
    monkeypatch.setattr(proof, "gpu_of", lambda device: f"GPU-{device}")
    monkeypatch.setattr(proof, "_concluded", {})
    monkeypatch.setattr(proof, "refuse", lambda device: None)
    outcomes = [Outcome(tuple(names()), FOUND, {})]
    asked = []

    def prove(skip, gpu, told, **how):
        asked.append((gpu, tuple(skip)))
        told("native sinkhorn", "start")
        told("native sinkhorn", "float32, plain")
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        return outcome._replace(
            verdicts={name: v for name, v in outcome.verdicts.items() if name not in skip}
        )

    monkeypatch.setattr(proof_runner, "prove", prove)
    return asked, outcomes


def run(*words: str):
    return CliRunner().invoke(app, [*words])


def test_it_finds_out_once(gpu):
    asked, _ = gpu
    done = run("tune")
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "native sinkhorn │ proved here on 2026-01-02, 12x to 41x" in said
    assert "triton sinkhorn │ not trusted here since 2026-01-02: it died by SIGSEGV" in said
    assert "native displacement │ cannot run here" in said
    assert "not in float64: columns differs" in said
    assert asked == [("GPU-0", ())]
    assert run("tune").exit_code == 0
    assert len(asked) == 1
    assert run("tune", "--again", "--device", "cuda:1").exit_code == 0
    assert asked[1:] == [("GPU-1", ())]


def test_what_runs_out_of_time_is_continued(gpu):
    asked, outcomes = gpu
    first, *_ = names()
    outcomes.insert(0, Outcome(tuple(names()), {first: FOUND[first]}, {"": "it did not end within 120 s"}))
    assert run("tune").exit_code == 0
    assert asked == [("GPU-0", ()), ("GPU-0", (first,))]


def test_what_cannot_be_found_out_is_said(gpu):
    asked, outcomes = gpu
    outcomes[:] = [Outcome(tuple(names()), {}, {"": "it ended with status 75: busy or unavailable"})]
    done = run("tune")
    assert done.exit_code == 1
    assert "Not found out of the rest: it ended with status 75: busy or unavailable." in done.stderr
    assert len(asked) == 1


def test_a_file_for_other_nodes(gpu, monkeypatch, tmp_path):
    assert run("tune", "--json", str(tmp_path / "found.json")).exit_code == 0
    assert json.loads((tmp_path / "found.json").read_text())["key"] == KEY
    monkeypatch.setenv(proof.VARIABLE, str(tmp_path / "found.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("geokernels.environment.facts", lambda: {})
    assert "native sinkhorn: proved here on 2026-01-02, 12x to 41x" in run("doctor").stdout
    monkeypatch.setattr(proof, "_is_on_gpu", lambda x: True)
    monkeypatch.setattr(proof, "refuse", lambda device: None)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    x = torch.empty(1, 2, 3, device="meta")
    assert proof.order("sinkhorn", x, x)[0] == "native"


def test_no_folder_to_keep_it_in(gpu, monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    done = run("tune")
    assert done.exit_code == 2
    assert "XDG_CACHE_HOME or HOME must name a folder" in done.stderr


def test_no_such_gpu(gpu):
    done = run("tune", "--device", "cuda:2")
    assert done.exit_code == 2
    assert "--device must be one of the 2 GPUs that torch sees, got cuda:2" in done.stderr


def test_a_gpu_that_has_no_kernels(gpu, monkeypatch):
    monkeypatch.setattr("geokernels.environment.facts", lambda: {})
    monkeypatch.setattr(proof, "refuse", lambda device: "Tesla T4 has compute capability 7.5")
    done = run("tune")
    assert done.exit_code == 2
    assert done.stderr == "Error: there is nothing to tune: Tesla T4 has compute capability 7.5\n"
    assert "NVIDIA H200: Tesla T4 has compute capability 7.5\n" in run("doctor").stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    done = run("tune")
    assert done.exit_code == 2
    assert done.stderr == "Error: there is nothing to tune: torch sees no NVIDIA GPU\n"
    assert "proved" not in run("doctor").stdout.split("backend=None")[0]


def test_doctor_says_what_is_known_and_proves_nothing(gpu, monkeypatch):
    asked, _ = gpu
    monkeypatch.setattr("geokernels.environment.facts", lambda: {})
    assert "NVIDIA H200: no kernel proved yet" in run("doctor").stdout
    assert not asked
    run("tune")
    assert "native sinkhorn: proved here on 2026-01-02, 12x to 41x\n" in run("doctor").stdout
    monkeypatch.setenv(proof.VARIABLE, "off")
    assert "GEOKERNELS_PROOF=off is set" in run("doctor").stdout
    assert len(asked) == 1
