"""Archives that torch writes: kept in bounds before they are unpacked; TorchScript read without its code."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .inert_pickle import Inert, read_inert

LIFTED = "GEOKERNELS_UNBOUNDED_FILES"  # of the environment; 1 lifts the bounds
TIMES, LEAST = 16, 64 << 20  # what a file may unpack to: so many times its size, or so many bytes

DTYPES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
# functions by which TorchScript says of what type a list or dictionary is
TAGS = tuple(
    f"torch.jit._pickle.{name}"
    for name in ("restore_type_tag", *(f"build_{of}list" for of in ("int", "tensor", "double", "bool")))
)


def require_bounded(name: str, path: Path, unpacked: int) -> None:
    """Refuse a file that takes up far more memory than its size.

    Args:
        name: Of the argument that named the file.
        path: The file.
        unpacked: Bytes.

    Raises:
        ValueError: If it is more than a file of tensors can be, and the bounds are not lifted.
    """
    size = path.stat().st_size
    if unpacked <= max(TIMES * size, LEAST) or os.environ.get(LIFTED) == "1":
        return
    raise ValueError(
        f"{name} must unpack to at most {TIMES} times its size, but {path.name} of {size / 2**20:.1f} MiB "
        f"asks for {unpacked / 2**20:,.0f} MiB; where it is trusted, {LIFTED}=1 in the environment lifts "
        "the bound"
    )


def unpacked_size(path: Path) -> int:
    """Bytes of everything in an archive, as its directory says."""
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def is_torchscript(path: Path) -> bool:
    """Whether an archive holds a module with its code."""
    with zipfile.ZipFile(path) as archive:
        return any(entry.endswith("/constants.pkl") for entry in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The tensors of the module in a TorchScript archive, by the names of its attributes; no code is read.

    Raises:
        ValueError: If the archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        return dict(tensors_of(_Archive(archive).read()))


def tensors_of(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a module that a pickle describes, and its name as ``state_dict`` has it."""
    state = module.state if isinstance(module, Inert) else None
    for name, value in state.items() if isinstance(state, dict) else ():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from tensors_of(value, f"{prefix}{name}.")


class _Archive:
    """A zip of torch's: a pickle, and beside it the storages that its tensors are views of."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("an archive of torch has one data.pkl")
        self.root = pickles[0].removesuffix("data.pkl")
        order = f"{self.root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("it was written by a machine of another byte order")
        self.storages: dict[str, Tensor] = {}

    def read(self) -> Any:
        return read_inert(self.archive.read(f"{self.root}data.pkl"), call=self._call, stored=self._storage)

    def _storage(self, identity: Any) -> Tensor:
        """All numbers of a storage, ``(n,)``."""
        _, kind, key, _device, count = identity
        if key not in self.storages:
            held = bytearray(self.archive.read(f"{self.root}data/{key}"))
            dtype = DTYPES[kind.name]
            self.storages[key] = torch.frombuffer(held, dtype=dtype) if held else torch.empty(0, dtype=dtype)
        storage = self.storages[key]
        if len(storage) != count:
            raise ValueError(f"storage {key} claims {count} numbers and holds {len(storage)}")
        return storage

    def _call(self, name: str, given: tuple) -> Any:
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            storage, offset, size, stride = given[:4]
            return storage.as_strided(size, stride, offset)
        if name == "torch._utils._rebuild_parameter":
            return given[0]
        if name in TAGS:
            return given[0]
        return {} if name == "collections.OrderedDict" else Inert(name, given)
