"""Files of tensors: read without running what stands in them, or refused by a sentence about the file.

One reader for every model: it tells formats by their content, keeps them in bounds, takes the state dict out
of what training scripts wrap around it, and fills a module with it, or says what the file is instead.
"""

import re
import zipfile
from argparse import Namespace
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .._checks import is_finite, reason_of
from .checkpoint_kinds import instead
from .torch_archives import is_torchscript, read_modules, read_torchscript, require_bounded, unpacked_size

# under which training scripts keep a state dict; averaged weights come before those they are an average of
WRAPPERS = ("params_ema", "ema_state_dict", "model_ema", "state_dict", "model_state_dict", "model", "params")
# what frameworks put before every name
PREFIXES = ("_orig_mod.", "module.", "model.")
MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # by which torch's files without an archive begin, as pickled
# How files begin that downloads leave in place of weights.
MISTAKEN = (
    (b"version https://git-lfs", "is a pointer of Git LFS, and not the file: fetch that by git lfs pull"),
    (b"<!", "is a web page: fetch the file itself, not the page about it"),
    (b"<html", "is a web page: fetch the file itself, not the page about it"),
    (b'{"', "is JSON: give the file of weights beside it"),
    (b"{\n", "is JSON: give the file of weights beside it"),
)
DEEPEST = 8  # wrappers around wrappers


