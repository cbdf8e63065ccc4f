"""What is published: archives hold what building reads, workflows and settings name what is there."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from geokernels.kernels import native

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# folders and files that come to be where a workflow runs
MADE = {"dist", "site", "wheelhouse"}


def python(*words, folder=ROOT, **settings):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=os.environ | {"FORCE_CUDA": "0"} | settings,
        capture_output=True,
        text=True,
    )


def steps(workflow):
    """Every step of every job, with the settings of its job's environment."""
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def targets():
    rules = re.findall(r"^([\w .%-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M)
    return {name for rule in rules for name in rule.split()}


def require_named(text):
    """Fail where a command names a target, a path or a module of this repository that is not there."""
    for target in re.findall(r"\bmake ([\w-]+)", text):
        assert target in targets(), f"make {target}"
    for placed, path in re.findall(r"(?<![\w/.:-])(\{project\}/)?((?:[\w.-]+/)*[\w.*-]+)", text):
        ours = "/" in path and path.split("/")[0] not in MADE and (ROOT / path.split("/")[0]).exists()
        if placed or ours:
            assert list(ROOT.glob(path)), path


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_name_what_is_there(workflow):
    held = yaml.safe_load(workflow.read_text())
    events = held[True]  # YAML reads "on" as a truth
    assert {"jobs", "permissions"} <= held.keys()
    for path in (events.get("pull_request") or {}).get("paths", []):
        assert (ROOT / path).exists(), path
    for job in held["jobs"].values():
        assert job["timeout-minutes"] <= 180
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step), step
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d[\d.]*", step.get("uses", "a/b@v1")), step
        require_named(step.get("run", ""))
        for setting in step.get("env", {}).values():
            require_named(str(setting))
        for path in str(step.get("with", {}).get("path", "")).split():
            assert path.split("/")[0] in MADE, path
        for path in str(step.get("with", {}).get("cache-dependency-path", "")).split():
            assert (ROOT / path).exists(), path


def test_wheels_are_built_for_every_python_and_processor():
    settings = PROJECT["tool"]["cibuildwheel"]
    assert [name.split("-")[0] for name in settings["build"]] == ["cp311", "cp312", "cp313", "cp314"]
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    for value in settings.values():
        require_named(str(value))
    wheels = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text())
    machines = wheels["jobs"]["cpu"]["strategy"]["matrix"]["include"]
    assert {entry["machine"]: entry["runner"] for entry in machines} == {
        "x86_64": "ubuntu-24.04",
        "aarch64": "ubuntu-24.04-arm",
    }


def test_what_is_wrong_in_a_workflow_is_found():
    for wrong in ("make nothing", "sh scripts/nothing.sh", "pytest {project}/tests/nothing"):
        with pytest.raises(AssertionError, match="nothing"):
            require_named(wrong)


def test_all_is_what_every_command_needs():
    extras = PROJECT["project"]["optional-dependencies"]
    everything, *_ = extras["all"]
    named = set(re.fullmatch(r"geokernels\[(.*)\]", everything)[1].split(","))
    assert named == extras.keys() - {"all", "test", "bench", "docs", "lint"}


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="there is no stable ABI")
def test_the_library_is_for_all_versions_of_python():
    assert native._C.__file__.endswith("/_C.abi3.so")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What of the repository goes into a package; building writes beside it."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a clone of the repository")
    folder = tmp_path_factory.mktemp("clone")
    for path in map(Path, listed.stdout.split()):
        if path.parts[0] in ("csrc", "geokernels") or (len(path.parts) == 1 and (ROOT / path).exists()):
            folder.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
    return folder


@pytest.fixture(scope="module")
def archive(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    code = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    done = python("-W", "ignore", "-c", code, folder, folder=clone)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def test_the_archive_holds_what_building_reads(archive, clone):
    with tarfile.open(archive) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    here = [path for part in ("csrc", "geokernels") for path in clone.joinpath(part).rglob("*")]
    built_of = [str(path.relative_to(clone)) for path in here if path.is_file() and path.suffix != ".pyc"]
    assert len(built_of) > 300
    named = ["setup.py", "pyproject.toml", "constraints.txt", "LICENSE", "README.md", "CMakeLists.txt"]
    assert not [path for path in built_of + named if path not in held]
    assert not [path for path in held if path.endswith((".so", ".pyc"))]


@pytest.mark.long
def test_a_wheel_of_the_archive_works(archive, tmp_path):
    """Where there is nothing but torch and what compiles; minutes on few processors."""
    wheel = ["-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", tmp_path, archive]
    done = python(*wheel)
    assert done.returncode == 0, done.stderr
    (built,) = tmp_path.glob("geokernels-*-cp311-abi3-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    unpacked = tmp_path / "unpacked"
    assert python("-m", "zipfile", "-e", built, unpacked).returncode == 0
    there = os.pathsep.join([str(unpacked), sysconfig.get_paths()["purelib"]])
    code = "import geokernels, torch; x = torch.ones(2, 3); print(geokernels.__file__); "
    code += "print(geokernels.sinkhorn(x, x, eps=1.0, backend='native').value)"
    run = [tmp_path / "venv" / "bin" / "python", "-P", "-c", code]
    said = subprocess.run(run, env={"PYTHONPATH": there}, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(str(unpacked))


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (
            {"GEOKERNELS_LOCAL_VERSION": "cu 130"},
            "GEOKERNELS_LOCAL_VERSION must be letters and digits like cu130, got cu 130",
        ),
        ({"OLD": "76.1.0"}, "setuptools 76.1.0 is too old; pip install 'setuptools>=77'"),
    ],
    ids=["version", "setuptools"],
)
def test_a_build_that_cannot_be_is_refused_in_a_sentence(settings, sentence):
    code = """
import os, runpy, setuptools, sys
setuptools.__version__ = os.environ.get("OLD", setuptools.__version__)
sys.argv = ["setup.py", "--version"]
runpy.run_path("setup.py")
"""
    done = python("-W", "ignore", "-c", code, **settings)
    assert done.stderr.splitlines()[-1] == f"geokernels cannot be built: {sentence}"
    assert done.returncode == 1


def test_the_version_says_what_a_wheel_has_more(clone, tmp_path):
    code = "import sys; from setuptools import build_meta as build; "
    code += "build.prepare_metadata_for_build_wheel(sys.argv[1])"
    done = python("-W", "ignore", "-c", code, tmp_path, folder=clone, GEOKERNELS_LOCAL_VERSION="cu130")
    assert done.returncode == 0, done.stderr
    (about,) = tmp_path.glob("*.dist-info/METADATA")
    assert f"Version: {PROJECT['project']['version']}+cu130" in about.read_text().splitlines()
