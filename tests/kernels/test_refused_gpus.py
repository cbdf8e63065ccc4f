"""Which GPUs the kernels run on, and what is said of the others; no GPU is needed."""

import importlib.util
import re
import subprocess
import types
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from geokernels import environment
from geokernels.kernels import dispatch, native, triton

ROOT = Path(__file__).parents[2]
LIBRARIES = sorted((ROOT / "geokernels" / "kernels").glob("_cuda*.so"))
BUILT = re.search(r'^CUDA_ARCHS = "(.+)"$', (ROOT / "setup.py").read_text(), re.MULTILINE)[1]


@pytest.fixture
def on_gpu(monkeypatch):
    """A tensor on a GPU that is not there, of a name and a capability."""
    monkeypatch.setattr(native, "missing_cuda", None)
    monkeypatch.setattr(native, "_gpus", {})
    monkeypatch.setattr(native, "IMAGES", native.images_of(BUILT))
    monkeypatch.setattr(triton, "interpreted", False)

    def make(name, major, minor):
        properties = types.SimpleNamespace(name=name, major=major, minor=minor)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
        with FakeTensorMode():
            x = torch.empty(4, 4, device="cuda")
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        return x

    return make


def refusals(x):
    return native.refuse(x, devices=("cpu", "cuda")), triton.refuse(x)


@pytest.mark.parametrize(("name", "major", "minor"), [("Tesla T4", 7, 5), ("Tesla V100-SXM2-16GB", 7, 0)])
def test_older_ones_are_refused_in_a_sentence(on_gpu, name, major, minor):
    x = on_gpu(name, major, minor)
    sentence = f"the GPU kernels need compute capability 8.0, {name} has {major}.{minor}"
    assert refusals(x) == (sentence, sentence)
    # and where nobody insists, the definition runs
    asked = {"native": lambda: native.refuse(x, devices=("cuda",)), "reference": None}
    asked["triton"] = lambda: triton.refuse(x)
    assert dispatch.choose("it", asked, None, x, order=("native", "triton", "reference")) == "reference"


def test_doctor_says_the_same(on_gpu):
    on_gpu("Tesla T4", 7, 5)
    reasons = environment.backends()
    assert reasons["native (CUDA)"] == reasons["triton"]
    assert reasons["triton"].endswith("Tesla T4 has 7.5")


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 3), (12, 1)])
def test_newer_ones_are_taken(on_gpu, capability):
    assert refusals(on_gpu("A GPU", *capability)) == (None, None)


def test_those_without_an_image_are_refused(on_gpu, monkeypatch):
    x = on_gpu("NVIDIA A100-SXM4-80GB", 8, 0)
    monkeypatch.setattr(native, "IMAGES", native.images_of("8.6;9.0a"))
    sentence = "the CUDA library was built for 8.6, 9.0, NVIDIA A100-SXM4-80GB has 8.0"
    assert refusals(x) == (sentence, None)


def test_those_of_others_are_refused(on_gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    sentence = "the GPU kernels are for NVIDIA's, and this torch is for AMD's (ROCm 6.4)"
    assert refusals(on_gpu("AMD Instinct MI300X", 9, 4)) == (sentence, sentence)
    elsewhere = types.SimpleNamespace(device=torch.device("mps"), is_cpu=False)
    compiled, by_triton = refusals(elsewhere)
    assert compiled == "no compiled kernel for device mps"
    assert by_triton.startswith("Triton kernels run on GPUs")
    assert by_triton.endswith("not on mps")


def test_tensors_of_no_gpu_are_refused():
    # made up by a tracer, on a machine without one
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with FakeTensorMode():
        x = torch.empty(4, device="cuda")
    assert native.refuse(x, devices=("cuda",)) == "torch sees no CUDA device"


def test_is_asked_while_a_graph_is_traced(on_gpu):
    # what a cache of Python's would add here is a warning
    class Asks(torch.nn.Module):
        def forward(self, x):
            return x + 1 if native.refuse(x, devices=("cuda",)) else x * 2

    x = on_gpu("Tesla T4", 7, 5)
    program = torch.export.export(Asks(), (x,), strict=True)
    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.add.Tensor
    ]


class TestImages:
    @pytest.mark.parametrize(
        "capability",
        [(8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1), (13, 0)],
        ids=str,
    )
    def test_of_a_wheel_run_on_all_from_ampere_on(self, capability):
        assert any(image.runs_on(capability) for image in native.images_of(BUILT))

    @pytest.mark.parametrize(
        ("listed", "runs", "fails"),
        [
            ("8.6", [(8, 6), (8, 9)], [(8, 0), (9, 0)]),
            ("9.0a 10.0a", [(9, 0), (10, 0)], [(10, 3), (9, 1)]),
            ("8.0;9.0+PTX", [(8, 9), (9, 0), (10, 3), (12, 0)], [(7, 5)]),
        ],
    )
    def test_run_where_nvidia_says(self, listed, runs, fails):
        images = native.images_of(listed)
        for capability in runs + fails:
            assert any(image.runs_on(capability) for image in images) == (capability in runs), capability

    @pytest.mark.skipif(not (LIBRARIES and native.IMAGES), reason="geokernels was built without CUDA")
    @pytest.mark.parametrize("kind", ["elf", "ptx"])
    def test_are_those_that_are_listed(self, kind):
        spec = importlib.util.spec_from_file_location("inspect_cuda", ROOT / "scripts" / "inspect_cuda.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        if (tool := script.cuobjdump()) is None:
            pytest.skip("there is no cuobjdump, neither beside nvcc nor in Triton's package")
        listing = subprocess.run([tool, f"--list-{kind}", LIBRARIES[0]], capture_output=True, text=True)
        images = [image.capability for image in native.IMAGES if kind == "elf" or image.ptx]
        expected = {f"{major}{minor}" for major, minor in images}
        # one of each for every source
        found = Counter(re.findall(r"\.sm_(\d+)", listing.stdout))
        assert set(found) == expected
        assert len(set(found.values())) == 1, found
