"""The weights that the package carries: where they are, and that they are the ones that were measured."""

import hashlib
import json
from importlib import resources
from pathlib import Path


def embedded(name: str) -> Path:
    """The path of the embedded ``name``.safetensors, which need not exist."""
    return Path(str(resources.files("geokernels"))) / "world" / "weights" / f"{name}.safetensors"


def verify(path: Path) -> None:
    """Refuse an embedded file that is not the one that was measured.

    Raises:
        ValueError: Unless its sha256 is that of the ``.record.json`` beside it.
    """
    record = json.loads(path.with_suffix(".record.json").read_text())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != record["sha256"]:
        raise ValueError(
            f"{path.name} must have sha256 {record['sha256']}, got {found}; install geokernels again"
        )
