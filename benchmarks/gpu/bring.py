"""Fill a folder with wheels for a machine with a GPU: ``python -m benchmarks.gpu.bring FOLDER``.

The checklist takes them along. Builds the wheel of geokernels for the Python that runs this, and fetches what
may be missing there. In ``brought.json`` beside them stands of which sources the wheel is.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from .sources import LIBRARY, ROOT, commit, digest

# what the tests and the command line need beside torch, compute-sanitizer, and the rivals
OTHERS = (
    "pytest", "pluggy", "iniconfig", "pytest-xdist", "execnet", "hypothesis", "sortedcontainers", "scipy",
    "typer", "click", "rich", "markdown-it-py", "mdurl", "pygments", "shellingham",
    "nvidia-cuda-sanitizer-api", "POT", "geomloss", "pykeops", "keopscore", "flash-sinkhorn",
)  # fmt: skip


def write_facts(folder: Path) -> None:
    """Say what the folder's wheel was made of."""
    facts = {"commit": commit(), "library": digest(*LIBRARY)}
    (folder / "brought.json").write_text(json.dumps(facts) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """0 when the folder has its wheel; others that cannot be had are named, and left out."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0] + ".")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    pip, where = [sys.executable, "-m", "pip"], str(options.folder)
    for old in options.folder.glob("geokernels-*.whl"):
        old.unlink()
    wheel = [*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", where, str(ROOT)]
    if code := subprocess.run(wheel, env=os.environ | {"FORCE_CUDA": "1"}).returncode:
        return code
    write_facts(options.folder)
    for name in OTHERS:
        if subprocess.run([*pip, "download", "-q", "--no-deps", "-d", where, name]).returncode:
            print(f"left out: {name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
