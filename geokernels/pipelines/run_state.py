"""What of a kept state may continue a run: the same run, in the same format, every entry in its place."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

FORMAT = 3  # of the states of runs; those of geokernels 0.1.0 bear no number
CHECKSUM = re.compile("[0-9a-f]{64}")

Hashed = Tensor | np.ndarray | nn.Module


def plain(config) -> dict:
    """The settings of a dataclass as they stand in a file: lists for tuples."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def checksum(values: Hashed | Iterable[Hashed]) -> str:
    """Of shapes, dtypes and values: of tensors, of arrays, or of a module's state with its names.

    Tensors without values, on the meta device, have shapes and dtypes alone: such a run can be counted, not
    continued.
    """
    digest = hashlib.sha256()
    for name, value in _named(values):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        if isinstance(value, Tensor) and value.is_meta:
            continue
        if isinstance(value, Tensor):  # as bytes, for NumPy has no bfloat16
            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _named(values: Hashed | Iterable[Hashed]) -> Iterable[tuple[str, Tensor | np.ndarray]]:
    if isinstance(values, nn.Module):
        return values.state_dict().items()
    return (("", value) for value in ([values] if isinstance(values, Tensor | np.ndarray) else values))


def require_format(state: Mapping, *, remedy: str = "start the run again") -> None:
    """Refuse a state of another format than this version writes; ``remedy`` is what to do about it.

    Raises:
        ValueError: Says which version made it, as far as that is known, and what to do.
    """
    if "format" not in state:
        raise ValueError(
            "the checkpoint was made by geokernels 0.1.0, which this version cannot continue; "
            f"{remedy}, or continue it with 0.1.0"
        )
    if state["format"] != FORMAT:
        raise ValueError(
            f"the checkpoint has format {state['format']!r}, this version reads format {FORMAT}; "
            f"{remedy}, or continue it with the version that made it"
        )


def require_same_run(theirs: Mapping, ours: Mapping, what: str = "the checkpoint") -> None:
    """Refuse what belongs to another run, by the facts of both; ``what`` it is, for messages.

    Both hold ``"config"`` and whatever else names the run.

    Raises:
        ValueError: Names the first thing that differs, settings first.
    """
    require_same_facts(theirs["config"], ours["config"], what)
    require_same_facts(theirs, ours, what)


def require_same_facts(theirs: Mapping, ours: Mapping, what: str = "the checkpoint") -> None:
    """Refuse what was made where any fact differs, or where only one of the two has it.

    Raises:
        ValueError: Names the first thing that differs; checksums are not quoted.
    """
    for key in {**theirs, **ours}:
        if key not in ours:
            raise ValueError(f"{what} was made with {key} = {theirs[key]!r}, this run has none")
        if key not in theirs:
            raise ValueError(f"{what} was made without {key}, this run has {ours[key]!r}")
        made, here = theirs[key], ours[key]
        if made == here:
            continue
        if key == "seed" or any(
            isinstance(value, str) and CHECKSUM.fullmatch(value) for value in (made, here)
        ):
            raise ValueError(f"{what} was made with another {key}")
        raise ValueError(f"{what} was made with {key} = {made!r}, this run has {here!r}")


def require_state(kept: object, fresh: object, name: str = "state") -> None:
    """Refuse a kept state whose entries are not of the kinds, shapes and dtypes of a fresh one.

    What a run gathers may have grown: a list or a dictionary that is empty when fresh may hold anything, one
    that is None anything, and a tensor without rows any number of them.

    Args:
        kept: From a checkpoint.
        fresh: What this run would write.
        name: Where the two stand, for messages.

    Raises:
        ValueError: Names the first entry that differs.
    """
    if fresh is None or (isinstance(fresh, dict | list | tuple) and not fresh and type(kept) is type(fresh)):
        return
    if isinstance(fresh, Tensor) and isinstance(kept, Tensor):
        grown = fresh.dim() > 0 and len(fresh) == 0
        alike = kept.dim() == fresh.dim() if grown else kept.shape == fresh.shape
        if kept.dtype != fresh.dtype or not alike:
            raise ValueError(
                f"{name} must be {tuple(fresh.shape)} {fresh.dtype}, "
                f"the checkpoint has {tuple(kept.shape)} {kept.dtype}"
            )
    elif isinstance(fresh, Mapping) and isinstance(kept, Mapping):
        for key in {**fresh, **kept}:
            if key not in kept or key not in fresh:
                has = "lacks" if key in fresh else "has an unknown"
                raise ValueError(f"{name} must be as this version writes it, the checkpoint {has} {key}")
            require_state(kept[key], fresh[key], f"{name}.{key}")
    elif isinstance(fresh, list | tuple) and isinstance(kept, list | tuple):
        if len(kept) != len(fresh):
            raise ValueError(f"{name} must have {len(fresh)} entries, the checkpoint has {len(kept)}")
        for i, (ours, theirs) in enumerate(zip(fresh, kept)):
            require_state(theirs, ours, f"{name}[{i}]")
    elif type(kept) is not type(fresh):
        raise ValueError(
            f"{name} must be of type {type(fresh).__name__}, the checkpoint has {type(kept).__name__}"
        )


def require_index(index: int, steps: int) -> None:
    """Refuse a number of steps taken that is not one of this run.

    Raises:
        ValueError: If it is not.
    """
    if not 0 <= index <= steps:
        raise ValueError(f"index must lie between 0 and {steps}, the checkpoint has {index}")


def require_rows(state: Mapping) -> None:
    """Refuse a history that has not one row for every step taken.

    Raises:
        ValueError: If it has not.
    """
    index, rows = state["index"], len(state["history"])
    if rows != index:
        raise ValueError(f"history must have {index} rows, one per step, the checkpoint has {rows}")