def require_file(name: str, path: str | Path) -> Path:
    """The path of an existing file; ``name`` is the argument that named it.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name} must be an existing file, found none at {path}")
    return path


def read_tensors(name: str, path: str | Path) -> dict:
    """What a file of safetensors, ``torch.save``, TorchScript or pickled modules holds, as its content says.

    Args:
        name: Of the argument that named the file, for messages.
        path: The file.

    Returns:
        The dictionary; in ``torch.save``'s, tensors may stand beside other data.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is a file of safetensors and safetensors is not installed.
        ValueError: If it is damaged, would execute code, holds no dictionary, or takes up far more memory
            than its size; see :func:`geokernels.models.torch_archives.require_bounded`.
    """
    path = require_file(name, path)
    archive = _begins(path, b"PK\3\4")
    try:
        unpacked = unpacked_size(path) if archive else 0
    except zipfile.BadZipFile as error:
        raise unreadable(name, path, error) from error
    require_bounded(name, path, unpacked)
    try:
        content = _read(path, archive)
    except ImportError:
        raise
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, UnpicklingError and more
        raise unreadable(name, path, error) from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} must hold a state dict, got {type(content).__name__} in {path.name}")
    # a tensor may claim more than its storage: one number, repeated
    require_bounded(name, path, sum(x.numel() * x.element_size() for x in _tensors(content)))
    return content


def read_state(name: str, path: str | Path, *, wrappers: Collection[str] = WRAPPERS) -> dict[str, Tensor]:
    """The state dict in a file, taken out of what was wrapped around it; see :func:`read_tensors`.

    Args:
        name: Of the argument that named the file, for messages.
        path: The file.
        wrappers: Keys under which it may be, the preferred first.

    Raises:
        ValueError: If there are no tensors by name in it.
    """
    return unwrap(name, Path(path), read_tensors(name, path), wrappers)


def unwrap(name: str, path: Path, content: Mapping, wrappers: Collection[str]) -> dict[str, Tensor]:
    """The tensors by name that ``content`` holds, however deep, without what stands before every name."""
    inside = content
    for _ in range(DEEPEST):
        inner = [inside[key] for key in wrappers if isinstance(inside.get(key), Mapping)]
        inner = [part for part in inner if _tensors(part)]
        if not inner:
            break
        inside = inner[0]
    if not any(isinstance(value, Tensor) for value in inside.values()):
        keys, bare = ", ".join(map(str, list(inside)[:5])) or "nothing", ", ".join(wrappers)
        parts = [part for part in inside.values() if isinstance(part, Mapping)]
        kind = instead(str(key) for part in parts for key in part)
        raise ValueError(f"{name} must hold a state dict, bare or as {bare}, got {keys} in {path.name}{kind}")
    state = {str(key): value for key, value in inside.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def fill(module: nn.Module, state: Mapping[str, Tensor], **how: str) -> None:
    """Load ``state`` into ``module``, as strictly as :func:`fitted`, which takes ``how``."""
    module.load_state_dict(fitted(module.state_dict(), state, **how))


def fitted(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    name: str,
    file: str,
    what: str,
    but: str = r"(?!)",
    asked: str = "",
    hint: str = "",
) -> dict[str, Tensor]:
    """The tensors of ``state`` by the names, shapes and dtypes of ``expected``.

    Args:
        expected: The tensors of the model that is to be filled.
        state: The tensors of a file.
        name: Of the argument that named the file, for messages.
        file: Its name.
        what: What the model is called.
        but: A regular expression of names that the file may have beyond the model's.
        asked: The key of what the file should be, of :data:`.checkpoint_kinds.KINDS`.
        hint: What else to say of a file that does not fit, and is of the kind that was asked for.

    Raises:
        ValueError: If a tensor is missing, has another shape, left over, or not finite; names the first.
    """
    for key, value in expected.items():
        tensor = state.get(key)
        if tensor is None or tensor.shape != value.shape:
            finding = "lacks" if tensor is None else f"has {tuple(tensor.shape)} for"
            raise ValueError(
                f"{name} must fit {what}, which has {key!r} of shape {tuple(value.shape)}, but {file} "
                f"{finding} it{_part(file) or instead(state, asked) or hint}"
            )
    surplus = next((key for key in state if key not in expected and not re.fullmatch(but, key)), None)
    if surplus is not None:
        raise ValueError(
            f"{name} must fit {what}, which has no {surplus!r}, as {file} has{instead(state, asked)}"
        )
    ready = {key: state[key].to(value.dtype) for key, value in expected.items()}
    for key, value in ready.items():
        if not is_finite(value):
            raise ValueError(f"{name} must be finite, got NaN or infinity in {key!r} of {file}")
    return ready


def _part(file: str) -> str:
    """What to say of one file of several."""
    return (
        "; it is one part of several: give a file that holds all" if re.search(r"-\d+-of-\d+", file) else ""
    )


def unreadable(name: str, path: Path, error: Exception) -> ValueError:
    """The sentence about a file whose reading failed with ``error``."""
    if said := mistaken(path):
        return ValueError(f"{name} must be a file of tensors, but {path.name} {said}")
    function = re.search(r"GLOBAL ([\w.]+)", str(error))  # as torch names what it refuses to call
    reason = f"it would run {function[1]}" if function else reason_of(error)
    return ValueError(
        f"{name} must be a whole file of tensors alone, but {path.name} could not be read "
        f"({reason}); fetch it again, or, where it is trusted, save its state dict with "
        "safetensors.torch.save_file"
    )


def mistaken(path: Path) -> str | None:
    """What a download has left in place of weights, and the remedy; None if it may be weights."""
    return next((said for beginning, said in MISTAKEN if _begins(path, beginning)), None)


def safetensors():
    """``safetensors.torch``, which is imported on use."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError('.safetensors files need safetensors: pip install "geokernels[morph]"') from error
    return safetensors.torch


def _read(path: Path, archive: bool):
    """What is in a file, of whichever format."""
    if archive and is_torchscript(path):
        return read_torchscript(path)
    # safetensors begin with a JSON header, and before it its length in eight bytes
    if not archive and (path.suffix == ".safetensors" or _begins(path, b"{", after=8)):
        return safetensors().load_file(path)
    # a pickle that is not torch's, whose files begin with a number of their own
    if _begins(path, b"\x80") and not _begins(path, MAGIC, after=2):
        return read_modules(path)
    # training scripts leave their arguments in the checkpoint; a namespace is data alone
    with torch.serialization.safe_globals([Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _begins(path: Path, how: bytes, after: int = 0) -> bool:
    with open(path, "rb") as file:
        return file.read(after + len(how))[after:] == how


def _tensors(content) -> list[Tensor]:
    """Every tensor in nested dictionaries and lists, which may hold one another, once."""
    parts, seen, ahead = [], set(), [content]
    while ahead:
        part = ahead.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            parts.append(part)
        elif isinstance(part, (Mapping, list, tuple)):
            ahead.extend(part.values() if isinstance(part, Mapping) else part)
    return parts
