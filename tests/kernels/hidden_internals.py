"""Imports geokernels as under a PyTorch without some of its private names, and then runs tests.

``python hidden_internals.py GROUP TEST...``, with a key of ``GROUPS``, or ``all``.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch._functorch import autograd_function
from torch.autograd import forward_ad, function

ROOT = Path(__file__).parents[2]
FUNCTORCH = torch._C._functorch
GROUPS = {
    "transforms": [
        (FUNCTORCH, "is_functorch_wrapped_tensor"),
        (FUNCTORCH, "maybe_current_level"),
        (FUNCTORCH, "get_interpreter_stack"),
        (FUNCTORCH, "TransformType"),
    ],
    "forward mode": [(forward_ad, "_current_level"), (forward_ad, "_set_fwd_grad_enabled")],
    "gradients": [(torch._C, "_any_requires_grad"), (torch.ops.aten, "_cdist_backward")],
    "listeners": [
        (torch._C, "_len_torch_dispatch_stack"),
        (torch._C, "_len_torch_function_stack"),
        (torch._C._autograd, "_profiler_enabled"),
    ],
    "dispatcher": [
        (torch._C, "_AutoDispatchBelowAutograd"),
        (torch._C, "_after_autograd_keyset"),
        (torch._C, "_is_fwd_grad_enabled"),
        (function, "_SingleLevelFunction"),
        (autograd_function, "enable_single_level_autograd_function"),
    ],
}
NAMES = [place for group in GROUPS.values() for place in group]


class Hidden:
    """A place whose private names cannot be seen."""

    def __init__(self, place, names: set[str]):
        self.place, self.names = place, names

    def __getattr__(self, name: str):
        if name in self.names:
            raise AttributeError(name)
        return getattr(self.place, name)


def load(names: list[tuple]) -> object:
    """``geokernels._torch_internals``, in the place that the package will find it in, without these names."""
    name = "geokernels._torch_internals"
    spec = importlib.util.spec_from_file_location(name, ROOT / "geokernels" / "_torch_internals.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    hidden = [(place, attribute, getattr(place, attribute)) for place, attribute in names]
    aten = torch.ops.aten
    try:
        for place, attribute, _ in hidden:
            if place is aten:
                torch.ops.aten = Hidden(aten, {attribute})
            else:
                delattr(place, attribute)
        spec.loader.exec_module(module)
    finally:
        torch.ops.aten = aten
        for place, attribute, value in hidden:
            if place is not aten:
                setattr(place, attribute, value)
    return module


def compiled_tangents_are_refused(gk) -> None:
    """Or they would be silently left out."""
    x = torch.eye(3, dtype=torch.float64)

    def slope(x):
        return torch.func.jvp(lambda x: gk.sinkhorn_from_cost(x, eps=1.0).value, (x,), (x,))[1]

    with pytest.raises(torch._dynamo.exc.Unsupported, match="cannot compile tangents"):
        torch.compile(slope, fullgraph=True, backend="aot_eager")(x)


if __name__ == "__main__":
    wanted, *tests = sys.argv[1:]
    module = load(NAMES if wanted == "all" else GROUPS[wanted])
    assert module.has_dispatcher == (wanted in ("gradients", "listeners"))
    assert module.can_be_passed_by == (wanted == "gradients")
    import geokernels

    assert geokernels._checks.is_wrapped is module.is_wrapped
    if not module.has_dispatcher:
        compiled_tangents_are_refused(geokernels)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *tests]))
