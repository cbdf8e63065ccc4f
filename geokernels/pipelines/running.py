"""What stops a run with one sentence, and what may continue it: the same for every pipeline."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import Tensor

CHECKSUM = re.compile("[0-9a-f]{64}")


def plain(config) -> dict:
    """The settings of a dataclass as they stand in a file: lists for tuples."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def require_same_run(theirs: Mapping, ours: Mapping) -> None:
    """Refuse a checkpoint's description of its run unless it is that of this one.

    Both hold ``"config"`` and whatever else names the run.

    Raises:
        ValueError: Names the first thing that differs, settings first.
    """
    require_same_facts(theirs["config"], ours["config"])
    require_same_facts(theirs, ours)


def require_same_facts(theirs: Mapping, ours: Mapping) -> None:
    """Refuse what a checkpoint says of its run if anything differs, or only one of the two says it.

    Raises:
        ValueError: Names the first thing that differs; checksums are not quoted.
    """
    for key in {**theirs, **ours}:
        if key not in ours:
            raise ValueError(f"the checkpoint was made with {key} = {theirs[key]!r}, this run has none")
        if key not in theirs:
            raise ValueError(f"the checkpoint was made without {key}, this run has {ours[key]!r}")
        made, here = theirs[key], ours[key]
        if made == here:
            continue
        if key == "seed" or any(
            isinstance(value, str) and CHECKSUM.fullmatch(value) for value in (made, here)
        ):
            raise ValueError(f"the checkpoint was made with another {key}")
        raise ValueError(f"the checkpoint was made with {key} = {made!r}, this run has {here!r}")


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
            found = f"{tuple(kept.shape)} {kept.dtype}"
            raise ValueError(f"{name} must be {tuple(fresh.shape)} {fresh.dtype}, the checkpoint has {found}")
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


def require_finite_step(step: int, loss: Tensor, gradients: Tensor | None = None) -> None:
    """Refuse a step that would spoil the parameters, before it is taken; waits for the device.

    Args:
        step: Its number, from 0.
        loss: What it minimises.
        gradients: Their norms, where they are known.

    Raises:
        FloatingPointError: If any of them is not finite.
    """
    if not math.isfinite(loss.item()):
        found = f"the loss at step {step} is {loss.item()}"
    elif gradients is not None and not torch.isfinite(gradients).all():
        found = f"the gradient at step {step} is not finite"
    else:
        return
    raise FloatingPointError(f"{found}; lower the learning rate")


@contextmanager
def naming_knobs(knobs: str) -> Iterator[None]:
    """Turn what PyTorch says when memory runs out into one sentence that names what to lower.

    Raises:
        MemoryError: In place of PyTorch's own errors, on the CPU and on CUDA.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"the device ran out of memory; lower {knobs}") from error
    except RuntimeError as error:
        # the CPU's allocator has no error of its own
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise MemoryError(f"this machine ran out of memory; lower {knobs}") from error
