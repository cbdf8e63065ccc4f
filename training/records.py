"""What is written beside a folder of weights: how they came about, and the digest of every file."""

import hashlib
from pathlib import Path

import torch

from geokernels._files import give_new_modes, write_json


def write_record(folder: Path, made: dict) -> None:
    """Beside ``folder``: how it was made, and the digest of each of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    give_new_modes(files)
    record = {
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "made": made,
    }
    write_json(folder.with_suffix(".record.json"), record)
