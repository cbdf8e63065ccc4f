"""Files that a later run continues from: each ends with, or holds, the checksum of what it says.

Damage then is a sentence, and never another result: it is found before anything in the file is used.
"""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import torch

from ._checks import reason_of
from ._files import read_json, replacing, write_json

SEAL = "seal"  # entry of a JSON object
_ENDING = re.compile(rb"\ngeokernels ([\w -]{1,40}) sha256 ([0-9a-f]{64})\n\Z")
_LONGEST = 160  # bytes of an ending, at most


def save_sealed(path: str | Path, state: object, *, kind: str) -> None:
    """Write tensors, numbers and strings as ``torch.save`` does, then the kind and the checksum of all that.

    ``torch.load`` reads the file too, but checks nothing. It is written whole or not at all.
    """
    buffer = serialised(state)
    buffer.write(f"\ngeokernels {kind} sha256 ".encode())
    buffer.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode() + b"\n")
    with replacing(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def serialised(state: object) -> io.BytesIO:
    """What ``torch.save`` writes, in memory: where the disk is full, torch's own writer raises no OSError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer


def load_sealed(path: str | Path, *, kind: str, remedy: str, device: str = "cpu") -> Any:
    """Read what :func:`save_sealed` wrote; no code in it is run.

    Args:
        path: An existing file.
        kind: What it must be.
        remedy: What to do otherwise, for messages.
        device: Where its tensors go.

    Raises:
        ValueError: If it is damaged or of another kind.
    """
    data = read_sealed(path, kind=kind, remedy=remedy)
    try:
        return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError and more
        raise ValueError(f"{path} cannot be read by this torch ({reason_of(error)}); {remedy}") from error


def read_sealed(path: str | Path, *, kind: str, remedy: str) -> bytes:
    """The bytes of what :func:`save_sealed` wrote, checked.

    Raises:
        ValueError: If it is damaged or of another kind.
    """
    data = Path(path).read_bytes()
    ending = _ENDING.search(data[-_LONGEST:])
    if ending is None:
        raise _damaged(path, "it does not end with its checksum", remedy)
    if hashlib.sha256(memoryview(data)[: -len(ending[2]) - 1]).hexdigest().encode() != ending[2]:
        raise _damaged(path, "its checksum is of other contents", remedy)
    _require_kind(path, ending[1].decode(), kind, remedy)
    return data


def seal(content: dict, *, kind: str) -> dict:
    """``content`` as JSON gives it back, with its kind and checksum beside."""
    content = json.loads(json.dumps(content))
    return {**content, SEAL: {"kind": kind, "sha256": _checksum(content, kind)}}


def unseal(content: object, name: object, *, kind: str, remedy: str) -> dict:
    """What was given to :func:`seal`; ``name`` is where it was found, for messages.

    Raises:
        ValueError: If it is damaged or of another kind.
    """
    sealed = content.get(SEAL) if isinstance(content, dict) else None
    if not isinstance(sealed, dict) or not isinstance(sealed.get("kind"), str):
        raise _damaged(name, "it lacks its checksum", remedy)
    content = {key: value for key, value in content.items() if key != SEAL}
    if sealed.get("sha256") != _checksum(content, sealed["kind"]):
        raise _damaged(name, "its checksum is of other contents", remedy)
    _require_kind(name, sealed["kind"], kind, remedy)
    return content


def write_sealed_json(path: str | Path, content: dict, *, kind: str) -> None:
    """Write ``content`` as JSON, sealed, whole or not at all."""
    write_json(path, seal(content, kind=kind))


def read_sealed_json(path: str | Path, *, kind: str, remedy: str) -> dict:
    """Read what :func:`write_sealed_json` wrote.

    Raises:
        ValueError: If it is damaged or of another kind.
    """
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error
    return unseal(content, path, kind=kind, remedy=remedy)


def _checksum(content: dict, kind: str) -> str:
    text = json.dumps([kind, content], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _damaged(name: object, how: str, remedy: str) -> ValueError:
    return ValueError(f"{name} is damaged ({how}); {remedy}")


def _require_kind(name: object, kind: str, wanted: str, remedy: str) -> None:
    if kind != wanted:
        raise ValueError(f"{name} must be of {wanted}, it is of {kind}; {remedy}")
