"""Files of tensors: read without running what stands in them, or refused by a sentence about the file."""

import re
from argparse import Namespace
from pathlib import Path

import torch

from .._checks import reason_of


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
    """What a ``.safetensors`` file holds, or, of another ending, what ``torch.save`` wrote of tensors.

    Args:
        name: Of the argument that named the file, for messages.
        path: The file.

    Returns:
        The dictionary; in ``torch.save``'s, tensors may stand beside other data.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is a ``.safetensors`` file and safetensors is not installed.
        ValueError: If it is damaged, would execute code, or holds no dictionary.
    """
    path = require_file(name, path)
    try:
        if path.suffix == ".safetensors":
            content = safetensors().load_file(path)
        else:
            # training scripts leave their arguments in the checkpoint; a namespace is data alone
            with torch.serialization.safe_globals([Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, UnpicklingError and more
        raise unreadable(name, path, error) from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} must hold a state dict, got {type(content).__name__} in {path.name}")
    return content


def unreadable(name: str, path: Path, error: Exception) -> ValueError:
    """The sentence about a file whose reading failed with ``error``."""
    function = re.search(r"GLOBAL ([\w.]+)", str(error))  # as torch names what it refuses to call
    reason = f"it would run {function[1]}" if function else reason_of(error)
    return ValueError(
        f"{name} must be a whole file of tensors alone, but {path.name} could not be read "
        f"({reason}); fetch it again, or, where it is trusted, save its state dict with "
        "safetensors.torch.save_file"
    )


def last_line(error: Exception) -> str:
    """Of what ``load_state_dict`` says, the key that disagrees last."""
    return str(error).strip().splitlines()[-1].strip()


def safetensors():
    """``safetensors.torch``, which is imported on use."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError('.safetensors files need safetensors: pip install "geokernels[morph]"') from error
    return safetensors.torch
