"""The weights that the package carries: where they are, and that they are the ones that were measured."""

import hashlib
import json
from importlib import resources
from pathlib import Path


def embedded(name: str) -> Path:
    """The path of the embedded file or folder ``name``, which need not exist."""
    return Path(str(resources.files("geokernels"))) / "world" / "weights" / name


def verify(path: Path) -> None:
    """Refuse an embedded file, or a folder of them, that is not the one that was measured.

    Raises:
        FileNotFoundError: If a file, or the ``.record.json`` beside ``path``, is missing.
        ValueError: Unless every sha256 is that of the record.
    """
    recorded = json.loads(_read(path.with_suffix(".record.json")))["sha256"]
    files = {path: recorded} if isinstance(recorded, str) else {path / n: r for n, r in recorded.items()}
    for file, expected in files.items():
        digest = hashlib.sha256(_read(file)).hexdigest()
        if digest != expected:
            raise ValueError(
                f"{file.name} must have sha256 {expected}, got {digest}; install geokernels again"
            )


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(
            f"geokernels must have its own weights, found no {path.name}; install it again"
        )
    return path.read_bytes()
