"""How a call is kept free of what its caller has set for all of PyTorch.

A web handler runs under ``torch.inference_mode()``, a notebook under autocast or another default device, a
script with another default dtype. A pipeline needs gradients, and says itself where and how precisely it
computes: with :func:`own_modes` it gives in each of these what it gives without, to the bit.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

P, R = ParamSpec("P"), TypeVar("R")

# what makes tensors of the default dtype, and what makes them of the dtype of the data where that has one
OF_FLOATS = {
    *(torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.normal, torch.eye),
    *(torch.linspace, torch.logspace, torch.hann_window, torch.hamming_window, torch.kaiser_window),
}
OF_DATA = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.full, torch.arange}
OF_INTEGERS = {torch.randint, torch.randperm, torch.tril_indices, torch.triu_indices}


class _Float32OnCPU(TorchFunctionMode):
    """Factories that are told no dtype or device take these; other modes and threads stay as they are."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func not in OF_FLOATS | OF_DATA | OF_INTEGERS or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        data = args[0] if args else None
        typed = func in OF_DATA and hasattr(data, "dtype")
        if kwargs.get("device") is None and not isinstance(data, Tensor):
            kwargs["device"] = "cpu"
        if kwargs.get("dtype") is not None or func in OF_INTEGERS or typed:
            return func(*args, **kwargs)
        if func in OF_FLOATS:
            return func(*args, **{**kwargs, "dtype": torch.float32})
        made = func(*args, **kwargs)
        return func(*args, **{**kwargs, "dtype": torch.float32}) if made.is_floating_point() else made


@contextmanager
def _own() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_dtype() != torch.float32 or torch.get_default_device().type != "cpu":
            stack.enter_context(_Float32OnCPU())
        yield


def own_modes(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` with gradients, in float32 on the CPU by default, whatever its caller has set.

    What was made in inference mode, from which no gradient can be taken, is copied where it is an argument,
    and replaced by copies where it is a weight of a module that is one.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _own():
            return function(*map(_ordinary, args), **{k: _ordinary(v) for k, v in kwargs.items()})

    return run


def _ordinary(x):
    """``x`` without tensors of inference mode; itself where it has none."""
    if isinstance(x, Tensor):
        return x.clone() if x.is_inference() else x
    if isinstance(x, nn.Module):
        _thaw(x)
    elif isinstance(x, dict):
        ordinary = {key: _ordinary(value) for key, value in x.items()}
        return ordinary if any(ordinary[key] is not value for key, value in x.items()) else x
    elif isinstance(x, (list, tuple)):
        ordinary = [_ordinary(value) for value in x]
        if any(a is not b for a, b in zip(ordinary, x)):
            return type(x)(*ordinary) if hasattr(x, "_fields") else type(x)(ordinary)
    elif is_dataclass(x) and not isinstance(x, type):
        ordinary = {field.name: _ordinary(getattr(x, field.name)) for field in fields(x)}
        changed = {name: value for name, value in ordinary.items() if value is not getattr(x, name)}
        return replace(x, **changed) if changed else x
    elif isinstance(parts := getattr(x, "components", None), dict):  # a pipeline of diffusers
        for part in parts.values():
            _ordinary(part)
    return x


def _thaw(module: nn.Module) -> None:
    """Put copies in the place of a module's tensors of inference mode; those shared stay shared."""
    copies: dict[Tensor, Tensor] = {}
    for part in module.modules():
        for kept in (part._parameters, part._buffers):
            for name, tensor in kept.items():
                if tensor is None or not tensor.is_inference():
                    continue
                if tensor not in copies:
                    copied = tensor.detach().clone()
                    is_weight = isinstance(tensor, nn.Parameter)
                    copies[tensor] = nn.Parameter(copied, tensor.requires_grad) if is_weight else copied
                kept[name] = copies[tensor]
