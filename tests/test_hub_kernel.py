"""The operators as a kernel for the Hub: loaded by ``kernels``, they agree with those of the package."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import geokernels as gk
from geokernels.kernels import native

ROOT = Path(__file__).parents[1]
HUB = ROOT / "integrations" / "hub"
kernels = pytest.importorskip("kernels", reason="kernels is not installed")
from kernels._rust import Build, Digest, DigestAlgorithm, Metadata  # noqa: E402


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import hub_kernel
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return hub_kernel


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "geokernels"
    script.lay_out_variant(folder, Path(native._C.__file__))
    script.lay_out_project(folder)
    return folder


@pytest.fixture(scope="module")
def kernel(folder):
    return kernels.get_local_kernel(folder, backend="cpu")


def clouds(*, dtype=torch.float32):
    chance = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, rows, 8, generator=chance, dtype=dtype) for rows in (9, 12))


def test_operators_agree_with_the_package(kernel):
    x, y = clouds()
    ours, theirs = (of.sinkhorn(x, y, eps=0.5, backend="native") for of in (gk, kernel))
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.f, theirs.f)
    assert type(theirs) is not type(ours), "the package was loaded in place of the kernel"
    angles = [
        of.principal_angles(*(of.subspace_basis(part, rank=3).basis for part in (x, y)))
        for of in (gk, kernel)
    ]
    assert torch.equal(*angles)


def test_gradients_agree_with_the_package(kernel):
    gradients = []
    for of in (gk, kernel):
        x, y = (part.requires_grad_() for part in clouds())
        p, q = of.subspace_basis(x).basis, of.subspace_basis(y).basis
        of.geodesic_cosine(x, y[:, :9], p, q, backend="native").sum().backward()
        gradients.append((x.grad, y.grad))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_operators_have_a_namespace_of_their_own(kernel, folder):
    (variant,) = folder.joinpath("build").iterdir()
    about = Metadata.read_from_file(variant / "metadata.json")
    assert kernel.__name__ == about.id != "geokernels"
    assert about.id.isidentifier()
    cost = torch.rand(2, 5, 5)
    theirs = getattr(torch.ops, about.id).assignment
    assert torch.equal(theirs(cost), torch.ops.geokernels.assignment(cost))
    torch.library.opcheck(theirs.default, (cost,))


def test_metadata_describes_the_files(folder):
    (variant,) = folder.joinpath("build").iterdir()
    about = Metadata.read_from_file(variant / "metadata.json")
    about.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
    (variant / "another.py").touch()
    with pytest.raises(Exception, match=r"another\.py"):
        about.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
    (variant / "another.py").unlink()


def test_build_toml_names_every_source(folder):
    Build.open(folder)
    described = tomllib.loads((HUB / "build.toml").read_text())
    named = {*described["torch"]["src"], *described["kernel"]["geokernels_cpu"]["src"]}
    globs = ("csrc/*.cpp", "csrc/core/*", "csrc/cpu/*", "csrc/host/*")
    assert named == {str(path.relative_to(ROOT)) for glob in globs for path in ROOT.glob(glob)}
    setup = (ROOT / "setup.py").read_text()
    major, minor = described["torch"]["stable-abi"]["cpu"].split(".")
    assert f'"0x{int(major):02x}{int(minor):02x}000000000000ULL"' in setup


# kernel-builder gives package, operators and library one name; the library compiled here is called _C
AS_COMPILED_THERE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_C", sys.argv[1])
sys.modules["_C"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
import torch
value = package.sinkhorn(torch.ones(2, 3), torch.zeros(4, 3), eps=0.5, backend="native").value
assert value == 3, value
print(torch.ops._C.sinkhorn.default)
"""


def test_project_runs_on_the_library_that_is_compiled_of_it(folder, tmp_path):
    package = tmp_path / "geokernels"
    shutil.copytree(folder / "torch-ext" / "geokernels", package)
    shutil.copy(native._C.__file__, package)
    (package / "_ops.py").write_text("import torch\nfrom . import _C\nops = torch.ops._C\n")
    run = [sys.executable, "-P", "-c", AS_COMPILED_THERE, str(package / "__init__.py")]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "_C.sinkhorn" in done.stdout


def test_kernel_imports_nothing_but_torch(script):
    allowed = {*sys.stdlib_module_names, "torch", "triton"}
    for file in script.python_files():
        for node in ast.walk(ast.parse((script.PACKAGE / file).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert {name.partition(".")[0] for name in names} <= allowed, f"{file} imports {names}"


def test_namespace_is_named_nowhere(script):
    for file in script.python_files():
        tree = ast.parse((script.PACKAGE / file).read_text())
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in documented:
                assert "geokernels::" not in str(node.value), f"{file}:{node.lineno}"
            if isinstance(node, ast.Attribute):
                assert not ast.unparse(node).startswith("torch.ops.geokernels"), f"{file}:{node.lineno}"
    for path in ROOT.joinpath("csrc").rglob("*.*"):
        assert "STABLE_TORCH_LIBRARY" not in path.read_text(), path


def test_a_library_for_one_python_is_refused(script, tmp_path):
    with pytest.raises(ValueError, match=r"all versions of Python, got _C\.cpython-311\.so"):
        script.lay_out_variant(tmp_path, Path("_C.cpython-311.so"))


def test_nothing_is_overwritten(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hub_kernel.py", str(tmp_path)])
    assert script.main() == 2
    assert capsys.readouterr().err == f"{tmp_path} is there already; name a new folder\n"
