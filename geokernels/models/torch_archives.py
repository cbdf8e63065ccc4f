"""Archives of torch, kept in bounds before they are unpacked; modules in pickles read without their code."""

import io
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .inert_pickle import Inert, read_inert

LIFTED = "GEOKERNELS_UNBOUNDED_FILES"  # of the environment; 1 lifts the bounds
TIMES, LEAST = 16, 64 << 20  # what a file may unpack to: so many times its size, or so many bytes
MOST = 100_000  # attributes of all modules of a file

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


def read_modules(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of every module in a dictionary that Python itself has pickled, as NVIDIA's networks are.

    Raises:
        ValueError: If there is none, or the pickle is damaged.
    """
    content = read_inert(path.read_bytes(), call=_of_tensor)
    if isinstance(content, tuple) and any(_is_tensorflow(part) for part in content):
        raise ValueError("it is a network of TensorFlow: have NVIDIA's legacy.py convert it first")
    parts = content.items() if isinstance(content, dict) else ()
    dicts = {str(name): dict(tensors_of(part)) for name, part in parts}
    if not any(dicts.values()):
        raise ValueError("it is a pickle without modules of tensors")
    return {name: tensors for name, tensors in dicts.items() if tensors}


def tensors_of(module: Any, prefix: str = "", left: Iterator | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a module that a pickle describes, and its name as ``state_dict`` has it.

    Raises:
        ValueError: If modules hold one another so often that there is no end to their names.
    """
    left = iter(range(MOST)) if left is None else left
    if next(left, None) is None:
        raise ValueError(f"it has more than {MOST} attributes")
    state = _state_of(module)
    if "_parameters" in state:
        kinds = [state.get(f"_{kind}") or {} for kind in ("parameters", "buffers", "modules")]
        state = {name: value for kind in kinds for name, value in kind.items()}
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from tensors_of(value, f"{prefix}{name}.", left)


def _state_of(module: Any) -> dict:
    """The attributes of a module that a pickle describes, by itself or by what NVIDIA rebuilds it from."""
    if not isinstance(module, Inert):
        return {}
    state = module.state
    if state is None and module.given and isinstance(module.given[0], dict):
        state = module.given[0].get("state")
    return state if isinstance(state, dict) else {}


def _is_tensorflow(part: Any) -> bool:
    return isinstance(part, Inert) and part.name.startswith("dnnlib.tflib")


def _of_tensor(name: str, given: tuple) -> Any:
    """What torch's functions make of tensors; of any other function, a note of it."""
    if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        storage, offset, size, stride = given[:4]
        return storage.as_strided(size, stride, offset)
    if name == "torch._utils._rebuild_parameter" or name in TAGS:
        return given[0]
    if name == "torch.storage._load_from_bytes":
        return _storage_of(given[0])
    return {} if name == "collections.OrderedDict" else Inert(name, given)


def _storage_of(data: bytes) -> Tensor:
    """All numbers of the storage that is kept within a pickle, as a file of torch's own, ``(n,)``."""
    if data.startswith(b"PK"):
        raise ValueError("it keeps an archive within, which nobody bounds")
    with warnings.catch_warnings():
        # torch.load itself hands out the class that it warns of
        warnings.simplefilter("ignore", UserWarning)
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return torch.empty(0, dtype=storage.dtype).set_(storage.untyped())


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
        return read_inert(self.archive.read(f"{self.root}data.pkl"), call=_of_tensor, stored=self._storage)

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
