"""What stops a run with one sentence, and what may continue it: the same for every pipeline."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import Tensor


def plain(config) -> dict:
    """The settings of a dataclass as they stand in a file: lists for tuples."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def require_same_run(theirs: Mapping, ours: Mapping) -> None:
    """Refuse a checkpoint's description of its run unless it is that of this one.

    Both hold ``"config"`` and whatever else names the run; long strings are checksums, which a sentence
    does not quote.

    Raises:
        ValueError: Names the first thing that differs, settings first.
    """
    pairs = [(key, value, ours["config"].get(key)) for key, value in theirs["config"].items()]
    pairs += [(key, theirs.get(key), value) for key, value in ours.items() if key != "config"]
    for key, made, here in pairs:
        if made == here:
            continue
        if key in ("picture", "generator", "seed"):
            raise ValueError(f"the checkpoint was made with another {key}")
        raise ValueError(f"the checkpoint was made with {key} = {made!r}, this run has {here!r}")


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
