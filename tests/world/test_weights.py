"""The weights that ship are those that were measured: recorded, verified, free of code, in the wheel."""

import importlib.resources
import json
import shutil
from pathlib import Path

import pytest
import setuptools
from safetensors import safe_open

import geokernels
from geokernels._files import sha256
from geokernels.models import load_clip, load_diffusion, load_generator

PACKAGE = Path(geokernels.__file__).parent
WEIGHTS = PACKAGE / "world" / "weights"
NAMES = sorted(path.name.removesuffix(".record.json") for path in WEIGHTS.glob("*.record.json"))
LOADERS = {
    "world-clip": load_clip,
    "world-evaluation-clip": lambda: load_clip("world-evaluation"),
    "world-generator": load_generator,
    "world-diffusion": load_diffusion,
    "world-flow": lambda: load_diffusion("world-flow"),
}


def recorded(name: str, weights: Path = WEIGHTS) -> dict[Path, str]:
    """The files that a record names, with their digests."""
    record = json.loads((weights / f"{name}.record.json").read_text())
    if isinstance(record["sha256"], str):
        return {weights / record["file"]: record["sha256"]}
    return {weights / name / file: digest for file, digest in record["sha256"].items()}


def test_every_weight_is_recorded_as_it_is():
    known = {path: digest for name in NAMES for path, digest in recorded(name).items()}
    assert {path: sha256(path) for path in known} == known
    assert set(WEIGHTS.rglob("*.safetensors")) <= set(known)


def test_nothing_that_ships_executes_code():
    for path in PACKAGE.rglob("*"):
        if path.suffix == ".safetensors":
            # refuses all but a header of names, shapes and offsets, and the numbers that it accounts for
            with safe_open(path, framework="pt") as file:
                assert file.keys()
        elif path.is_file() and path.suffix not in (".pyc", ".so"):
            path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_refused(name, tmp_path, monkeypatch):
    weights = shutil.copytree(WEIGHTS, tmp_path / "world" / "weights")
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    if name in ("world-diffusion", "world-flow"):
        pytest.importorskip("diffusers")
    LOADERS[name]()
    heaviest = max(recorded(name, weights), key=lambda path: path.stat().st_size)
    content = bytearray(heaviest.read_bytes())
    content[-1] ^= 1
    heaviest.write_bytes(content)
    with pytest.raises(ValueError, match=r"install .* again"):
        LOADERS[name]()


def test_the_wheel_holds_every_weight(monkeypatch):
    root = PACKAGE.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("the package is not run from a clone")
    monkeypatch.chdir(root)
    distribution = setuptools.Distribution()
    distribution.parse_config_files(["pyproject.toml"])
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    build.manifest_files = {}  # what a source distribution would add
    held = {Path(path) for path in build.find_data_files("geokernels", "geokernels")}
    wanted = {path.relative_to(root) for path in WEIGHTS.rglob("*") if path.is_file()}
    assert {Path("geokernels/report/templates/page.html"), *wanted} <= held


def test_no_configuration_names_a_folder_of_the_machine_that_made_it():
    for path in WEIGHTS.rglob("*.json"):
        if not path.parent.name.startswith("tokenizer"):  # whose vocabulary holds every letter
            assert '"/' not in path.read_text(encoding="utf-8"), path
