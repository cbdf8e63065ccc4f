"""Refusals of bad arguments: argument, expectation, finding, in one sentence."""

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin

import torch
from torch import Tensor

from ._torch_internals import is_wrapped

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def require_rank(name: str, x: Tensor, rank: int, layout: str) -> None:
    """Refuse ``x`` with fewer than ``rank`` dimensions; ``layout`` names them, as ``"(..., N, D)"``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.dim() < rank:
        raise ValueError(f"{name} must have shape {layout}, got {tuple(x.shape)}")


def require_shape(name: str, x: Tensor, shape: tuple[int, ...], layout: str) -> None:
    """Refuse ``x`` whose shape is not exactly ``shape``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {layout} = {tuple(shape)}, got {tuple(x.shape)}")


def require_float(name: str, x: Tensor) -> None:
    """Refuse a dtype that is not a floating-point one, and a tensor that is not dense."""
    if x.dtype not in FLOATS:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {x.dtype}")
    _require_dense(name, x)


def _require_dense(name: str, x: Tensor) -> None:
    if x.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, as to_dense() makes it, got {x.layout}")


def require_like(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Refuse ``x`` on another device or of another dtype than ``other``."""
    if x.dtype != other.dtype:
        raise TypeError(f"{name} must have the dtype of {other_name}, {other.dtype}, got {x.dtype}")
    if x.device != other.device:
        raise TypeError(f"{name} must be on the device of {other_name}, {other.device}, got {x.device}")
    _require_dense(name, x)


def require_not_empty(name: str, x: Tensor, layout: str) -> None:
    """Refuse a cloud without rows or features."""
    if 0 in x.shape[-2:]:
        raise ValueError(
            f"{name} must have at least one row and one feature, got {layout} = {tuple(x.shape)}"
        )


def require_number(name: str, value: object) -> None:
    """Refuse what is no number: ``"0.1"``, None, lists. Those of NumPy are, and tensors of one element."""
    if isinstance(value, (int, float)):
        return
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return
    if isinstance(value, Tensor) or not hasattr(value, "__float__") or getattr(value, "ndim", 0):
        raise TypeError(f"{name} must be a number, got {_shown(value)}")


def whole(name: str, value: object) -> int:
    """The whole number that ``value`` is, of whatever type: ``1e3`` is one, and so is ``2.0``.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(value, int):
        return value
    require_number(name, value)
    if not float(value).is_integer():
        raise TypeError(f"{name} must be a whole number, got {value}")
    return int(value)


def settle(settings: Any) -> None:
    """Give the numbers of a frozen dataclass the types they are declared with: NumPy's among them.

    Raises:
        TypeError: If one is no number, or not whole where it must be; names it.
    """
    for field in fields(settings):
        value, kinds = getattr(settings, field.name), get_args(field.type) or (field.type,)
        if get_origin(field.type) is tuple or (value is None and type(None) in kinds):
            continue
        if int in kinds:
            value = int(whole(field.name, value))
        elif float in kinds:
            require_number(field.name, value)
            value = value if type(value) in (int, float) else float(value)
        elif bool in kinds:
            value = bool(value)
        object.__setattr__(settings, field.name, value)


def require_text(name: str, text: str) -> None:
    """Refuse halves of pairs, which stand in a string for bytes that are not UTF-8."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{name} must be text in UTF-8, got {text!r}")


def require_pair(name: str, value: object) -> None:
    """Refuse what is not two things."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair, got {_shown(value)}")


def require_values(name: str, x: Tensor) -> None:
    """Refuse a tensor of the meta device, which holds no values."""
    if x.device.type == "meta":
        raise TypeError(f"{name} must hold values, got a tensor on the meta device")


def renamed(sentence: str, names: Mapping[str, str]) -> str:
    """A refusal with the name it begins with, and one it compares with, as the caller knows them."""
    return re.sub(
        r"(^|at most |at least |differ from )(\w+)\b",
        lambda word: word[1] + names.get(word[2], word[2]),
        sentence,
    )


def _shown(value: object) -> str:
    return repr(value) if value is None or isinstance(value, str) else type(value).__name__


def require_positive(name: str, value: float) -> None:
    """Refuse a number that is not finite and above zero."""
    require_number(name, value)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0, got {value}")


def require_share(name: str, value: float) -> None:
    """Refuse a number outside of [0, 1]."""
    require_number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def reason_of(error: Exception) -> str:
    """What went wrong, in a phrase: the first sentence of another library's error, or else its kind."""
    said = str(error).strip()
    first = re.split(r"\.\s|\n", said, maxsplit=1)[0].rstrip(".") if said else ""
    # a KeyError says the key alone
    return first if " " in first else f"{type(error).__name__} {first}".strip()


def values_can_be_read(*tensors: Tensor) -> bool:
    """Whether looking at values costs nothing that matters.

    True for ordinary tensors in CPU memory. False on a GPU, where a look would wait for the device, and
    under ``torch.compile`` and ``torch.func`` transforms, where there is nothing to look at.
    """
    if torch.compiler.is_compiling():
        return False
    for x in tensors:
        plain = type(x) is Tensor or type(x) is torch.nn.Parameter
        if not (plain and x.is_cpu) or is_wrapped(x):
            return False
    return True


def is_finite(x: Tensor) -> bool:
    """Whether ``x`` is free of NaN and infinities, as far as values can be read."""
    if not values_can_be_read(x):
        return True
    if x.numel() == 1:
        return math.isfinite(x.item())
    # a finite sum has finite terms, and is several times cheaper than looking at each
    return math.isfinite((x.detach() if x.requires_grad else x).sum().item()) or bool(torch.isfinite(x).all())


def require_finite(name: str, x: Tensor) -> None:
    """Refuse NaN and infinities, where values can be read."""
    if not is_finite(x):
        bad = "NaN" if torch.isnan(x).any() else "infinite values"
        raise ValueError(f"{name} must be finite, got {bad}")


def require_shades(name: str, x: Tensor, *, slack: float = 1e-3) -> None:
    """Refuse a picture whose values lie further than ``slack`` outside of [0, 1], where they can be read."""
    if not x.numel() or not values_can_be_read(x):
        return
    low, high = (value.item() for value in torch.aminmax(x.detach()))
    if low < -slack or high > 1 + slack:
        remedy = "divide by 255" if high > 2 else "take (x + 1) / 2" if low < -0.5 else "clamp them"
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}; {remedy}")
