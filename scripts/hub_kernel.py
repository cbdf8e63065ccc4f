"""Lays out the operators as a kernel for the Hub, for ``kernels`` of Hugging Face to load.

    python scripts/hub_kernel.py FOLDER

FOLDER becomes a project that kernel-builder compiles (``build.toml``, ``flake.nix``, ``CARD.md``, ``csrc``,
``torch-ext``), with what is compiled here in ``build`` as the variant for this machine's CPU: the library
that the package itself has, unchanged, as operators are registered in the namespace of the package that a
library lies in. ``kernels.get_local_kernel(FOLDER, backend="cpu")`` loads it.
"""

import argparse
import base64
import hashlib
import json
import platform
import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HUB = ROOT / "integrations" / "hub"
PACKAGE = ROOT / "geokernels"
PARTS = ("kernels", "losses", "ops", "reference")
# kernel-builder puts the library beside the package's other files, under the name that its _ops has
LIBRARY = '''"""The compiled library, which has a name of its own beside this package's other files."""

import sys
from importlib import import_module

from .._ops import ops

sys.modules[__name__] = import_module(f"..{ops.name}", __package__)
'''


def python_files() -> list[Path]:
    """The package's files that the operators need, relative to it."""
    here = [path for path in PACKAGE.glob("*.py") if path.name != "__main__.py"]
    parts = [path for part in PARTS for path in PACKAGE.joinpath(part).rglob("*.py")]
    return sorted(path.relative_to(PACKAGE) for path in here + parts)


def copy(files: list[Path], source: Path, target: Path) -> None:
    """Copy files, given relative to ``source``, to ``target``."""
    for file in files:
        target.joinpath(file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, target / file)


def lay_out_project(folder: Path) -> None:
    """Write what kernel-builder takes: the sources, and how to build them."""
    described = tomllib.loads((HUB / "build.toml").read_text())
    sources = [*described["torch"]["src"], *described["kernel"]["geokernels_cpu"]["src"]]
    copy([Path("build.toml"), Path("flake.nix"), Path("CARD.md")], HUB, folder)
    copy([*map(Path, sources), Path("LICENSE")], ROOT, folder)
    package = folder / "torch-ext" / described["general"]["name"]
    copy(python_files(), PACKAGE, package)
    (package / "kernels" / "_C.py").write_text(LIBRARY)


def lay_out_variant(folder: Path, library: Path) -> Path:
    """Write the variant of a library, and return its folder under ``build``.

    Args:
        folder: Of the kernel.
        library: The compiled library, which must be for all versions of Python.

    Raises:
        ValueError: If it is for one version of Python.
    """
    if not library.name.endswith(".abi3.so"):
        raise ValueError(f"a kernel for the Hub is a library for all versions of Python, got {library.name}")
    described = tomllib.loads((HUB / "build.toml").read_text())
    general, abi = described["general"], described["torch"]["stable-abi"]["cpu"]
    name = f"torch-stable-abi{abi.replace('.', '')}-cpu-{platform.machine()}-{platform.system().lower()}"
    variant = folder / "build" / name
    copy(python_files(), PACKAGE, variant)
    shutil.copyfile(library, variant / "kernels" / library.name)
    files = {}
    for path in sorted(path for path in variant.rglob("*") if path.is_file()):
        read = hashlib.sha256(path.read_bytes()).digest()
        files[path.relative_to(variant).as_posix()] = base64.b64encode(read).decode()
    unique = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:10]
    about = {
        "id": f"_{general['name']}_cpu_{unique}",  # the namespace of the operators
        "name": general["name"],
        "version": general["version"],
        "license": general["license"],
        "python-depends": [],
        "backend": {"type": "cpu"},
        "digest": {"algorithm": "sha256", "files": files},
    }
    (variant / "metadata.json").write_text(json.dumps(about, indent=2) + "\n")
    return variant


def main() -> int:
    """Lay both out in the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.exists():
        print(f"{folder} is there already; name a new folder", file=sys.stderr)
        return 2
    built = sorted(PACKAGE.glob("kernels/_C*.so"))
    if not built:
        print("the library is not compiled; run make env", file=sys.stderr)
        return 2
    try:
        variant = lay_out_variant(folder, built[0])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    lay_out_project(folder)
    print(f"{folder} is a project for kernel-builder; compiled here: {variant.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
