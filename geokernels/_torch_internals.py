"""The names that PyTorch keeps to itself and this package uses, and the public way round each.

Nothing else in the package names them. Where a version of PyTorch lacks one, what stands beside it takes its
place: slower, and with the same results but for what kernels/autograd_functions.py says.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def _private(module: str, name: str) -> Any:
    """``module.name``, or None where this PyTorch has none."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return None


# of torch.func: which of its levels a call is in, and what they do
_is_wrapped = _private("torch._C._functorch", "is_functorch_wrapped_tensor")
_level = _private("torch._C._functorch", "maybe_current_level")
_levels = _private("torch._C._functorch", "get_interpreter_stack")
_kinds = _private("torch._C._functorch", "TransformType")
# of forward mode
_dual_level = _private("torch.autograd.forward_ad", "_current_level")
_set_forward_mode = _private("torch.autograd.forward_ad", "_set_fwd_grad_enabled")
# of autograd
_any_requires_grad = _private("torch._C", "_any_requires_grad")
_distance_gradient = getattr(torch.ops.aten, "_cdist_backward", None)
# of many tensors in one launch
_norms = getattr(torch, "_foreach_norm", None)
# of modes that see every operator, and of calling one without them: kernels/proof_checks.py, which needs them
DispatchMode = _private("torch.utils._python_dispatch", "TorchDispatchMode")
_DispatchKey = _private("torch._C", "DispatchKey")
_DispatchKeySet = _private("torch._C", "DispatchKeySet")
# of who listens to the dispatcher: kernels/direct.py, which needs them all
_count_modes = _private("torch._C", "_len_torch_dispatch_stack")
_count_functions = _private("torch._C", "_len_torch_function_stack")
_is_profiled = _private("torch._C._autograd", "_profiler_enabled")
# of derivatives at torch's own place in the dispatcher: kernels/autograd_kernels.py, which needs them all
below_autograd = _private("torch._C", "_AutoDispatchBelowAutograd")
after_autograd = _private("torch._C", "_after_autograd_keyset")
forward_mode_is_enabled = _private("torch._C", "_is_fwd_grad_enabled")
SingleLevelFunction = _private("torch.autograd.function", "_SingleLevelFunction")
single_level = _private("torch._functorch.autograd_function", "enable_single_level_autograd_function")
has_dispatcher = all(
    name is not None
    for name in (
        *(below_autograd, after_autograd, forward_mode_is_enabled, SingleLevelFunction, single_level),
        *(_level, _set_forward_mode),
    )
)
# true where a mode, the profiler or a transform does; forward mode keeps its level in forward_ad
listeners = (_count_modes, _count_functions, _is_profiled, _level)
can_be_passed_by = has_dispatcher and _dual_level is not None and None not in listeners


def somebody_listens() -> bool:
    """Whether a mode or the profiler sees every operator that the dispatcher is asked for."""
    return bool(_count_modes() or _count_functions() or _is_profiled())


def _of_transforms(x: object) -> bool:
    """Whether ``x`` is a tensor of a torch.func transform: these have no memory of their own."""
    if not isinstance(x, Tensor):
        return False
    try:
        x.data_ptr()
    except RuntimeError:
        return True
    return False


def constant_while_compiling(function: Callable) -> Callable:
    """Mark what a tracer calls itself, and takes the result of as a constant of the graph.

    As ``torch.compiler.assume_constant_result``, which brings the whole of the tracer when it is called.
    """
    function._dynamo_marked_constant = True
    return function


@constant_while_compiling
def is_exporting() -> bool:
    """Whether ``torch.export`` traces: a tracer takes torch's own answer for True wherever it is at work."""
    return torch.compiler.is_exporting()


def redispatch(operator: Any, device: str, *args: object, **kwargs: object) -> Any:
    """Call what an operator has for ``"cpu"`` or ``"cuda"``, below all modes."""
    return operator.redispatch(_DispatchKeySet(getattr(_DispatchKey, device.upper())), *args, **kwargs)


is_wrapped: Callable[[Tensor], bool] = _is_wrapped or _of_transforms


def transform_is_on(*args: object) -> bool:
    """Whether a transform of torch.func is at work, or at least has made one of ``args``."""
    return _level() is not None if _level else any(map(_of_transforms, args))


def differentiating_transform_is_on(*args: object) -> bool:
    """The same of ``grad`` and ``jvp``; of all transforms where they cannot be told apart."""
    if _levels is None or _kinds is None:
        return transform_is_on(*args)
    return any(level.key() in (_kinds.Grad, _kinds.Jvp) for level in _levels() or ())


def forward_mode_is_on(*args: object) -> bool:
    """Whether tangents may be about: inside of a dual level, or of a ``jvp`` or ``jacfwd``."""
    if _dual_level is not None:
        return forward_ad._current_level >= 0
    return any(map(_of_transforms, args)) or has_tangents(*args)


def has_tangents(*args: object) -> bool:
    """Whether one of ``args`` has a tangent at the level at hand."""
    return any(isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None for x in args)


@contextmanager
def _with_forward_mode(on: bool) -> Iterator[None]:
    """Turn forward mode on by what turns it on among other things."""
    assert on, "no public switch turns forward mode off alone"
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


with_forward_mode = _set_forward_mode or _with_forward_mode


def _one_requires_grad(*args: object) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in args)


any_requires_grad: Callable[..., bool] = _any_requires_grad or _one_requires_grad


def distance_gradient(x: Tensor, y: Tensor, distances: Tensor, p: float, grad: Tensor) -> Tensor:
    """The gradient of ``torch.cdist(x, y, p)`` to ``x``; ``distances`` is what that gave."""
    if _distance_gradient is not None:
        return _distance_gradient(grad.contiguous(), x, y, p, distances.contiguous())
    mode = "donot_use_mm_for_euclid_dist"
    return torch.func.vjp(lambda x: torch.cdist(x, y, p, compute_mode=mode), x)[1](grad)[0]


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of each of several tensors of one device, in one launch for all of them, ``(n,)``."""
    return torch.stack(list(_norms(tensors)) if _norms is not None else [t.norm() for t in tensors])
